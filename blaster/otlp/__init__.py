"""OTLP itself, which everything else stands on: the wire format, its messages, and the rules."""
