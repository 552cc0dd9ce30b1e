"""Workloads: what the built-in ones and workload files are, decoded and counted."""

import hashlib
import importlib
import pkgutil
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.stamping import made, stamp

from blaster.engine.plan import Plan
from blaster.errors import UsageError
from blaster.otlp.rules import violations_of
from blaster.payload import drawing, topology, workload
from blaster.payload.columns import Columns, ColumnSource
from blaster.payload.duration import Duration
from blaster.payload.interleaving import Interleaving
from blaster.payload.mix import Mix
from blaster.payload.shape import Source, spans_of
from blaster.payload.template import LAYOUTS
from blaster.scenario.scenario import Scenario, Workload, parse_stages
from tests.support import kernel_twin as twin

pytestmark = pytest.mark.native

NAMES = st.sampled_from(workload.NAMES)
FILES = workload.NAMES[1:]
ENDED = 1_800_000_000_000_000_000


@cache
def mix_of(name: str, layout: str | None = None, rate: Fraction = Fraction(1, 10)) -> Mix:
    return workload.mix(Workload(name=name, layout=layout, violation_rate=rate), 1)


def columns_of(mix: Mix, first: int, traces: int, part: int) -> Columns:
    one = np.ones(1, np.int64)
    return ColumnSource(7, mix).make(one * first, one * traces, one * ENDED, parts=np.array([part]))


def stamped(mix: Mix, first: int, traces: int) -> list[bytes]:
    """The requests of all parts of these traces."""
    return [
        stamp(mix.template, c)[0]
        for c in (columns_of(mix, first, traces, part) for part in range(mix.parts))
    ]


