"""The engine: a Plan is run by worker processes, their counts are kept, and Results are made."""
