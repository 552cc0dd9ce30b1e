"""A TCP proxy that injects network faults between a sender and its target."""
