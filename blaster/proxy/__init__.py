"""A TCP proxy that spoils the way between a sender and its target."""
