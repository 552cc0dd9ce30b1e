"""Pacing: when spans are due, as pure functions of the elapsed time; no clock and no sleep."""
