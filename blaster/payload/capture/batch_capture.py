"""BatchCapture: a file of the batches that were sent, which several processes write together."""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from blaster.errors import UsageError
from blaster.payload.capture import otlp_json, otlp_proto
from blaster.units import format_bytes, quoted

MAX_BYTES = 1 << 30

_JSON_NAMES = (".json", ".jsonl", ".ndjson")

_SIZE, _REQUESTS, _SPANS, _MISSED, _ERROR = range(5)


class BatchCapture:
    """The file ``path``: lines of OTLP JSON where its name ends in .json, .jsonl or .ndjson, and
    OTLP protobuf with lengths otherwise. It is emptied at once; UsageError if that fails.

    Made before the workers are forked, added to in them, and closed in the parent: it holds whole
    records then, even if a worker was killed while it wrote. It ends for good at ``most`` bytes or
    when the file system is full.
    """

    def __init__(self, path: str, most: int = MAX_BYTES) -> None:
        self.path, self._most = path, most
        self._json = path.lower().endswith(_JSON_NAMES)
        try:
            if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
                raise UsageError(f"--record {quoted(path)}: not a file")
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a file name"
            raise UsageError(f"--record {quoted(path)}: cannot be written: {reason}") from None
        # Shared with the workers: the contents of the file, to the record. Locked with the file.
        self._shared = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)[:5]

    def add(self, batches: Iterable[tuple[bytes, int]]) -> None:
        """Append the bytes of requests, each with its number of spans, in this order."""
        shared = self._shared
        for batch, spans in batches:
            # Once a batch is left out, all later ones are: the file is a prefix of what was sent.
            record = b"" if shared[_MISSED] else self._record(batch)
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            if not shared[_MISSED] and self._append(record):
                shared[_REQUESTS] += 1
                shared[_SPANS] += spans
            else:
                shared[_MISSED] += spans
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Cut off a record that a killed worker left half written, and close the file."""
        with suppress(OSError):
            os.ftruncate(self._file, int(self._shared[_SIZE]))
        os.close(self._file)

    @property
    def failed(self) -> bool:
        """Whether batches are missing because the file could not be written."""
        return bool(self._shared[_ERROR])

    def summary(self) -> str:
        """Return the contents of the file in one line."""
        size, requests, spans, missed, error = self._shared.tolist()
        text = f"{self.path}: {spans:,} spans in {requests:,} requests, {format_bytes(size)}"
        if missed:
            why = os.strerror(error) if error else f"the limit of {format_bytes(self._most)}"
            text += f"; {missed:,} spans that were sent are not in it: {why}"
        return text

    def _record(self, batch: bytes) -> bytes:
        if not self._json:
            return otlp_proto.frame(batch)
        return otlp_json.encode(otlp_proto.decode(batch)) + b"\n"

    def _append(self, record: bytes) -> bool:
        """Write one record after the last whole one. False: it has no room."""
        at = int(self._shared[_SIZE])
        if at + len(record) > self._most:
            return False
        try:
            rest = memoryview(record)
            while rest:
                rest = rest[os.pwrite(self._file, rest, at + len(record) - len(rest)) :]
        except OSError as error:
            self._shared[_ERROR] = error.errno or 0
            return False
        self._shared[_SIZE] = at + len(record)
        return True
