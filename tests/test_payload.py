"""Stamped batches: the kernel against its twin, and against opentelemetry-proto as decoder."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.stamping import made, stamp

from blaster import _native
from blaster.otlp.rules import RULES, violations_of
from blaster.otlp.wire_format import fields, read_varint, write_varint
from blaster.payload import flat
from blaster.payload.columns import Columns, ColumnSource
from blaster.payload.mix import Mix
from blaster.payload.template import START, Frame, Slot, Template, Variant
from tests.support import kernel_twin as twin

pytestmark = pytest.mark.native

SPANS = st.sampled_from([1, 2, 5, 21, 40])
SEEDS = st.integers(0, 2**63 - 1)
RATES = st.fractions(0, 1, max_denominator=1000)
ENDED = 1_800_000_000_000_000_000


def mix_of(rate: Fraction, spans: int) -> Mix:
    return Mix([flat.shape(spans)], rate)


def columns_of(seed: int, mix: Mix, first: list[int], per_batch: int) -> Columns:
    ended = np.arange(len(first), dtype=np.int64) + ENDED
    counts = np.full(len(first), per_batch, np.int64)
    return ColumnSource(seed, mix).make(np.array(first, np.int64), counts, ended)


def spans_of(batch: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(batch)
    return [s for r in request.resource_spans for c in r.scope_spans for s in c.spans]


@given(SEEDS, RATES, SPANS, st.lists(st.integers(0, 2**40), max_size=4), st.integers(1, 9))
def test_kernel_equals_twin(seed, rate, spans, first, per_batch):
    """The kernel stamps byte for byte what its twin does, from columns and batch by batch."""
    mix = mix_of(rate, spans)
    template, columns = mix.template, columns_of(seed, mix, first, per_batch)
    wanted = twin.stamp(template, columns)
    assert stamp(template, columns) == wanted
    numbers, ended = np.array(first, np.int64), np.arange(len(first), dtype=np.int64) + ENDED
    one_by_one = made(
        ColumnSource(seed, mix), template, numbers, columns.counts, ended, np.zeros_like(numbers)
    )
    assert one_by_one == (wanted, columns.spans.tolist())
    assert all(len(batch) <= mix.batch_bytes(per_batch) for batch in wanted)


@given(SEEDS, RATES, SPANS, st.integers(0, 2**40), st.integers(1, 9))
def test_stamped_batches_are_honest_otlp(seed, rate, spans, first, per_batch):
    """A stamped batch decodes to traces with one root, whose IDs are valid and unique, whose
    children lie within their parents' time, and which violate just what the quota says."""
    mix = mix_of(rate, spans)
    (batch,) = stamp(mix.template, columns_of(seed, mix, [first], per_batch))
    found = spans_of(batch)
    assert len(found) == per_batch * spans
    assert len({s.span_id for s in found}) == len(found)
    assert all(len(s.span_id) == 8 and any(s.span_id) for s in found)
    traces = {s.trace_id for s in found}
    assert len(traces) == per_batch
    assert all(len(t) == 16 and any(t[:8]) and any(t[8:]) for t in traces)
    by_id = {s.span_id: s for s in found}
    assert sum(not s.parent_span_id for s in found) == per_batch
    for span in found:
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= ENDED
        if span.parent_span_id:
            parent = by_id[span.parent_span_id]
            assert parent.trace_id == span.trace_id
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano
    wanted = mix.count(np.array([first]), np.array([per_batch]))[0, 1:].tolist()
    broken = np.array([violations_of(span) for span in found]).sum(axis=0)
    assert broken.tolist() == wanted


def test_each_kind_breaks_its_rule_alone():
    """Each kind of violation breaks the rule of its own name and no other."""
    mix = mix_of(Fraction(1), 3)
    (batch,) = stamp(mix.template, columns_of(1, mix, [0], 3))
    roots = [s for s in spans_of(batch) if not s.parent_span_id]
    slow, error, missing = roots
    assert slow.end_time_unix_nano - slow.start_time_unix_nano > 500_000_000
    assert error.status.code == 2
    assert {a.key: a.value for a in error.attributes}["http.status_code"].int_value == 500
    assert {a.key for a in missing.attributes} & {"http.route", "auth.token"} == {"http.route"}
    assert {"http.route", "auth.token"} <= {a.key for a in slow.attributes}
    assert len(RULES) == 3


