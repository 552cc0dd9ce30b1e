"""Shapes drawn from a Topology: which branches are taken, who fails, how long each span takes.

Choices are dealt from shuffled decks of even steps instead of thrown as dice, so that a few dozen
traces already hold the shares that were asked for. Errors are placed last: of every operation's
spans in a whole cycle of traces as many fail as its error probability says, to the span. Durations
likewise are the quantiles at even steps, shuffled among an operation's spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from blaster.payload.duration import Duration
from blaster.payload.shape import (
    MAX_SPANS,
    TRACE_PLACEHOLDER,
    Digits,
    Int64,
    Shape,
    placeholder_id,
)
from blaster.payload.topology import REFERENCE, Attributes, Call, Operation, Topology, Value
from blaster.payload.violations import KINDS, fail

CELLS = 1024
"""The traces in a cycle, each with timings of its own."""

MAX_DEPTH = 300

_PADDING_KEY = "blaster.padding"
_SAMPLED, _HAS_REMOTE, _REMOTE = 0x1, 0x100, 0x200

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]


@dataclass(eq=False)
class _Node:
    """A span: ``operation`` itself, or (``calling``) the span around it in the calling service."""

    key: str
    operation: Operation
    calling: bool
    service: str
    parent: _Node | None
    calls: list[tuple[str, _Node]] = field(default_factory=list)
    detached: bool = False
    failed: bool = False
    index: int = 0


def draw(topology: Topology, seed: int) -> list[Shape]:
    """The shapes of a topology; the same seed draws the same. ValueError where a trace would be
    too large."""
    decks = _Decks(seed, topology.shapes)
    bases = _merged([_tree(topology, decks) for _ in range(topology.shapes)])
    trees = _with_errors(topology, [(root, CELLS * n // topology.shapes) for root, n in bases])
    pools = _pools([(node, weight) for root, weight in trees for node in _walk(root)], decks)
    return [_shape(topology, n, *tree, pools) for n, tree in enumerate(trees)]


class _Decks:
    """Shares from 0 to 1, dealt by name from shuffled decks of so many even steps."""

    def __init__(self, seed: int, size: int) -> None:
        self._seed = seed
        self._size = size
        self._dealt: dict[str, int] = {}

    def share(self, name: str) -> float:
        """The next share of this name's deck."""
        dealt = self._dealt.get(name, 0)
        self._dealt[name] = dealt + 1
        round_, at = divmod(dealt, self._size)
        return float((self.shuffled(self._size, f"{name}:{round_}")[at] + 0.5) / self._size)

    def shuffled(self, count: int, name: str) -> Int64:
        """0 to count - 1 in an order of the name's own."""
        words = _mixed(np.arange(count, dtype=np.uint64), f"{self._seed}:{name}")
        return np.argsort(words, kind="stable")


def _mixed(numbers: Words, name: str) -> Words:
    """A word for each number that is the number's and the name's own, by SplitMix64's steps."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    words = numbers + np.uint64(int.from_bytes(digest, "little"))
    for shift, odd in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        words = (words ^ words >> np.uint64(shift)) * np.uint64(odd)
    return words


def _tree(topology: Topology, decks: _Decks) -> _Node:
    """A trace without errors."""
    spans = 0

    def operation(key: str, caller: _Node | None, place: str, depth: int) -> _Node:
        nonlocal spans
        chosen = topology.operations[key]
        around = None
        if chosen.caller is not None and caller is not None:
            around = _Node(key, chosen, True, caller.service, caller)
            spans += 1
        node = _Node(key, chosen, False, chosen.service, around or caller)
        spans += 1
        if spans > MAX_SPANS or depth > MAX_DEPTH:
            raise ValueError(
                f"a trace would have more than {MAX_SPANS:,} spans, or {MAX_DEPTH} calls deep: "
                f"{place} calls on"
            )
        for number, call in enumerate(chosen.calls):
            name = f"{key}/{number}"
            for _ in range(_times(call, name, decks)):
                to = _weighted(call.to, decks, f"{name}/to")
                child = operation(to, node, key, depth + 1)
                child.detached = call.mode == "async"
                node.calls.append((call.mode, child))
        if around is None:
            return node
        around.calls.append(("sequence", node))
        return around

    return operation(_weighted(topology.entry, decks, "entry"), None, "entry", 0)


def _times(call: Call, name: str, decks: _Decks) -> int:
    if call.chance < 1 and decks.share(f"{name}/chance") >= call.chance:
        return 0
    least, most = call.repeat
    if least == most:
        return least
    return least + int(decks.share(f"{name}/repeat") * (most - least + 1))


def _weighted(weights: Mapping[str, float], decks: _Decks, name: str) -> str:
    keys = list(weights)
    if len(keys) == 1:
        return keys[0]
    below = np.cumsum([weights[key] for key in keys])
    at = np.searchsorted(below, decks.share(name) * below[-1], side="right")
    return keys[min(int(at), len(keys) - 1)]


def _walk(root: _Node) -> Iterator[_Node]:
    """All spans of a tree, parents first."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(child for _, child in reversed(node.calls))


