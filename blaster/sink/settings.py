"""SinkSettings: what a sink is started with, resolved and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blaster.errors import UsageError
from blaster.sink.betrace import check_quirks
from blaster.sink.capacity import MOST_SPANS_PER_S, NO_LIMIT, OVERLOADS, Capacity
from blaster.sink.fault import Fault
from blaster.sink.fault_grammar import parse_all
from blaster.sink.options import DEFAULT_REMEMBER, SinkOptions
from blaster.units import parse_duration, quoted

DEFAULT_MAX_MESSAGE_BYTES = 4 << 20
"""The largest message that gRPC receivers take by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """The message with which the embedded sink is started.

    A port of 0 is any free one. ``remember``: IDs remembered to find duplicates exactly.
    ``capacity``: what each protocol pretends to manage. ``receiver``: of OTLP/gRPC, wire (native),
    grpc (grpcio), or auto, which is wire where it was built. ``betrace``: quirks of the stand-in
    for BeTrace. ``faults``: faults on purpose; ``fault_seed`` decides which requests meet them.
    ``violations_endpoint``: where each violation is exported as a span, over OTLP/gRPC.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    api_port: int = 0
    remember: int = DEFAULT_REMEMBER
    capacity: Capacity = NO_LIMIT
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    receiver: Literal["auto", "wire", "grpc"] = "auto"
    betrace: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    fault_seed: int = 0
    violations_endpoint: str | None = None


def resolve(options: SinkOptions) -> SinkSettings:
    """The settings that the options mean. Raises UsageError, naming the option."""
    for name, value, least, most in (
        ("grpc-port", options.grpc_port, 0, 65535),
        ("http-port", options.http_port, 0, 65535),
        ("api-port", options.api_port, 0, 65535),
        ("remember", options.remember, 1, 1 << 32),
        ("fault-seed", options.fault_seed, 0, (1 << 63) - 1),
        ("capacity", options.capacity, 0, MOST_SPANS_PER_S),
    ):
        if not least <= value <= most:
            raise UsageError(f"--{name} {value}: must be {least} to {most}")
    if options.overload not in OVERLOADS:
        raise UsageError(f"--overload {quoted(options.overload)}: must be {', '.join(OVERLOADS)}")
    check_quirks("--betrace", options.betrace)
    return SinkSettings(
        host=options.host,
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        api_port=options.api_port,
        remember=options.remember,
        capacity=Capacity(options.capacity, options.overload, _seconds(options.service_time)),
        betrace=tuple(options.betrace),
        faults=parse_all(options.fault),
        fault_seed=options.fault_seed,
        violations_endpoint=options.violations_endpoint,
    )


def _seconds(service_time: str) -> float:
    if service_time == "0s":
        return 0.0
    try:
        return parse_duration(service_time) / 1e9
    except ValueError as error:
        raise UsageError(f"--service-time {quoted(service_time)}: {error}") from None