@given(SEEDS, st.integers(0, 2**41))
def test_same_seed_same_bytes_other_seed_other_ids(seed, first):
    """The same seed and trace numbers give the same bytes, and another seed gives other IDs."""
    mix = mix_of(Fraction(1, 10), 2)
    batch = stamp(mix.template, columns_of(seed, mix, [first], 5))
    again = stamp(mix.template, columns_of(seed, mix, [first], 5))
    other = stamp(mix.template, columns_of(seed + 1, mix, [first], 5))
    assert batch == again
    ids = {s.trace_id for s in spans_of(batch[0])}
    assert not ids & {s.trace_id for s in spans_of(other[0])}


@given(RATES, st.integers(0, 10**12), st.integers(1, 5000))
def test_quota_is_exact(rate, first, traces):
    """Any run of traces holds the share of violations to within one, from the start exactly its
    floor, and the kinds take turns."""
    mix = mix_of(rate, 1)
    counted = mix.count(np.array([first]), np.array([traces]))[0]
    kinds = mix.cell_kind[mix.cells(first + np.arange(traces))]
    assert counted.tolist() == [traces, *(int((kinds == kind).sum()) for kind in (1, 2, 3))]
    assert abs(int(counted[1:].sum()) - rate * traces) <= 1
    whole = mix.count(np.array([0]), np.array([first + traces]))[0, 1:]
    assert int(whole.sum()) == rate * (first + traces) // 1
    assert max(whole) - min(whole) <= 1


def test_ids_are_unique_over_a_million_spans():
    """IDs do not repeat, whatever batches and workers the traces are dealt to."""
    columns = columns_of(3, mix_of(Fraction(0), 4), list(range(0, 250_000, 1000)), 1000)
    high, low, spans = columns.arrays[:3]
    assert len(np.unique(spans)) == 1_000_000
    assert len(np.unique(low)) == len(np.unique(high)) == 250_000
    assert spans.all() and low.all() and high.all()


TREES = [flat.shape(1), flat.shape(6)]
MIXES = st.sampled_from(
    [
        Mix([flat.shape(1)], Fraction(1, 10)),
        Mix([flat.shape(5)], Fraction(0)),
        Mix(TREES, Fraction(2, 7), "gateway"),
        Mix(TREES, Fraction(1), "scattered"),
    ]
)


@given(
    SEEDS,
    MIXES,
    st.lists(st.tuples(*[st.integers(0, 2**42)] * 2, st.integers(0, 7), st.integers(0, 3))),
)
def test_columns_equal_their_twin(seed, mix, batches):
    """The columns made in C are those of the plain twin, for any batches of any traces."""
    table = np.array(batches, np.int64).reshape(len(batches), 4).T.copy()
    first, quota, counts, parts = table
    parts %= mix.parts
    ended = ENDED - np.arange(len(batches))
    made = ColumnSource(seed, mix).make(first, counts, ended, parts=parts, quota_first=quota)
    arrays, variants, spans = twin.columns(seed, mix, first, counts, ended, parts, quota)
    assert [column.tolist() for column in made.arrays[:5]] == arrays
    assert (made.variants.tolist(), made.spans.tolist()) == (variants, spans)
    assert made.spans.tolist() == mix.count(quota, counts, parts)[:, 0].tolist()


KERNEL = {
    "odd_trace": 1,
    "span_step": 1,
    "share": 1,
    "of": 2,
    "cycles": (1, 1, 1, 1),
    "parts": 1,
    "cells": np.array([[0, 1, 9, 1, 0]] * 4),
    "entries": np.array([[0, 0, 9]]),
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 3},
        {"of": 0},
        {"parts": 0},
        {"cycles": (4,)},
        {"cycles": (1, 1, 1, 2)},
        {"cycles": (1, 0, 1, 1)},
        {"parts": 2},
        {"cells": np.array([[0, 2, 9, 1, 0]] * 4)},
        {"cells": np.array([[1, 1, 9, 1, 0]] * 4)},
        {"cells": np.array([[-1, 1, 9, 1, 0]] * 4)},
        {"cells": np.array([[0, 1, 9, 1, 2**16]] * 4)},
    ],
)
def test_column_kernel_refuses_tables_that_do_not_fit(wrong):
    """A cell that points outside the entries, or a cycle outside the cells, is never walked."""
    with pytest.raises(ValueError, match=r"\S"):
        _native.ColumnKernel(**KERNEL | wrong)


