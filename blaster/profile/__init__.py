"""The generator's own CPU cost: a ladder of rungs, each measured in fresh processes."""
