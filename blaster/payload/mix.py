"""Mix: which trace is what, over a whole run, and exact counts of any of its traces.

A *cell* is a trace to be sent: a shape, one of its timings, and a kind of violation or none. The
traces that violate nothing take the cells of one cycle in turn, those of each kind of violation
the cells of another, so what trace n is follows from n alone, and sums over the cycles tell what
any range of traces holds without looking at one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from blaster.payload.json_template import json_template
from blaster.payload.shape import Int64, Shape
from blaster.payload.template import Encoding, Layout, build
from blaster.payload.violations import (
    ERROR,
    KINDS,
    MISSING_AUTH,
    SLOW,
    Quota,
    broken_by,
    of_kind,
    slow,
    slowed,
    violate,
)

MAX_CYCLE = 4096
"""The most cells in a cycle: the traces' weights are rounded to it."""

MAX_VIOLATING_SHAPES, MAX_VIOLATING_CELLS = 8, 256
"""The most shapes, and cells, that the violating traces of one kind take: their bytes stand in the
template once more."""

SPANS = 0
"""The first figure of a count; the violations of each kind follow, by the kinds' numbers."""


class Mix:
    """The cells of a workload and their order, for a rate of violations and a layout.

    ``cell_shape``, ``cell_kind``, ``cell_row`` (int64): what each cell is, cycle after cycle;
    ``lengths``: the cells of each cycle. ``cell_spans`` (int64, cells x parts). ``breaks`` (bool,
    cells x parts x rules): whether any span of its part breaks the rule. ``template``: all its
    bytes. ``parts``: the requests that a trace is spread over. ValueError where the shapes cannot
    be violated with or do not suit the layout.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        rate: Fraction,
        layout: Layout = "sdk",
        encoding: Encoding = "protobuf",
    ) -> None:
        self.shapes = tuple(shapes)
        self.layout: Layout = layout
        self.quota = Quota(rate)
        cycle = _cycle([shape.weight for shape in shapes])
        rows = _rows(cycle, shapes)
        self._statics = [broken_by(shape.request) for shape in shapes]
        cycles = [(cycle, rows, np.zeros(len(cycle), np.int64))]
        if rate > 0:
            clean = ~self._breaks(cycle, rows)
            for kind in (SLOW, ERROR, MISSING_AUTH):
                chosen = self._violating(cycle, rows, clean, kind)
                kinds = np.full(len(chosen), kind, np.int64)
                cycles.append((cycle[chosen], rows[chosen], kinds))
        self.cell_shape, self.cell_row, self.cell_kind = (
            np.concatenate([columns[i] for columns in cycles]) for i in range(3)
        )
        self.lengths = [len(columns[0]) for columns in cycles]
        self._first = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)
        kinds_of: list[set[int]] = [set() for _ in shapes]
        for shape, kind in zip(self.cell_shape.tolist(), self.cell_kind.tolist(), strict=True):
            if kind:
                kinds_of[shape].add(kind)
        self.template = build(shapes, [sorted(kinds) for kinds in kinds_of], layout)
        if encoding == "json":
            self.template = json_template(self.template)
        self.parts = self.template.parts
        counts = self._count_cells()
        self.cell_spans, self.breaks = counts[:, :, SPANS], counts[:, :, SLOW:] > 0
        sums = np.zeros((len(self.lengths), max(self.lengths) + 1, self.parts, 4), np.int64)
        for number, (first, length) in enumerate(zip(self._first, self.lengths, strict=True)):
            np.cumsum(counts[first : first + length], axis=0, out=sums[number, 1 : length + 1])
        self._sums, self._whole_sums = sums, sums.sum(axis=2)

    def timed(self, index: int, kind: int) -> tuple[npt.NDArray[np.intp], Int64, Int64]:
        """The cells of this shape and kind, and when their spans start and end (cells x spans)."""
        shape = self.shapes[index]
        here = np.flatnonzero((self.cell_shape == index) & (self.cell_kind == kind))
        row = self.cell_row[here]
        return here, shape.starts[row], slowed(shape, row) if kind == SLOW else shape.ends[row]

    def cell_took(self) -> Int64:
        """How long the trace of each cell takes, from its first start to its last end, in ns."""
        took = np.zeros(len(self.cell_shape), np.int64)
        for index, kind in self.template.numbers:
            here, starts, ends = self.timed(index, kind)
            took[here] = ends.max(axis=1) - starts.min(axis=1)
        return took

    @property
    def services(self) -> tuple[str, ...]:
        """The names of all services, in the order in which they are first seen."""
        found = {
            attribute.value.string_value: None
            for shape in self.shapes
            for resource in shape.request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }
        return tuple(found)

    @property
    def spans_per_trace(self) -> float:
        """The mean over the traces that violate nothing."""
        length = self.lengths[0]
        return float(self._sums[0, length, :, SPANS].sum() / length)

    @property
    def largest_part(self) -> float:
        """The mean spans of a trace in the largest of its parts."""
        length = self.lengths[0]
        return float(self._sums[0, length, :, SPANS].max() / length)

    @property
    def bytes_per_span(self) -> float:
        """The mean over the traces that violate nothing, without frames around a request."""
        length = self.lengths[0]
        sizes = np.array([len(variant.data) for variant in self.template.variants])
        numbers = self.template.numbers
        shapes = np.array([sizes[list(numbers[i, 0])].sum() for i in range(len(self.shapes))])
        total = shapes[self.cell_shape[:length]].sum()
        return float(total / self._whole_sums[0, length, SPANS])

    def cells(self, number: Int64) -> Int64:
        """The cells of the traces of these numbers."""
        before, violates = self.quota.split(number)
        cells = number - before
        # What is left of a division: % is not vectorised, // is.
        cells -= cells // self.lengths[0] * self.lengths[0]
        if len(self.lengths) > 1:
            violating = np.flatnonzero(violates)
            turn, kind = np.divmod(before[violating], 3)
            lengths = np.array(self.lengths[1:])
            cells[violating] = self._first[1:][kind] + turn % lengths[kind]
        return cells

    def count(self, first: Int64, counts: Int64, part: Int64 | None = None) -> Int64:
        """The figures (n x 4: spans, then violating spans of each kind) of ``counts[i]`` traces
        from ``first[i]`` on, of one part of them each or of all parts."""
        end = first + counts
        before, after = self.quota.before(first), self.quota.before(end)
        total = self._range(0, first - before, end - after, part)
        for kind in range(1, len(self.lengths)):
            total += self._range(kind, of_kind(before, kind), of_kind(after, kind), part)
        return total

    def own_violations(self, first: Int64, counts: Int64, part: Int64 | None = None) -> Int64:
        """The violating spans (n x 3) among them that the workload has of itself."""
        end = first + counts
        before, after = self.quota.before(first), self.quota.before(end)
        return self._range(0, first - before, end - after, part)[:, 1:]

    def spans_before(self, traces: Int64) -> Int64:
        """The spans in the first so many traces."""
        return self.count(np.zeros_like(traces), traces)[:, SPANS]

    def traces_within(self, spans: int) -> int:
        """The most traces, from the first on, that hold no more than so many spans in all."""
        low, high = 0, spans
        while low < high:
            middle = (low + high + 1) // 2
            if int(self.spans_before(np.array([middle]))[0]) <= spans:
                low = middle
            else:
                high = middle - 1
        return low

    def batch_bytes(self, traces: int) -> int:
        """The most bytes that a request of so many traces can take."""
        variants = self.template.variants
        sizes = np.zeros((len(self.shapes), self.parts), np.int64)
        for (shape, _), numbers in self.template.numbers.items():
            np.maximum(sizes[shape], [len(variants[v].data) for v in numbers], out=sizes[shape])
        by_cell = sizes[self.cell_shape]
        # However the cycles are interleaved, no more of each than there are traces.
        most = np.zeros(self.parts, np.int64)
        for number, (first, length) in enumerate(zip(self._first, self.lengths, strict=True)):
            here = (
                traces
                if number == 0
                else min(traces, int(self.quota.before(np.array([traces], np.int64))[0]) // 3 + 2)
            )
            most += _largest_window(by_cell[first : first + length], here)
        cap = traces * by_cell.max(axis=0)
        return int(np.minimum(most, cap).max()) + self.template.frame_bytes

    def _range(self, cycle: int, first: Int64, end: Int64, part: Int64 | None) -> Int64:
        return self._up_to(cycle, end, part) - self._up_to(cycle, first, part)

    def _up_to(self, cycle: int, n: Int64, part: Int64 | None) -> Int64:
        sums, length = self._sums[cycle], self.lengths[cycle]
        whole, rest = np.divmod(n, length)
        if part is None:
            sums = self._whole_sums[cycle]
            total: Int64 = sums[length] * whole[:, None] + sums[rest]
        else:
            total = sums[length][part] * whole[:, None] + sums[rest, part]
        return total

    def _breaks(self, cycle: Int64, rows: Int64) -> npt.NDArray[np.bool_]:
        """Which cells violate a rule of themselves."""
        found = np.zeros(len(cycle), np.bool_)
        for index, shape in enumerate(self.shapes):
            here = np.flatnonzero(cycle == index)
            row = rows[here]
            found[here] = self._statics[index].any()
            found[here] |= slow(shape.starts[row], shape.ends[row]).any(axis=1)
        return found

    def _violating(
        self, cycle: Int64, rows: Int64, clean: npt.NDArray[np.bool_], kind: int
    ) -> npt.NDArray[np.intp]:
        """The positions of the cycle that traces with a violation of this kind take: of cells
        that violate nothing of themselves where there are such, so that one span does."""
        can = np.array([shape.places[kind - 1] is not None for shape in self.shapes])[cycle]
        if not can.any():
            raise ValueError(f"violations.{KINDS[kind - 1]}: no trace has that operation")
        if (can & clean).any():
            can &= clean
        weights = np.bincount(cycle[can], minlength=len(self.shapes))
        largest = np.argsort(-weights, kind="stable")[:MAX_VIOLATING_SHAPES]
        positions = np.flatnonzero(can & np.isin(cycle, largest))
        step = -(-len(positions) // MAX_VIOLATING_CELLS)
        return positions[::step]

    def _count_cells(self) -> Int64:
        """The figures of every cell's parts (cells x parts x 4)."""
        counts = np.zeros((len(self.cell_shape), self.parts, 4), np.int64)
        for (index, kind), numbers in self.template.numbers.items():
            here, starts, ends = self.timed(index, kind)
            is_slow = slow(starts, ends)
            broken = self._statics[index]
            if kind not in (0, SLOW):
                broken = broken_by(violate(self.shapes[index], kind))
            for part, number in enumerate(numbers):
                spans = list(self.template.variants[number].spans)
                counts[here, part, SPANS] = len(spans)
                counts[here, part, SLOW] = is_slow[:, spans].sum(axis=1)
                counts[here, part, ERROR:] = broken[spans, 1:].sum(axis=0)
        return counts