@pytest.mark.parametrize(
    ("counts", "parts", "quota", "rows"),
    [
        ([3], [0], [0], 2),  # rows too few
        ([-1], [0], [0], 9),
        ([2**31], [0], [0], 9),
        ([1], [1], [0], 9),  # no such part
        ([1], [0], [-1], 9),
        ([1], [0], [2**43], 9),
        ([1, 1], [0], [0], 9),  # arrays of other lengths
        ([1, 9], [0, 0], [0, 0], 9),
    ],
)
def test_columns_refuse_what_does_not_fit(counts, parts, quota, rows):
    """Batches and room are checked before a row is written behind its column."""
    kernel = _native.ColumnKernel(**KERNEL)
    counts, parts, quota = (np.array(numbers, np.int64) for numbers in (counts, parts, quota))
    columns = [np.zeros(rows, np.int64) for _ in range(5)]
    variants, spans = np.zeros(rows, np.uint16), np.zeros(len(counts), np.int64)
    with pytest.raises(ValueError, match=r"\S"):
        kernel.fill(quota, counts, parts, quota, quota, *columns, variants, spans)


FRAMINGS = (((0x0A, b""),),)


@pytest.mark.parametrize(
    ("framings", "variants"),
    [
        (FRAMINGS, ((b"12345678", ((1, 8, 0, 0),), (8,), 0),)),
        (FRAMINGS, ((b"12345678", ((2**32 - 1, 8, 0, 0),), (8,), 0),)),
        (FRAMINGS, ((b"12345678", ((0, 8, 1, 0),), (8,), 0),)),
        (FRAMINGS, ((b"12345678", ((0, 8, 0, 1),), (8,), 0),)),
        (FRAMINGS, ((b"12345678", ((0, 4, 0, 5),), (8,), 0),)),
        (FRAMINGS, ((b"12345678", ((0, 8, 0, 0),), (0,), 0),)),
        (FRAMINGS, ((b"", (), (2**32,), 0),)),
        (FRAMINGS, ((b"", (), (8,) * 17, 0),)),
        (FRAMINGS, ((b"", (), (8,), 0), (b"", (), (8, 8), 0))),
        (FRAMINGS, ((b"", (), (8,), 1),)),
        (FRAMINGS, ()),
        ((), ((b"", (), (8,), 0),)),
        ((FRAMINGS[0] * 5,), ((b"", (), (8,), 0),)),
        ((((0x80, b""),),), ((b"", (), (8,), 0),)),
    ],
)
def test_template_refuses_slots_that_do_not_fit(framings, variants):
    """A slot outside its variant or its column never reaches the kernel."""
    with pytest.raises(ValueError, match=r"\S"):
        _native.Template(framings, variants)


@pytest.mark.parametrize(
    ("columns", "variants", "counts", "out"),
    [
        ((bytes(8),), [0, 0], [2], 100),  # a row short
        ((bytes(16),), [0, 2], [2], 100),  # no such variant
        ((bytes(16),), [0, 1], [2], 100),  # a variant that takes more
        ((bytes(16),), [0, 0], [1], 100),  # counts that do not add up
        ((bytes(16),), [0, 0], [3], 100),
        ((bytes(16),), [0, 0], [-1, 3], 100),
        ((bytes(16), bytes(16)), [0, 0], [2], 100),  # a column too many
        ((bytes(16),), [0, 0], [2], 17),  # too little room
    ],
)
def test_stamp_refuses_what_does_not_fit(columns, variants, counts, out):
    """Columns, variants, counts and room are checked before a byte is written."""
    slots = ((0, 8, 0, 0),)
    template = _native.Template(
        FRAMINGS, ((b"12345678", slots, (8,), 0), (b"12345678", slots, (16,), 0))
    )
    room, offsets = bytearray(out), np.zeros(len(counts) + 1, np.int64)
    numbers = np.array(variants, np.uint16)
    with pytest.raises(ValueError, match=r"\S"):
        template.stamp_into(columns, numbers, np.array(counts), room, offsets)


