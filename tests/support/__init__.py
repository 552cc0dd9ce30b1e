"""Helpers of the tests: peers to start, hostile ones to play, commands to run."""