def _merged(roots: list[_Node]) -> list[tuple[_Node, int]]:
    """The different trees, and how often each was drawn."""
    found: dict[tuple[object, ...], list[_Node]] = {}
    for root in roots:
        described = tuple((n.key, n.calling, n.detached, len(n.calls)) for n in _walk(root))
        found.setdefault(described, []).append(root)
    return [(same[0], len(same)) for same in found.values()]


def _with_errors(topology: Topology, bases: list[tuple[_Node, int]]) -> list[tuple[_Node, int]]:
    """The trees with some of each one's weight given to copies in which a span failed."""
    left = [weight for _, weight in bases]
    left[0] += CELLS - sum(left)
    totals = left.copy()
    failing: list[tuple[_Node, int]] = []
    for key, operation in topology.operations.items():
        places = [
            [i for i, n in enumerate(_walk(root)) if n.key == key and not n.calling]
            for root, _ in bases
        ]
        wanted = round(
            operation.error * sum(len(p) * w for p, w in zip(places, totals, strict=True))
        )
        while wanted > 0:
            having = [index for index in range(len(bases)) if places[index] and left[index] > 0]
            if not having:
                break
            base = max(having, key=lambda index: left[index])
            # Several spans of one trace fail where there are more errors than traces left.
            spans = min(len(places[base]), -(-wanted // sum(left[index] for index in having)))
            weight = max(1, min(wanted // spans, (left[base] + 1) // 2))
            failing.append((_failed(bases[base][0], places[base][:spans]), weight))
            left[base] -= weight
            wanted -= weight * spans
    kept = [(root, weight) for (root, _), weight in zip(bases, left, strict=True) if weight]
    return kept + failing


def _failed(root: _Node, places: list[int]) -> _Node:
    """A copy of the tree in which these spans, and those of their calls, failed."""

    def copy(node: _Node, parent: _Node | None) -> _Node:
        made = _Node(node.key, node.operation, node.calling, node.service, parent)
        made.detached = node.detached
        made.calls = [(mode, copy(child, made)) for mode, child in node.calls]
        return made

    made = copy(root, None)
    nodes = list(_walk(made))
    for place in places:
        nodes[place].failed = True
        around = nodes[place].parent
        if around is not None and around.calling:
            around.failed = True
    return made


def _duration_of(node: _Node) -> Duration:
    caller = node.operation.caller
    return caller.duration if node.calling and caller is not None else node.operation.duration


def _pools(nodes: list[tuple[_Node, int]], decks: _Decks) -> dict[tuple[str, bool], list[Floats]]:
    """For every operation, and the calls of it, the durations of its spans in turn: one array, of
    as many timings as the tree has, for each node."""
    weights: dict[tuple[str, bool], list[int]] = {}
    durations: dict[tuple[str, bool], Duration] = {}
    for node, weight in nodes:
        weights.setdefault((node.key, node.calling), []).append(weight)
        durations[node.key, node.calling] = _duration_of(node)
    pools = {}
    for name, counts in weights.items():
        total = sum(counts)
        shares = (decks.shuffled(total, f"duration:{name}") + 0.5) / total
        values = durations[name].quantiles(shares)
        pools[name] = np.split(values, np.cumsum(counts)[:-1])
        pools[name].reverse()  # taken from the end
    return pools


def _shape(
    topology: Topology,
    number: int,
    root: _Node,
    weight: int,
    pools: dict[tuple[str, bool], list[Floats]],
) -> Shape:
    walked = list(_walk(root))
    taken = {id(node): pools[node.key, node.calling].pop() for node in walked}
    # Spans stand by service, in the order in which the trace first comes to each.
    services = list(dict.fromkeys(node.service for node in walked))
    nodes = [node for service in services for node in walked if node.service == service]
    for index, node in enumerate(nodes):
        node.index = index
    starts = np.zeros((weight, len(nodes)))
    ends = np.zeros((weight, len(nodes)))
    _place(root, np.zeros(weight), taken, starts, ends)
    whole_starts, whole_ends = starts.astype(np.int64), ends.astype(np.int64)

    request = ExportTraceServiceRequest()
    digits: list[Digits] = []
    events: list[Int64] = []
    last: dict[str, int] = {}
    for node in walked:
        if not node.calling:
            last.setdefault(node.key, node.index)
    for service in services:
        scope = ScopeSpans()
        scope.scope.name = topology.services[service].scope
        for node in nodes:
            if node.service != service:
                continue
            span = _span(topology, number, node, last, digits)
            scope.spans.append(span)
            begin, end = whole_starts[:, node.index], whole_ends[:, node.index]
            for event in span.events:
                share = event.time_unix_nano - 1
                events.append(begin + (end - begin) * share // 1_000_000)
        resource = ResourceSpans(scope_spans=[scope])
        resource.resource.attributes.extend(_attributes(topology.services[service].resource))
        request.resource_spans.append(resource)
    return Shape(
        request=request,
        weight=weight,
        starts=whole_starts,
        ends=whole_ends,
        events=np.array(events, np.int64).reshape(len(events), weight).T,
        digits=tuple(digits),
        places=_places(topology, root, last),
        detached=frozenset(node.index for node in nodes if node.detached),
    )


def _places(
    topology: Topology, root: _Node, first: Mapping[str, int]
) -> tuple[int | None, int | None, int | None]:
    slow, error, missing = (
        first.get(topology.violations[kind]) if kind in topology.violations else root.index
        for kind in KINDS
    )
    return slow, error, missing


def _place(
    node: _Node, start: Floats, taken: Mapping[int, Floats], starts: Floats, ends: Floats
) -> Floats:
    """Lays a span and those below it out from ``start`` on; returns when it ends.

    Its own time is spread evenly before, between and after its calls; parallel calls that stand
    side by side begin together.
    """
    steps: list[list[tuple[str, _Node]]] = []
    for mode, child in node.calls:
        if mode == "parallel" and steps and steps[-1][-1][0] == "parallel":
            steps[-1].append((mode, child))
        else:
            steps.append([(mode, child)])
    gap = taken[id(node)] / (len(steps) + 1)
    now = start + gap
    for step in steps:
        done = [_place(child, now, taken, starts, ends) for _, child in step]
        # What is asynchronous is not waited for.
        waited = [end for end, (mode, _) in zip(done, step, strict=True) if mode != "async"]
        now = np.maximum.reduce([now, *waited]) + gap
    starts[:, node.index], ends[:, node.index] = start, now
    return now


def _span(
    topology: Topology,
    shape: int,
    node: _Node,
    first: Mapping[str, int],
    digits: list[Digits],
) -> Span:
    operation = node.operation
    caller = operation.caller if node.calling else None
    kind = caller.kind if caller else operation.kind
    span = Span(
        trace_id=TRACE_PLACEHOLDER,
        span_id=placeholder_id(node.index),
        trace_state=topology.trace_state,
        flags=_SAMPLED | _HAS_REMOTE,
        name=caller.name if caller else operation.name,
        kind=Span.SpanKind.Value(f"SPAN_KIND_{kind.upper()}"),
        start_time_unix_nano=1,
        end_time_unix_nano=1,
    )
    if node.parent is not None:
        span.parent_span_id = placeholder_id(node.parent.index)
        if node.parent.service != node.service:
            span.flags |= _REMOTE
    attributes = caller.attributes if caller else operation.attributes
    for key, value in attributes.items():
        filled, found = _filled(topology, node.index, key, value)
        digits.extend(found)
        span.attributes.append(_attribute(key, filled))
    if not node.calling:
        for event in operation.events:
            _event(span, event.name, event.at, event.attributes)
        for link in operation.links:
            if link in first:
                span.links.add(trace_id=TRACE_PLACEHOLDER, span_id=placeholder_id(first[link]))
        if operation.size:
            _pad(span, operation.size, f"{node.key}/{shape}/{node.index}")
    if node.failed:
        _raise(span, {} if node.calling else operation.exception)
    return span


def _raise(span: Span, exception: Attributes) -> None:
    """Makes a span one that ended in an error, with its exception where it has one."""
    fail(span)
    if not exception:
        return
    _event(span, "exception", 1.0, exception)
    error_type = exception.get("exception.type")
    for attribute in span.attributes:
        if attribute.key == "error.type" and isinstance(error_type, str):
            attribute.value.string_value = error_type


def _event(span: Span, name: str, at: float, attributes: Attributes) -> None:
    # Its time is the placeholder that _shape reads: millionths of the span's, from 1 on.
    event = span.events.add(name=name, time_unix_nano=1 + round(at * 1_000_000))
    event.attributes.extend(_attributes(attributes))


def _filled(topology: Topology, span: int, key: str, text: Value) -> tuple[Value, list[Digits]]:
    """The text with zeros in the place of its sources' digits, and these places."""
    if not isinstance(text, str):
        return text, []
    filled, found, at = "", [], 0
    used: dict[str, int] = {}
    for match in REFERENCE.finditer(text):
        source = topology.sources[match[1]]
        digits = len(str(source.distinct - 1))
        left = digits - used.get(source.name, 0)
        width = min(int(match[2]), left) if match[2] else left
        used[source.name] = digits - left + width
        filled += text[at : match.start()]
        if width:
            found.append(Digits(span, key, len(filled.encode()), width, left - width, source))
        filled += "0" * width
        at = match.end()
    return filled + text[at:], found


def _pad(span: Span, size: int, name: str) -> None:
    """Pads a span to so many bytes of its message with words: an attribute with its key and
    lengths takes some ten bytes more than its text."""
    missing = size - span.ByteSize() - len(_PADDING_KEY) - 10
    if missing <= 0:
        return
    span.attributes.append(_attribute(_PADDING_KEY, _prose(missing, name)))
    # Lengths of lengths made it some bytes too long or too short.
    text = _prose(missing + size - span.ByteSize(), name)
    span.attributes[-1].value.string_value = text


_STEMS = str.split(
    "the request was handled by a worker after it had waited in queue for cache lookup and then "
    "database returned rows with order customer payment shipped item price total from warehouse "
    "retry timeout connection pool size limit status accepted pending region session token value "
    "user account updated batch index partition offset consumer group latency because checked no"
)
_WORDS = _STEMS + [stem + end for end in ("s", "ing", "er", "ly", "-id", "ed") for stem in _STEMS]


def _prose(length: int, name: str) -> str:
    """Text of so many letters that is the name's own, in words as common as those of a language:
    some seven bits a word are new, so that it compresses as prose does."""
    numbers = np.arange(length // 2 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    share = _mixed(numbers, name).astype(np.float64) / 2.0**64
    ranks = (len(_WORDS) ** share - 1).astype(np.int64)  # Zipf's law, nearly
    return " ".join(_WORDS[rank] for rank in ranks.tolist())[:length]


def _attributes(values: Attributes) -> list[KeyValue]:
    return [_attribute(key, value) for key, value in values.items()]


def _attribute(key: str, value: Value) -> KeyValue:
    return KeyValue(key=key, value=_any(value))


def _any(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    texts = AnyValue()
    texts.array_value.values.extend(AnyValue(string_value=text) for text in value)
    return texts