def decoded(batch: bytes) -> list[tuple[str, Span]]:
    """Every span with its service."""
    return [
        (resource.resource.attributes[0].value.string_value, span)
        for resource in ExportTraceServiceRequest.FromString(batch).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@settings(max_examples=min(60, settings.default.max_examples))
@given(NAMES, st.sampled_from(LAYOUTS), st.integers(0, 2**40), st.integers(0, 9), st.data())
def test_kernel_equals_twin(name, layout, first, traces, data):
    """The kernel stamps every workload in every layout as its Python twin does."""
    mix = mix_of(name, layout)
    part = data.draw(st.integers(0, mix.parts - 1))
    columns = columns_of(mix, first, traces, part)
    native = stamp(mix.template, columns)
    assert native == twin.stamp(mix.template, columns)
    assert len(native[0]) <= mix.batch_bytes(traces)
    one = np.ones(1, np.int64)
    rows = (one * first, one * traces, one * ENDED, one * part)
    assert made(ColumnSource(7, mix), mix.template, *rows) == (native, columns.spans.tolist())


@settings(max_examples=min(60, settings.default.max_examples))
@given(NAMES, st.sampled_from(LAYOUTS), st.integers(0, 2**40), st.integers(1, 16))
def test_counts_are_exact(name, layout, first, traces):
    """The spans and violations of each rule in any traces follow from their numbers."""
    mix = mix_of(name, layout)
    for part, batch in enumerate(stamped(mix, first, traces)):
        spans = [span for _, span in decoded(batch)]
        broken = np.array([violations_of(s) for s in spans]).reshape(-1, 3).sum(axis=0).tolist()
        counted = mix.count(np.array([first]), np.array([traces]), np.array([part]))
        assert counted[0].tolist() == [len(spans), *broken]


@settings(max_examples=min(40, settings.default.max_examples))
@given(NAMES, st.sampled_from(LAYOUTS), st.integers(0, 2**40))
def test_traces_are_honest(name, layout, first):
    """Every trace has one root; its IDs are valid and its own, its parents exist, its children lie
    within their parents' time save where asynchronous, its links lead to its own spans, and its
    events lie within their spans."""
    mix = mix_of(name, layout)
    found = [both for batch in stamped(mix, first, 5) for both in decoded(batch)]
    by_id = {span.span_id: (service, span) for service, span in found}
    assert len(by_id) == len(found)
    traces = defaultdict(list)
    for _, span in found:
        assert len(span.span_id) == 8 and any(span.span_id)
        assert len(span.trace_id) == 16 and any(span.trace_id[:8]) and any(span.trace_id[8:])
        traces[span.trace_id].append(span)
    assert len(traces) == 5
    detached = any(shape.detached for shape in mix.shapes)
    for spans in traces.values():
        ids = {span.span_id for span in spans}
        assert sum(not span.parent_span_id for span in spans) == 1
        assert max(span.end_time_unix_nano for span in spans) == ENDED
        for span in spans:
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            for event in span.events:
                within = span.start_time_unix_nano <= event.time_unix_nano
                assert within and event.time_unix_nano <= span.end_time_unix_nano
            for link in span.links:
                assert link.trace_id == span.trace_id and link.span_id in ids - {span.span_id}
            if not span.parent_span_id:
                continue
            assert span.parent_span_id in ids
            parent = by_id[span.parent_span_id][1]
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            outlives = span.end_time_unix_nano > parent.end_time_unix_nano
            assert not outlives or (detached and span.name in ("DEL", "process orders"))


@pytest.mark.parametrize("name", FILES)
def test_services_and_kinds_fit_together(name):
    """A span in another service than its parent is a server's below a client's, a consumer's below
    a producer's, or a client's of a service without spans; each name has one service."""
    known = {o.service for o in workload.load(name).operations.values()}
    for batch in stamped(mix_of(name, "gateway"), 0, 50):
        found = decoded(batch)
        by_id = {span.span_id: (service, span) for service, span in found}
        assert {service for service, _ in found} <= known
        for service, span in found:
            assert span.trace_state or name != "web-shop"
            if not span.parent_span_id:
                assert span.kind == Span.SPAN_KIND_SERVER and span.flags == 0x101
                continue
            other, parent = by_id[span.parent_span_id]
            assert span.flags == (0x101 if service == other else 0x301)
            if span.kind == Span.SPAN_KIND_CONSUMER:
                assert parent.kind == Span.SPAN_KIND_PRODUCER and span.links


def conventions() -> set[str]:
    """Every attribute name that opentelemetry-semantic-conventions knows."""
    names = set()
    for part in ("attributes", "_incubating.attributes"):
        package = importlib.import_module(f"opentelemetry.semconv.{part}")
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            names |= {value for value in vars(module).values() if isinstance(value, str)}
    return names


OWN = {"auth.token", "http.status_code", "blaster.padding"}
"""Names that are no convention: those that the rules ask for, and the padding."""


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_follow_the_conventions(name):
    """Every attribute of a span, an event and a resource is a semantic convention, or begins with
    app., or is one of the few that the rules need."""
    keys = set()
    for shape in workload.shapes_of(Workload(name=name), 1):
        for resource in shape.request.resource_spans:
            keys |= {a.key for a in resource.resource.attributes}
        for span in spans_of(shape.request):
            keys |= {a.key for a in span.attributes}
            keys |= {a.key for event in span.events for a in event.attributes}
    unknown = {key for key in keys - OWN - conventions() if not key.startswith("app.")}
    assert not unknown


def test_web_shop_has_twenty_to_sixty_spans_of_eight_services():
    """web-shop has 20 to 60 spans a trace, of eight services and all kinds of span."""
    shapes = workload.shapes_of(Workload(name="web-shop"), 3)
    assert all(20 <= shape.spans <= 60 for shape in shapes)
    services = {
        r.resource.attributes[0].value.string_value
        for shape in shapes
        for r in shape.request.resource_spans
    }
    assert len(services) == 8
    assert {span.kind for shape in shapes for span in spans_of(shape.request)} == {1, 2, 3, 4, 5}


FINGERPRINTS = {
    "flat": "2257d28968e681220fe782f9cc279b25f5721801be579caa4e80212aa8688e3a",
    "web-shop": "930a4bad4716426e403f4e3bd553c7fb5eed600604827034a276e549d9c183a2",
    "deep": "3093445ae12ec56420acc6700e92685cd931dc275bcd2222e7ced74951d0490e",
    "wide": "71d6d2b9ebfd5b47bcd7f26d6963a7289e042d141d3d612d56ad076a47991b84",
    "llm-agent": "d4d20fc677b4ac0c0311317e80f017c0ddd5124ecac4ac73b25010a97160d41a",
}
"""SHA-256 of 200 traces of each built-in, seed 1, in the layout that it has by default. A change of
one means that old and new runs of the same seed do not compare: change it only in a commit that
changes what is sent on purpose and says so, with the value that this test prints."""


@pytest.mark.parametrize("name", workload.NAMES)
def test_fingerprints(name):
    """The same seed gives the same bytes, today and on any machine."""
    batches = b"".join(stamped(mix_of(name), 0, 200))
    assert hashlib.sha256(batches).hexdigest() == FINGERPRINTS[name], name


@pytest.mark.parametrize("name", FILES)
def test_other_seeds_draw_other_traces(name):
    """A seed draws the same shapes again, and another seed other times."""
    first, again, other = (drawing.draw(workload.load(name), seed) for seed in (1, 1, 2))
    assert [s.request for s in first] == [s.request for s in again]
    assert all((a.starts == b.starts).all() for a, b in zip(first, again, strict=True))
    assert any(
        a.starts.shape != b.starts.shape or (a.starts != b.starts).any()
        for a, b in zip(first, other, strict=False)
    )


SHOP = """
[entry]
a = 1
[sources.id]
distinct = 500
[services.s]
[operations.a]
service = "s"
kind = "server"
attributes = { http.route = "/", auth.token = "x" }
calls = [
    { to = "b", repeat = 4 },
    { to = { c = 3, d = 1 } },
    { to = "late", mode = "async", chance = 0.25 },
]
[operations.b]
service = "s"
error = 0.05
duration = { lognormal = "10ms", sigma = 0.5 }
attributes = { k = "é-${id:1}-${id}-${id}" }
[operations.c]
service = "s"
duration = { exponential = "2ms" }
[operations.d]
service = "s"
size = 900
duration = { uniform = ["1ms", "3ms"] }
[operations.late]
service = "s"
duration = { constant = "90ms" }
[violations]
slow = "late"
error = "c"
"""


def shop(text: str = SHOP) -> Mix:
    return Mix(drawing.draw(topology.parse(text, "shop.toml"), 5), Fraction(1, 10))


def test_distributions_are_those_asked_for():
    """Errors are as many as asked for to the span, branches are taken as often as they weigh, and
    durations have the quantiles of their distributions, over one cycle of traces."""
    shapes = drawing.draw(topology.parse(SHOP, "shop.toml"), 5)
    assert sum(shape.weight for shape in shapes) == 1024
    taken, failed = defaultdict(list), Counter()
    for shape in shapes:
        for index, span in enumerate(spans_of(shape.request)):
            taken[span.name] += (shape.ends[:, index] - shape.starts[:, index]).tolist()
            failed[span.name] += shape.weight * (span.status.code == 2)
    assert len(taken["b"]) == 4096 and failed == {"b": 205, "a": 0, "c": 0, "d": 0, "late": 0}
    assert len(taken["c"]) == 768 and len(taken["d"]) == len(taken["late"]) == 256
    for name, duration in (
        ("b", Duration("lognormal", 10e6, 0.5)),
        ("c", Duration("exponential", 2e6)),
        ("d", Duration("uniform", 1e6, 3e6)),
    ):
        shares = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
        found = np.quantile(taken[name], shares)
        assert found == pytest.approx(duration.quantiles(shares), rel=0.08), name
    assert set(taken["late"]) == {90_000_000}


@given(
    st.sampled_from(["constant", "uniform", "normal", "lognormal", "exponential"]),
    st.floats(1e3, 1e9),
    st.lists(st.floats(0.001, 0.999), min_size=2, max_size=9),
)
def test_quantiles_rise(kind, first, shares):
    """Quantiles rise with the share, and none is below 0."""
    second = {"uniform": 2 * first, "normal": first / 2, "lognormal": 1.0}.get(kind, 0.0)
    values = Duration(kind, first, second).quantiles(np.sort(np.array(shares)))
    assert (np.diff(values) >= 0).all() and (values >= 0).all()


def test_digits_padding_and_places():
    """Digits stand where the file says, spans are padded to their size, and a violation breaks its
    rule on the operation that the file names, alone."""
    mix = shop()
    (batch,) = stamped(mix, 0, 4000)
    spans = [span for _, span in decoded(batch)]
    values = [span.attributes[0].value.string_value for span in spans if span.name == "b"]
    numbers = Counter()
    for value in values:
        letter, first, rest, again = value.split("-")
        assert (letter, len(first), len(rest), again) == ("é", 1, 2, "")
        numbers[first + rest] += 1
    assert len(numbers) == 500 and max(map(int, numbers)) == 499
    sizes = {span.ByteSize() for span in spans if span.name == "d"}
    assert sizes == {900}
    broken = [(span.name, violations_of(span)) for span in spans if any(violations_of(span))]
    kinds = Counter(broken)
    own = int(mix.own_violations(np.array([0]), np.array([4000]))[0].sum())
    assert kinds["b", (False, True, False)] == own
    assert kinds["late", (True, False, False)] == 134
    assert kinds["c", (False, True, False)] == kinds["a", (False, False, True)] == 133
    assert len(broken) == 400 + own


@pytest.mark.parametrize(("distinct", "zipf"), [(1, 0.0), (50, 0.0), (1000, 1.0), (100_000, 1.3)])
def test_drawn_numbers(distinct, zipf):
    """Numbers are drawn from as many as asked for, uniformly or by Zipf's law with its slope."""
    text = SHOP.replace("distinct = 500", f"distinct = {distinct}\nzipf = {zipf}")
    text = text.replace("é-${id:1}-${id}-${id}", "${id}")
    mix = shop(text)
    (batch,) = stamped(mix, 0, 20_000)
    drawn = Counter(
        int(s.attributes[0].value.string_value) for _, s in decoded(batch) if s.name == "b"
    )
    assert max(drawn) < distinct
    if zipf == 0:
        assert len(drawn) == distinct
        expected = 80_000 / distinct
        assert max(drawn.values()) < 1.2 * expected and min(drawn.values()) > 0.8 * expected
    else:
        ranks = np.arange(1, 21)
        counts = np.array([drawn[rank - 1] for rank in ranks])
        slope = np.polyfit(np.log(ranks), np.log(counts), 1)[0]
        assert slope == pytest.approx(-zipf, abs=0.08)


def test_a_trace_has_one_number_of_a_source_per_trace():
    """A source per trace gives one number to all spans of a trace, in every part of it."""
    mix = mix_of("web-shop", "sdk")
    users = defaultdict(set)
    for batch in stamped(mix, 0, 100):
        for _, span in decoded(batch):
            for attribute in span.attributes:
                if attribute.key == "user.id":
                    users[span.trace_id].add(attribute.value.string_value)
    assert len(users) == 100 and all(len(values) == 1 for values in users.values())
    assert len({value for values in users.values() for value in values}) > 50
    assert Source("x", 3) == Source("x", 3)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 300))
