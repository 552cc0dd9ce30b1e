"""The sink as a process of its own, which a run starts, watches and ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import signal
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Self

import msgspec

from blaster import interpreter
from blaster.errors import BlasterError
from blaster.sink.counts import SinkCounts
from blaster.sink.settings import SinkSettings

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 3.0
MOST_ANSWER_BYTES = 1 << 16

DEFAULT = SinkSettings()
"""On free ports of the loopback."""


class EmbeddedSink:
    """Starts a sink, by default on free loopback ports; a context manager.

    ``endpoint`` and ``http_endpoint`` are where to send OTLP/gRPC and OTLP/HTTP
    (http://127.0.0.1:PORT), ``pid`` is the process to watch, ``api_port`` where its API listens,
    ``api_url`` the same as a URL.
    Start it from the main thread: on Linux it dies with the thread that started it. Raises
    BlasterError when it does not start.
    """

    def __init__(self, settings: SinkSettings = DEFAULT) -> None:
        message = msgspec.json.encode(settings).decode()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            interpreter.command("blaster.sink", message),
            stdin=subprocess.PIPE,  # its end tells the sink that nobody needs it any more
            stdout=subprocess.PIPE,
            stderr=self._errors,
            process_group=0,  # Ctrl-C in the terminal is for the parent
        )
        try:
            ready = json.loads(self._first_line())
            self.endpoint = f"http://127.0.0.1:{ready['grpc_port']}"
            self.http_endpoint = f"http://127.0.0.1:{ready['http_port']}"
            self.api_port = int(ready["api_port"])
            self.api_url = f"http://127.0.0.1:{self.api_port}"
        except BaseException:
            self.close()
            raise
        self.pid = self._process.pid

    def _first_line(self) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], START_TIMEOUT_S)[0]:
            raise BlasterError(f"the embedded sink did not start within {START_TIMEOUT_S:.0f} s")
        line = stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            why = said[-1] if said else f"exit status {self._process.returncode}"
            raise BlasterError(f"the embedded sink did not start: {why}")
        return line

    def ending(self) -> str | None:
        """How its process ended; None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def counts(self, timeout_s: float = 5.0) -> SinkCounts:
        """What it counted so far; BlasterError when it does not say within ``timeout_s``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=timeout_s)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/v1/counts")
                answer = connection.getresponse().read(MOST_ANSWER_BYTES)
                return SinkCounts(**json.loads(answer))
            except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
                raise BlasterError(f"the embedded sink does not say its counts: {error}") from None

    def settled_counts(self, quiet_s: float = 0.2, timeout_s: float = 5.0) -> SinkCounts:
        """The counts once they stood still for ``quiet_s``, at the latest after ``timeout_s``.

        For the end of a run that left requests unanswered: they may still be on their way in.
        """
        until = time.monotonic() + timeout_s
        counts = self.counts()
        while time.monotonic() < until:
            time.sleep(quiet_s)
            before, counts = counts, self.counts()
            if counts == before:
                break
        return counts

    def close(self) -> None:
        """Ends it, by force when it does not go by itself within 3 seconds."""
        process = self._process
        process.terminate()
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
