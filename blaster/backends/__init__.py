"""Adapters to real backends, which tell whether the spans arrived, are found, and were judged."""
