"""The embedded OTLP receiver: counts spans, checks IDs and evaluates the rules over them."""
