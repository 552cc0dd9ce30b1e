"""A load generator for OpenTelemetry trace backends."""

__version__ = "0.1.0"
