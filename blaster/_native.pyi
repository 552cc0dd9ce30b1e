"""The C kernel: making columns, stamping batches and scanning requests."""

from typing import Any, TypedDict, final

import numpy as np
from typing_extensions import Buffer as _Buffer

# numpy's stubs say that an array is a Buffer only from Python 3.12 on.
Buffer = _Buffer | np.ndarray[Any, Any]

class ColumnKernel:
    """Makes the IDs and times of traces by their numbers; see native/columns.h.

    ``share`` in ``of``: the traces that violate. ``cycles``: the cells of the cycle of traces that
    violate nothing, and of those of each kind of violation. ``cells`` (int64, a row of 5 for each
    of the ``parts`` of each cell): the first row and the number of its ``entries``, the trace's
    extent in ns, the spans, the template's variant. ``entries`` (int64, rows of 3): the step of
    the span's ID, start and end in ns. Raises ValueError when a table does not fit another.
    """

    def __init__(
        self,
        odd_trace: int,
        span_step: int,
        share: int,
        of: int,
        cycles: tuple[int, ...],
        parts: int,
        cells: Buffer,
        entries: Buffer,
    ) -> None: ...
    def entries(self, quota: Buffer, counts: Buffer, parts: Buffer, /) -> int:
        """The rows of entries that batches take (arrays: int64, one item a batch)."""

    def fill(
        self,
        first: Buffer,
        counts: Buffer,
        parts: Buffer,
        quota: Buffer,
        ended: Buffer,
        high: Buffer,
        low: Buffer,
        span_ids: Buffer,
        starts: Buffer,
        ends: Buffer,
        variants: Buffer,
        spans: Buffer,
        /,
    ) -> int:
        """Fills the columns of the batches (int64, one item a batch; the columns' items are of 8
        bytes, variants uint16, spans one a batch), and returns the rows of entries.

        Raises ValueError for numbers out of range, and when the columns have too few rows.
        """

    def variants(self, quota: Buffer, counts: Buffer, parts: Buffer, out: Buffer, /) -> None:
        """The template's variants (uint16) for the batches' traces.

        Raises ValueError when ``out`` has too few rows."""

@final
class Batches:
    """An iterator that makes each batch, its columns and its bytes, when it is asked for it.

    It makes them from ``columns`` for ``template``, one of protobuf. Raises ValueError when the
    template takes other columns than are made. One thread may use it at a time.
    """

    def __init__(self, columns: ColumnKernel, template: Template) -> None: ...
    def begin(
        self,
        first: Buffer,
        counts: Buffer,
        parts: Buffer,
        quota: Buffer,
        ended: Buffer,
        digits: Buffer,
        spans: Buffer,
        /,
    ) -> None:
        """These batches (int64, one item a batch) come next, in place of any before; ``digits``
        (uint32) are all their traces' drawn digits. The spans of each go to ``spans``.

        The arrays must not change until the last was made. Raises ValueError for numbers out of
        range, and when the digits are fewer than the traces take.
        """

    def __iter__(self) -> Batches: ...
    def __next__(self) -> bytes:
        """The next batch."""

    @property
    def source(self) -> object:
        """The same for blaster._wire, which makes them without the GIL."""

def hex_digits(data: Buffer, /) -> bytes:
    """Two hexadecimal digits for each byte."""

def decimal_digits(words: Buffer, /) -> bytes:
    """19 decimal digits for each word of 64 bits.

    Raises TypeError where they are not of 64 bits, ValueError where one has more digits."""

class ScanCounts(TypedDict):
    """What a scanner counted; see native/scan.h. ``violations`` in the order of sink.rules."""

    requests: int
    malformed: int
    bytes: int
    spans: int
    duplicates: int
    invalid: int
    sampling: int
    violations: tuple[int, int, int]

class Scanner:
    """Counts spans, checks IDs and evaluates the rules over the requests given to it.

    Up to ``capacity`` IDs are remembered to find duplicates (11 to 22 bytes each, taken as they
    come); beyond it a sample of them. Any thread may use it; one at a time is served.
    Raises ValueError when ``capacity`` is less than 1.
    """

    def __init__(self, capacity: int = 4194304) -> None: ...
    @property
    def sampling(self) -> int:
        """One ID in how many is checked for duplicates now; 1 is exact."""

    def request(self, data: Buffer, /) -> int:
        """Scans one ExportTraceServiceRequest; its number of spans, or -1 when malformed."""

    def request_json(self, data: Buffer, /) -> int:
        """As ``request``, for the message in OTLP/JSON; native/json_scan.c says what that is."""

    def partly(self, data: Buffer, json: bool, share: int, random: int, /) -> tuple[int, int]:
        """As ``request`` or ``request_json``, but a share (of 2**32) of the spans, the last, does
        not count.

        It is rounded up or down as ``random`` (below 2**32) has it. Returns (spans, rejected).
        """

    def counts(self) -> ScanCounts:
        """What was counted so far, as one consistent snapshot."""

    def watch(self, rules: int, /) -> None:
        """From now on keeps the spans that break one of these rules (bit r: RULES[r]); 0: none."""

    def take(self) -> tuple[bytes, int]:
        """Takes the spans that were kept, as records of sink.kept.KEPT, at most 65,536 of them; and
        how many so far found no room."""

class Template:
    """Prebuilt bytes and the places in them to patch; every slot is checked on construction.

    ``framings``: what can stand around a batch, each a tuple of (tag, prefix bytes), outermost
    first, or (head, tail) of a text in which every trace begins with a separator, of which the
    first is blanked; a batch takes that of its first trace. ``variants``: tuple of (bytes, tuple of
    (offset, width, column, shift), strides, framing), where strides are the bytes that the trace
    takes of each column. Raises ValueError when a slot does not fit its variant or its part of
    the column.
    """

    def __init__(
        self,
        framings: tuple[tuple[tuple[int, bytes], ...] | tuple[bytes, bytes], ...],
        variants: tuple[
            tuple[bytes, tuple[tuple[int, int, int, int], ...], tuple[int, ...], int], ...
        ],
    ) -> None: ...
    def stamp_into(
        self,
        columns: tuple[Buffer, ...],
        variants: Buffer,
        counts: Buffer,
        out: Buffer,
        offsets: Buffer,
        /,
    ) -> int:
        """The batches one after another into ``out``; ``offsets`` (int64, batches + 1) cut it.

        Returns the bytes written. Raises ValueError when ``out`` is too small.
        """
