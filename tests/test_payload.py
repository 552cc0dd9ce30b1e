"""What is stamped: the kernel against its twin, and against opentelemetry-proto as decoder."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from blaster import _native
from blaster.payload import flat, twin
from blaster.payload.columns import Columns, ColumnSource
from blaster.payload.template import Template
from blaster.payload.violations import Quota
from blaster.payload.wire_format import fields, read_varint, write_varint
from blaster.sink.rules import RULES, violations_of

pytestmark = pytest.mark.native

SPANS = st.sampled_from([1, 2, 5, 21, 40])
SEEDS = st.integers(0, 2**63 - 1)
RATES = st.fractions(0, 1, max_denominator=1000)
ENDED = 1_800_000_000_000_000_000


def columns_of(seed: int, rate: Fraction, spans: int, first: list[int], per_batch: int) -> Columns:
    source = ColumnSource(seed, rate, flat.timeline(spans))
    ended = np.arange(len(first), dtype=np.int64) + ENDED
    return source.make(np.array(first, np.int64), per_batch, ended)


def stamp(template: Template, columns: Columns) -> list[bytes]:
    return template.compile().stamp_bytes(columns.arrays, columns.variants, columns.counts)


def spans_of(batch: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(batch)
    return [s for r in request.resource_spans for c in r.scope_spans for s in c.spans]


@given(SEEDS, RATES, SPANS, st.lists(st.integers(0, 2**40), max_size=4), st.integers(1, 9))
def test_kernel_equals_twin(seed, rate, spans, first, per_batch):
    """The kernel stamps byte for byte what its Python twin does, in both of its forms."""
    template = flat.template(spans)
    columns = columns_of(seed, rate, spans, first, per_batch)
    wanted = twin.stamp(template, columns)
    assert stamp(template, columns) == wanted
    out = bytearray(template.batch_bytes(per_batch) * len(first))
    offsets = np.zeros(len(first) + 1, np.int64)
    arguments = (columns.arrays, columns.variants, columns.counts, out, offsets)
    total = template.compile().stamp_into(*arguments)
    assert [bytes(out[a:b]) for a, b in pairwise(offsets)] == wanted
    assert total == sum(map(len, wanted))


@given(SEEDS, RATES, SPANS, st.integers(0, 2**40), st.integers(1, 9))
def test_stamped_batches_are_honest_otlp(seed, rate, spans, first, per_batch):
    """A stamped batch decodes to traces with one root, whose IDs are valid and unique, whose
    children lie within their parents' time, and which violate just what the quota says."""
    columns = columns_of(seed, rate, spans, [first], per_batch)
    (batch,) = stamp(flat.template(spans), columns)
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
    wanted = Quota(rate).count(np.array([first]), np.array([per_batch])).tolist()
    broken = np.array([violations_of(span) for span in found]).sum(axis=0)
    assert broken.tolist() == wanted


def test_each_kind_breaks_its_rule_alone():
    """Each kind of violation breaks the rule of its own name and no other."""
    columns = columns_of(1, Fraction(1), 3, [0], 3)
    (batch,) = stamp(flat.template(3), columns)
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
    template = flat.template(2)
    batch = stamp(template, columns_of(seed, Fraction(1, 10), 2, [first], 5))
    again = stamp(template, columns_of(seed, Fraction(1, 10), 2, [first], 5))
    other = stamp(template, columns_of(seed + 1, Fraction(1, 10), 2, [first], 5))
    assert batch == again
    ids = {s.trace_id for s in spans_of(batch[0])}
    assert not ids & {s.trace_id for s in spans_of(other[0])}


@given(RATES, st.integers(0, 10**12), st.integers(1, 5000))
def test_quota_is_exact(rate, first, traces):
    """Any run of traces holds the share of violations to within one, from the start exactly its
    floor, and the kinds take turns."""
    quota = Quota(rate)
    counted = quota.count(np.array([first]), np.array([traces]))
    kinds = quota.kinds(np.array([first]), traces)
    assert counted.tolist() == [int((kinds == kind).sum()) for kind in (1, 2, 3)]
    assert abs(int(counted.sum()) - rate * traces) <= 1
    whole = quota.count(np.array([0]), np.array([first + traces]))
    assert int(whole.sum()) == rate * (first + traces) // 1
    assert max(whole) - min(whole) <= 1


def test_ids_are_unique_over_a_million_spans():
    """IDs do not repeat, whatever batches and workers the traces are dealt to."""
    source = ColumnSource(3, Fraction(0), flat.timeline(4))
    columns = source.make(np.arange(0, 250_000, 1000), 1000, np.full(250, ENDED))
    high, low, spans = columns.arrays[:3]
    assert len(np.unique(spans)) == 1_000_000
    assert len(np.unique(low)) == len(np.unique(high)) == 250_000
    assert spans.all() and low.all() and high.all()


FRAME = ((0x0A, b""),)


@pytest.mark.parametrize(
    ("frames", "strides", "variants"),
    [
        (FRAME, (8,), ((b"12345678", ((1, 8, 0, 0),)),)),
        (FRAME, (8,), ((b"12345678", ((2**32 - 1, 8, 0, 0),)),)),
        (FRAME, (8,), ((b"12345678", ((0, 8, 1, 0),)),)),
        (FRAME, (8,), ((b"12345678", ((0, 8, 0, 1),)),)),
        (FRAME, (8,), ((b"12345678", ((0, 4, 0, 5),)),)),
        (FRAME, (0,), ((b"12345678", ()),)),
        (FRAME, (8,), ()),
        (FRAME * 5, (8,), ((b"", ()),)),
        (((0x80, b""),), (8,), ((b"", ()),)),
    ],
)
def test_template_refuses_slots_that_do_not_fit(frames, strides, variants):
    """A slot outside its variant or its column never reaches the kernel."""
    with pytest.raises(ValueError, match=r"\S"):
        _native.Template(frames, strides, variants)


@pytest.mark.parametrize(
    ("columns", "variants", "counts", "out"),
    [
        ((bytes(8),), b"\0\0", [2], 100),  # a row short
        ((bytes(16),), b"\0\1", [2], 100),  # no such variant
        ((bytes(16),), b"\0\0", [1], 100),  # counts that do not add up
        ((bytes(16),), b"\0\0", [3], 100),
        ((bytes(16),), b"\0\0", [-1, 3], 100),
        ((bytes(16), bytes(16)), b"\0\0", [2], 100),  # a column too many
        ((bytes(16),), b"\0\0", [2], 17),  # too little room
    ],
)
def test_stamp_refuses_what_does_not_fit(columns, variants, counts, out):
    """Columns, variants, counts and room are checked before a byte is written."""
    template = _native.Template(FRAME, (8,), ((b"12345678", ((0, 8, 0, 0),)),))
    room, offsets = bytearray(out), np.zeros(len(counts) + 1, np.int64)
    with pytest.raises(ValueError, match=r"\S"):
        template.stamp_into(columns, variants, np.array(counts), room, offsets)


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