def _cycle(weights: Sequence[int]) -> Int64:
    """The shapes' numbers, each as often as its weight, those of each evenly over the whole."""
    total = sum(weights)
    if len(weights) > MAX_CYCLE:
        raise ValueError(f"{len(weights):,} shapes: at most {MAX_CYCLE:,}")
    if total > MAX_CYCLE:
        weights = [max(1, round(weight * MAX_CYCLE / total)) for weight in weights]
    places, shapes = [], []
    for shape, weight in enumerate(weights):
        # Beginning at other places, by the golden ratio, shapes of one weight do not clump.
        shift = shape * 0.6180339887498949 % 1
        places.append((np.arange(weight) + shift) / weight)
        shapes.append(np.full(weight, shape, np.int64))
    return np.concatenate(shapes)[np.argsort(np.concatenate(places), kind="stable")]


def _rows(cycle: Int64, shapes: Sequence[Shape]) -> Int64:
    """The timing of each position: a shape takes its rows in turn."""
    rows = np.zeros(len(cycle), np.int64)
    for index, shape in enumerate(shapes):
        here = np.flatnonzero(cycle == index)
        rows[here] = np.arange(len(here)) % len(shape.starts)
    return rows


def _largest_window(sizes: Int64, length: int) -> Int64:
    """The largest sums of so many rows in a row, going round."""
    whole, rest = divmod(length, len(sizes))
    sums = np.concatenate([np.zeros_like(sizes[:1]), np.cumsum(np.tile(sizes, (2, 1)), axis=0)])
    windows = sums[rest : rest + len(sizes)] - sums[: len(sizes)]
    total: Int64 = sizes.sum(axis=0) * whole + windows.max(axis=0)
    return total
