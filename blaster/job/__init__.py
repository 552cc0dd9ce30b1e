"""A run before it starts: the options as text, and the Job that is made of them, where every value
is parsed, checked and settled."""