def test_a_deal_sends_every_part_once(parts, window, blocks):
    """For any window, every part of every block goes out in one request, within its window."""
    interleaving = Interleaving(parts, window, blocks)
    request = np.arange(blocks * parts)
    block, part = interleaving.block_and_part(request)
    assert sorted(zip(block.tolist(), part.tolist(), strict=True)) == [
        (b, p) for b in range(blocks) for p in range(parts)
    ]
    assert (block // window == request // (window * parts)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plan_does_not_depend_on_its_workers(layout):
    """Each number of workers sends the same requests at the same times; all parts of a trace say
    that it ended at one time, before any of them goes out."""
    scenario = Scenario(
        name="x",
        stages=parse_stages("100..4000@3s,500@2s"),
        workload=Workload(name="web-shop", layout=layout),
    )
    found = []
    for workers in (1, 3):
        plan = Plan.of(scenario, seed=1, workers=workers)
        requests = []
        for shard in map(plan.shard, range(workers)):
            k = np.arange(shard.requests)
            held = shard.of(k)
            columns = (shard.times(k), shard.ended(k), held.first, held.counts, held.parts)
            requests += zip(*(column.tolist() for column in columns), strict=True)
            assert shard.due(5 * 10**9) == shard.requests
            assert shard.spans_of(shard.requests // 2) < shard.spans_of(shard.requests)
            assert (np.diff(shard.times(k)) >= 0).all()
        found.append(sorted(requests))
        spans = sum(plan.shard(i).spans_of(plan.shard(i).requests) for i in range(workers))
        assert spans == plan.mix.spans_before(np.array([plan.traces]))[0] <= 7150
        assert plan.pacer.total - spans < 60
    assert found[0] == found[1]
    ended = defaultdict(set)
    for due, end, first, _, _ in found[0]:
        ended[first].add(end)
        assert end <= due
    assert all(len(ends) == 1 for ends in ended.values())
    if layout == "scattered":
        dues = defaultdict(list)
        for due, _, first, _, _ in found[0]:
            dues[first].append(due)
        assert np.median([max(d) - min(d) for d in dues.values()]) > 5e8


WRONG = {
    "durations = 1": "shop.toml: operations.a.durations: unknown key; known: service, name, kind, "
    "duration, error, size, attributes, exception, events, links, caller, calls; did you mean "
    "duration?",
    'duration = { gauss = "1ms" }': "shop.toml: operations.a.duration.gauss: unknown key; known: "
    "constant, uniform, normal, lognormal, exponential, deviation, sigma",
    "duration = {}": "shop.toml: operations.a.duration: must have one of constant, uniform, "
    "normal, lognormal, exponential",
    "error = 2": "shop.toml: operations.a.error = 2: must be a number from 0 to 1",
    'kind = "servr"': "shop.toml: operations.a.kind = 'servr': must be internal, server, client, "
    "producer, consumer; did you mean server?",
    'service = "t"': "shop.toml: operations.a.service = 't': no such service",
    'calls = [{ to = "aa" }]': "shop.toml: operations.a.calls = 'aa': no such operation; did you "
    "mean a?",
    'calls = [{ to = "a", mode = "fast" }]': "shop.toml: operations.a.calls[0].mode = 'fast': must "
    "be sequence, parallel, async",
    'attributes = { x = "${y}" }': "shop.toml: operations.a.attributes = 'y': no such source",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_workload_file_is_told_in_one_line(line):
    """Unknown keys, names and values are refused, with the place and what would be right."""
    service = "" if line.startswith("service") else 'service = "s"\n'
    text = f"[entry]\na = 1\n[services.s]\n[operations.a]\n{service}{line}\n"
    with pytest.raises(UsageError) as caught:
        topology.parse(text, "shop.toml")
    assert str(caught.value) == WRONG[line]
