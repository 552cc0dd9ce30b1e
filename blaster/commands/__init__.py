"""The commands: each parses, calls and shows; nothing else."""
