"""The sink's process: a receiver for each protocol, the API beside them, and when to end."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from blaster.address import written
from blaster.errors import BlasterError, UsageError
from blaster.sink.api import ApiServer
from blaster.sink.betrace import QUIRKS, Betrace, check_quirks
from blaster.sink.capacity import MOST_SPANS_PER_S, OVERLOADS, Capacity
from blaster.sink.counts import SinkCounts
from blaster.sink.fault import HTTP
from blaster.sink.fault_control import FaultControl, Faulty
from blaster.sink.fault_grammar import parse_all
from blaster.sink.http_receiver import HttpReceiver
from blaster.units import parse_duration, quoted

if TYPE_CHECKING:
    from blaster.sink.exporter import Exporter

DEFAULT_REMEMBER = 1 << 22
"""IDs remembered: some 45 to 90 MB once so many have come."""
DEFAULT_MAX_MESSAGE_BYTES = 4 << 20
"""What gRPC receivers take unless told otherwise."""
RECEIVERS = ("auto", "wire", "grpc")
FREEZE_S = 1.0
"""How long SIGUSR1 freezes the sink."""


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """What ``blaster sink`` is asked for. A port of 0 is any free one.

    ``json``: the line that says it is ready is JSON. ``parent_pipe``: end at the end of standard
    input, and never outlive the parent. ``remember``: how many IDs are remembered to find
    duplicates exactly. ``capacity``: the spans a second that it pretends to manage, 0 for no limit;
    ``overload``: what it does beyond, refuse or queue; ``service_time``: a duration that each
    answer takes besides; each protocol pretends for itself. ``receiver``: of OTLP/gRPC, wire
    (native), grpc (grpcio), or auto, which is wire where it was built. ``betrace``: peculiarities
    of the stand-in for BeTrace; ``violations_endpoint``: where it exports each violation as a span,
    over OTLP/gRPC. ``fault``: see sink.fault_grammar; ``fault_seed`` seeds their draw.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 4317
    http_port: int = 4318
    api_port: int = 4319
    json: bool = False
    parent_pipe: bool = False
    remember: int = DEFAULT_REMEMBER
    capacity: int = 0
    overload: str = OVERLOADS[0]
    service_time: str = "0s"
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    receiver: str = "auto"
    betrace: Sequence[str] = ()
    violations_endpoint: str | None = None
    fault: Sequence[str] = ()
    fault_seed: int = 0

    def check(self) -> None:
        """Raises UsageError, naming the option, when a value is out of its range."""
        for name, value, least, most in (
            ("grpc-port", self.grpc_port, 0, 65535),
            ("http-port", self.http_port, 0, 65535),
            ("api-port", self.api_port, 0, 65535),
            ("remember", self.remember, 1, 1 << 32),
            ("fault-seed", self.fault_seed, 0, (1 << 63) - 1),
            ("capacity", self.capacity, 0, MOST_SPANS_PER_S),
            ("max-message-bytes", self.max_message_bytes, 1, (1 << 31) - 1),
        ):
            if not least <= value <= most:
                raise UsageError(f"--{name} {value}: must be {least} to {most}")
        if self.receiver not in RECEIVERS:
            raise UsageError(f"--receiver {self.receiver}: must be {', '.join(RECEIVERS)}")
        if self.overload not in OVERLOADS:
            raise UsageError(f"--overload {quoted(self.overload)}: must be {', '.join(OVERLOADS)}")
        check_quirks("--betrace", self.betrace)
        parse_all(self.fault)
        self.pretended()

    def pretended(self) -> Capacity:
        """The capacity to pretend. Raises UsageError when the service time is none."""
        try:
            service_ns = parse_duration(self.service_time) if self.service_time != "0s" else 0
        except ValueError as error:
            raise UsageError(f"--service-time {quoted(self.service_time)}: {error}") from None
        return Capacity(self.capacity, self.overload, service_ns / 1e9)


class Receiver(Faulty, Protocol):
    """Listens for OTLP and scans what comes. ``kind``: as in sink.fault."""

    kind: str

    def start(self) -> int:
        """Listens; returns the port. Raises UsageError when the address can't be listened on."""

    def stop(self, grace_s: float = 1.0) -> None:
        """Stops listening; requests in flight have ``grace_s`` seconds to end."""

    def freeze(self, seconds: float) -> None:
        """Answers nobody for so long."""

    def watch(self, rules: int) -> None:
        """From now on keeps the spans that break one of these rules; see sink.kept."""

    def take(self) -> tuple[bytes, int]:
        """Takes the spans that were kept; see sink.kept."""

    def scan(self, data: bytes, share: int = 0, random: int = 0) -> tuple[int, int]:
        """Scans a message that came another way: its spans, or -1 when it is malformed, and how
        many were rejected: a share (of 2**32), rounded as ``random`` (below 2**32) has it."""

    def counts(self) -> SinkCounts:
        """What was counted so far."""


