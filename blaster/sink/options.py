"""SinkOptions: the options of ``blaster sink``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from blaster.option import FAULTS, LOAD, TARGET, Option

DEFAULT_REMEMBER = 1 << 22
"""IDs remembered: some 45 to 90 MB once so many have come."""


@dataclass(frozen=True, kw_only=True)
class SinkOptions:
    """Values as given; :func:`blaster.sink.settings.resolve` makes SinkSettings of them."""

    host: Annotated[str, Option("Address to listen on.", TARGET)] = "127.0.0.1"
    grpc_port: Annotated[int, Option("Port of OTLP/gRPC; 0: any free port.", TARGET)] = 4317
    http_port: Annotated[int, Option("Port of OTLP/HTTP; 0: any free port.", TARGET)] = 4318
    api_port: Annotated[int, Option("Port of counts and metrics; 0: any free port.", TARGET)] = 4319
    capacity: Annotated[
        int, Option("Spans per second that it pretends to manage; 0: no limit.", LOAD)
    ] = 0
    overload: Annotated[
        str, Option("Beyond its capacity: refuse, or queue (answers come later).", LOAD)
    ] = "refuse"
    service_time: Annotated[str, Option("Extra response latency, as 5ms.", LOAD)] = "0s"
    remember: Annotated[int, Option("IDs remembered to find duplicates exactly.")] = (
        DEFAULT_REMEMBER
    )
    betrace: Annotated[
        Sequence[str],
        Option(
            "Quirk of the stand-in for BeTrace: snake, twice, old-dialect, new-dialect, "
            "never-ready or no-metrics; repeatable."
        ),
    ] = ()
    fault: Annotated[
        Sequence[str],
        Option(
            "Fault to inject, such as delay=50ms..200ms@10% or "
            "status=UNAVAILABLE,retry=2s@5%,from=10s,for=5s; repeatable.",
            FAULTS,
        ),
    ] = ()
    fault_seed: Annotated[int, Option("Decides which requests meet the faults.", FAULTS)] = 0
    violations_endpoint: Annotated[
        str | None,
        Option("Where to export violations as spans: OTLP/gRPC, http://HOST:PORT."),
    ] = None
    json: Annotated[bool, Option("Print the ports as one line of JSON.")] = False
