"""The sink's process: a receiver for each protocol, the API beside them, and when to end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from blaster.address import written
from blaster.errors import BlasterError, UsageError
from blaster.sink.api import ApiServer
from blaster.sink.betrace import Betrace
from blaster.sink.counts import SinkCounts
from blaster.sink.fault import HTTP
from blaster.sink.fault_control import FaultControl, Faulty
from blaster.sink.http_receiver import HttpReceiver
from blaster.sink.settings import SinkSettings

if TYPE_CHECKING:
    from blaster.sink.exporter import Exporter

FREEZE_S = 1.0
"""How long SIGUSR1 freezes the sink."""


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

    def scan(self, data: bytes, json: bool, share: int, random: int) -> tuple[int, int]:
        """Scans a message that came another way, in protobuf or in ``json``: its spans, or
        -1 when it is malformed, and how many were rejected: a share (of 2**32), rounded as
        ``random`` (below 2**32) has it."""

    def counts(self) -> SinkCounts:
        """What was counted so far."""


def serve(settings: SinkSettings, *, embedded: bool = False, as_json: bool = False) -> None:
    """Receive until SIGTERM, SIGINT or, where it is ``embedded``, the end of standard input.

    Prints one line on standard output once it listens: as JSON with ``as_json`` or ``embedded``.
    An embedded sink never outlives its parent, and ignores SIGINT: Ctrl-C in a terminal reaches
    all processes, and the parent still wants the counts. SIGUSR1 freezes it for a second. Call it
    from the main thread. Raises UsageError when a port can't be listened on.
    """
    if embedded:
        _die_with_parent()
    with _signals(ignore_sigint=embedded) as stop:
        receiver = _receiver(settings)
        http = HttpReceiver(
            settings.host,
            settings.http_port,
            receiver.scan,
            settings.max_message_bytes,
            settings.capacity,
        )

        def freeze(seconds: float) -> None:
            receiver.freeze(seconds)
            http.freeze(seconds)

        grpc_port = receiver.start()
        faults = FaultControl([receiver, http], [receiver.kind, HTTP])
        faults.put(settings.faults, settings.fault_seed)
        exporter = _exporter(settings)
        betrace = Betrace(
            [receiver], receiver.counts, settings.betrace, exporter.add if exporter else None
        )
        api = ApiServer(settings.host, settings.api_port, betrace, freeze, faults)
        thawed = signal.signal(signal.SIGUSR1, lambda *_: freeze(FREEZE_S))
        try:
            http_port = http.start()
            api_port = api.start()
            betrace.start()
            _print_ready(settings.host, grpc_port, http_port, api_port, as_json or embedded)
            _wait(stop, embedded)
        finally:
            signal.signal(signal.SIGUSR1, thawed)
            api.stop()
            betrace.stop()
            http.stop()  # before the receiver that counts for it
            receiver.stop()
            if exporter is not None:
                exporter.close()


def _exporter(settings: SinkSettings) -> Exporter | None:
    if settings.violations_endpoint is None:
        return None
    from blaster.sink.exporter import Exporter

    return Exporter(settings.violations_endpoint)


def _receiver(settings: SinkSettings) -> Receiver:
    arguments = (
        settings.host,
        settings.grpc_port,
        settings.remember,
        settings.max_message_bytes,
        settings.capacity,
    )
    if settings.receiver != "grpc":
        try:
            from blaster.sink.wire_receiver import WireReceiver

            return WireReceiver(*arguments)
        except ImportError as error:
            if settings.receiver == "wire":
                raise UsageError(f"the extension blaster._wire was not built: {error}") from None
    from blaster.sink.grpc_receiver import GrpcReceiver

    return GrpcReceiver(*arguments)


def _print_ready(host: str, grpc_port: int, http_port: int, api_port: int, as_json: bool) -> None:
    if as_json:
        ready = {
            "grpc_port": grpc_port,
            "http_port": http_port,
            "api_port": api_port,
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
    else:
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


def _wait(stop: int, embedded: bool) -> None:
    watched = [stop, 0] if embedded else [stop]
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


def main() -> int:
    """``python -m blaster.sink SETTINGS``, the settings as JSON; returns the exit status."""
    try:
        serve(msgspec.json.decode(sys.argv[1], type=SinkSettings), embedded=True)
    except BlasterError as error:
        print(f"blaster sink: {error}", file=sys.stderr)
        return error.exit_status
    return 0