def serve(options: SinkOptions) -> None:
    """Receives until SIGTERM, SIGINT or (with ``parent_pipe``) the end of standard input.

    Prints one line on standard output once it listens. With ``parent_pipe`` SIGINT is ignored:
    Ctrl-C in a terminal reaches everybody, and the parent still wants the counts. SIGUSR1 freezes
    it for a second. Call it from the main thread. Raises UsageError when an option is wrong or a
    port can't be had.
    """
    options.check()
    if options.parent_pipe:
        _die_with_parent()
    with _signals(ignore_sigint=options.parent_pipe) as stop:
        receiver = _receiver(options)
        http = HttpReceiver(
            *(options.host, options.http_port, receiver.scan, options.max_message_bytes),
            options.pretended(),
        )

        def freeze(seconds: float) -> None:
            receiver.freeze(seconds)
            http.freeze(seconds)

        grpc_port = receiver.start()
        faults = FaultControl([receiver, http], [receiver.kind, HTTP])
        faults.set(options.fault, options.fault_seed)
        exporter = _exporter(options)
        betrace = Betrace(
            [receiver], receiver.counts, options.betrace, exporter.add if exporter else None
        )
        api = ApiServer(options.host, options.api_port, betrace, freeze, faults)
        thawed = signal.signal(signal.SIGUSR1, lambda *_: freeze(FREEZE_S))
        try:
            http_port = http.start()
            api_port = api.start()
            betrace.start()
            _say_ready(options, grpc_port, http_port, api_port)
            _wait(stop, options.parent_pipe)
        finally:
            signal.signal(signal.SIGUSR1, thawed)
            api.stop()
            betrace.stop()
            http.stop()  # before the receiver that counts for it
            receiver.stop()
            if exporter is not None:
                exporter.close()


def _exporter(options: SinkOptions) -> Exporter | None:
    if options.violations_endpoint is None:
        return None
    from blaster.sink.exporter import Exporter

    return Exporter(options.violations_endpoint)


def _receiver(options: SinkOptions) -> Receiver:
    arguments = (
        *(options.host, options.grpc_port, options.remember, options.max_message_bytes),
        options.pretended(),
    )
    if options.receiver != "grpc":
        try:
            from blaster.sink.wire_receiver import WireReceiver

            return WireReceiver(*arguments)
        except ImportError as error:
            if options.receiver == "wire":
                raise UsageError(
                    f"--receiver wire: the extension blaster._wire was not built ({error}); "
                    "choose auto or grpc"
                ) from None
    from blaster.sink.grpc_receiver import GrpcReceiver

    return GrpcReceiver(*arguments)


def _say_ready(options: SinkOptions, grpc_port: int, http_port: int, api_port: int) -> None:
    if options.json:
        ready = {
            "grpc_port": grpc_port,
            "http_port": http_port,
            "api_port": api_port,
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
    else:
        host = options.host
        print(
            f"blaster sink: OTLP/gRPC on {written(host, grpc_port)}, "
            f"OTLP/HTTP on http://{written(host, http_port)}/v1/traces, "
            f"counts on http://{written(host, api_port)}/v1/counts, pid {os.getpid()}",
            flush=True,
        )


@contextlib.contextmanager
def _signals(*, ignore_sigint: bool) -> Iterator[int]:
    """A file descriptor that can be read once SIGTERM or SIGINT came."""
    stop, tell = os.pipe()
    os.set_blocking(tell, False)

    def handler(_signal: int, _frame: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(tell, b"!")

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, handler),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN if ignore_sigint else handler),
    }
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        os.close(stop)
        os.close(tell)


def _wait(stop: int, parent_pipe: bool) -> None:
    watched = [stop, 0] if parent_pipe else [stop]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if stop in ready or os.read(0, 4096) == b"":
            return


def _die_with_parent() -> None:
    """On Linux the kernel kills us when the thread that started us ends; elsewhere, and besides,
    standard input ends."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))


def main(arguments: list[str] | None = None) -> int:
    """``python -m blaster.sink``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="blaster sink", description=__doc__)
    default = SinkOptions()
    parser.add_argument("--host", default=default.host)
    parser.add_argument("--grpc-port", type=int, default=default.grpc_port)
    parser.add_argument("--http-port", type=int, default=default.http_port)
    parser.add_argument("--api-port", type=int, default=default.api_port)
    parser.add_argument("--remember", type=int, default=default.remember)
    parser.add_argument("--capacity", type=int, default=default.capacity)
    parser.add_argument("--overload", choices=OVERLOADS, default=default.overload)
    parser.add_argument("--service-time", default=default.service_time)
    parser.add_argument("--max-message-bytes", type=int, default=default.max_message_bytes)
    parser.add_argument("--receiver", choices=RECEIVERS, default=default.receiver)
    parser.add_argument("--betrace", choices=list(QUIRKS), action="append", default=[])
    parser.add_argument("--fault", action="append", default=[])
    parser.add_argument("--fault-seed", type=int, default=default.fault_seed)
    parser.add_argument("--violations-endpoint", default=default.violations_endpoint)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--parent-pipe", action="store_true")
    try:
        serve(SinkOptions(**vars(parser.parse_args(arguments))))
    except BlasterError as error:
        print(f"blaster sink: {error}", file=sys.stderr)
        return error.exit_status
    return 0
