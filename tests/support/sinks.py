"""Embedded sinks with the options of ``blaster sink``."""

from dataclasses import replace
from typing import Any

from blaster.sink.options import SinkOptions
from blaster.sink.process import EmbeddedSink
from blaster.sink.settings import resolve


def started(*, receiver: Any = "auto", **options: Any) -> EmbeddedSink:
    """A sink on free ports; ``receiver``: of OTLP/gRPC."""
    settings = resolve(SinkOptions(grpc_port=0, http_port=0, api_port=0, **options))
    return EmbeddedSink(replace(settings, receiver=receiver))
