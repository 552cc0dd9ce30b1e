"""Where the generator's own time goes: a ladder of rungs, each in fresh processes."""