def test_batches_refuse_what_does_not_fit():
    """A template of other columns, numbers that there are not, and digits or room too short."""
    one, none = np.ones(1, np.int64), np.zeros(1, np.int64)
    cells = np.array([[0, 1, 9, 1, 0]])
    kernel = _native.ColumnKernel(1, 1, 0, 1, (1,), 1, cells, np.array([[0, 0, 9]]))
    for strides in [(8,), (8, 8, 16, 8, 8, 0), (16, 8, 8, 8, 8, 0), (8, 8, 8, 8, 0, 0)]:
        template = _native.Template(FRAMINGS, ((b"12345678", (), strides, 0),))
        with pytest.raises(ValueError, match=r"\S"):
            _native.Batches(kernel, template)
    template = _native.Template(FRAMINGS, ((b"12345678", (), (8, 8, 8, 8, 8, 4), 0),))
    batches = _native.Batches(kernel, template)
    digits, spans = np.zeros(1, np.uint32), np.zeros(1, np.int64)
    for numbers in [
        (none, one, one, none, none, digits, spans),  # no such part
        (none, one, none, none - 1, none, digits, spans),  # no such number
        (none, one * 2, none, none, none, digits, spans),  # too few digits
        (none, one, none, none, none, digits, spans[:0]),
        (none, one, none, none[:0], none, digits, spans),
    ]:
        with pytest.raises(ValueError, match=r"\S"):
            batches.begin(*numbers)
        assert list(batches) == []
    batches.begin(none, one, none, none, none, digits, spans)
    assert (len(list(batches)), list(batches), spans.tolist()) == (1, [], [1])


@given(
    st.lists(
        st.tuples(st.binary(min_size=32, max_size=2000), st.integers(1, 32), st.integers(0, 2)),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(0, 3), max_size=40),
    st.randoms(use_true_random=False),
)
def test_kernel_equals_twin_for_any_template(made, numbers, random):
    """The kernel stamps what its twin does for slots of any width and rows of any number."""
    variants = []
    for data, width, rows in made:
        slots = tuple(
            Slot(random.randrange(len(data) - width + 1), width, 0, row * 32 + 32 - width)
            for row in range(rows)
        )
        entries = tuple(range(4 * rows))
        variants.append(Variant(data, slots, entries, (), (), random.randrange(2)))
    framings = ((Frame(0x0A, b"one"), Frame(0x12, b"")), ())
    native = _native.Template(
        framings,
        tuple(
            (v.data, v.slots, (32 * r[2],), v.framing) for v, r in zip(variants, made, strict=True)
        ),
    )
    numbers = np.array([n % len(variants) for n in numbers], np.uint16)
    column = np.frombuffer(random.randbytes(sum(32 * made[n][2] for n in numbers)), np.uint8)
    cut = random.randrange(len(numbers) + 1)
    counts = np.array([cut, len(numbers) - cut, 0])
    takes = sum(len(variants[n].data) for n in numbers)
    out, offsets = bytearray(takes + 3 * 99), np.zeros(4, np.int64)
    native.stamp_into((column,), numbers, counts, out, offsets)
    stamped = [bytes(out[a:b]) for a, b in pairwise(offsets.tolist())]
    # The twin's strides are those of the six columns: the one here stands in the place of START.
    empty = np.zeros(0, np.uint8)
    ids = np.zeros(8 * len(numbers), np.uint8)
    moved = [replace(v, slots=tuple(s._replace(column=START) for s in v.slots)) for v in variants]
    spare = np.zeros(len(column), np.uint8)
    columns = Columns((ids, ids, spare, column, spare, empty), numbers, counts, counts)
    assert stamped == twin.stamp(Template(framings, tuple(moved), {}, 1), columns)


@given(st.integers(0, 2**64 - 1))
def test_varints_come_back(value):
    """A varint that was written reads as itself and ends where it should."""
    data = write_varint(value)
    assert read_varint(data, 0, len(data)) == (value, len(data))


@given(st.binary(max_size=64))
def test_walking_any_bytes_ends(data):
    """Walking arbitrary bytes yields fields inside them or raises ValueError, nothing else."""
    try:
        for field in fields(data):
            assert 0 <= field.tag < field.start <= field.end <= len(data)
    except ValueError:
        pass
