"""Topology: the services of a workload, their operations, and which call which.

A workload file says, with everything but ``entry``, ``services`` and ``operations`` optional::

    description = "A shop"
    shapes = 32                         # different traces that are drawn before errors are placed
    trace_state = "vendor=1"            # of every span

    [entry]                             # where traces begin, by weight
    "GET /cart" = 3
    "POST /checkout" = 1

    [violations]                        # where they are placed; default: where the trace begins
    slow = "query cart"                 # also: error, missing_auth

    [resource]                          # attributes of every service's resource
    deployment.environment.name = "load-test"

    [sources.user]                      # numbers to be written into attributes
    distinct = 100_000
    zipf = 1.1                          # number r is drawn as often as (r + 1)^-1.1; default: alike
    per_trace = true                    # one number a trace; default: one a span

    [services.frontend]
    scope = "opentelemetry.instrumentation.flask"
    resource = { service.version = "2.1.0" }

    [operations."GET /cart"]
    service = "frontend"
    name = "GET /cart"                  # default: the operation's own
    kind = "server"                     # internal (default), client, producer, consumer
    duration = { lognormal = "3ms", sigma = 0.5 }   # its own time, beside that of what it calls
                                        # constant = "1ms"; uniform = ["1ms", "2ms"];
                                        # normal = "3ms", deviation = "1ms"; exponential = "3ms"
    error = 0.01                        # share of its spans with status ERROR
    size = 600                          # bytes to which its spans are padded with text
    attributes = { http.route = "/cart", user.id = "user-${user}", client.address = "10.1${ip:2}" }
    exception = { type = "IOError", message = "no answer", stacktrace = "..." }  # of its errors
    events = [{ name = "cache miss", at = 0.2, attributes = { cache.key = "cart" } }]
    links = ["publish order"]           # to an earlier span of that operation in the same trace
    caller = { name = "GET", kind = "client", duration = { constant = "400us" }, attributes = {} }
                                        # a span around it in the service that calls it
    calls = [
        { to = "query cart" },          # one after another
        { to = "recommend", mode = "parallel", chance = 0.5 },  # beside its parallel neighbours
        { to = "log visit", mode = "async", repeat = [1, 3] },  # may outlive its caller
        { to = { "cache hit" = 9, "cache miss" = 1 } },         # one of them, by weight
    ]

``${name}`` is all the digits of a source's number, ``${name:2}`` the first, or next, two of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blaster.errors import UsageError
from blaster.payload.duration import MAX_NS, Duration
from blaster.payload.shape import MAX_SPANS, Source
from blaster.payload.violations import KINDS
from blaster.scenario.toml_file import Float, Table, document, nearest, whole
from blaster.units import parse_duration, quoted

SPAN_KINDS = ("internal", "server", "client", "producer", "consumer")
MODES = ("sequence", "parallel", "async")
MAX_DISTINCT = 10_000_000
MAX_SPAN_BYTES = 65_536

Value = str | bool | int | float | list[str]
Attributes = Mapping[str, Value]

REFERENCE = re.compile(r"\$\{(\w+)(?::([0-9]{1,2}))?\}")


@dataclass(frozen=True, slots=True)
class Caller:
    """The span around an operation, in the service that calls it."""

    name: str
    kind: str
    duration: Duration
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Call:
    """What an operation calls: one of ``to`` by weight, with ``chance``, ``repeat`` times."""

    to: Mapping[str, float]
    mode: str
    chance: float
    repeat: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Event:
    """An event ``at`` this share of its span's time."""

    name: str
    at: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Operation:
    """What a span says. ``exception``: attributes of the event that its errors have."""

    service: str
    name: str
    kind: str
    duration: Duration
    error: float
    size: int
    attributes: Attributes
    exception: Attributes
    events: tuple[Event, ...]
    links: tuple[str, ...]
    caller: Caller | None
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """Who the spans are of: the attributes of its resource, and its instrumentation's scope."""

    scope: str
    resource: Attributes


@dataclass(frozen=True, slots=True)
class Topology:
    """A workload file, checked."""

    description: str
    shapes: int
    trace_state: str
    entry: Mapping[str, float]
    violations: Mapping[str, str]
    sources: Mapping[str, Source] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    operations: Mapping[str, Operation] = field(default_factory=dict)


def parse(text: str, file: str) -> Topology:
    """The topology that TOML ``text`` says; ``file`` names it in errors.

    UsageError in one line: the file, the key, its value and what would be right.
    """
    top = document(text, file)
    description = top.text("description", "")
    shapes = top.number("shapes", whole(1, 256), 32)
    trace_state = top.text("trace_state", "")
    entry = _weights(top, "entry")
    violations = top.table("violations")
    placed = {kind: violations.text(kind, "") for kind in KINDS}
    violations.end()
    common = _attributes(top, "resource")
    sources = {name: _source(name, t) for name, t in _each(top, "sources")}
    services = {name: _service(name, t, common) for name, t in _each(top, "services")}
    operations = {name: _operation(name, t) for name, t in _each(top, "operations")}
    top.end()
    if not entry or not operations:
        missing = "operations" if entry else "entry"
        raise UsageError(f"{top.file}: {missing} is missing")
    topology = Topology(
        description,
        shapes,
        trace_state,
        entry,
        {kind: name for kind, name in placed.items() if name},
        sources,
        services,
        operations,
    )
    _check_names(top.file, topology)
    return topology


def _check_names(file: str, topology: Topology) -> None:
    """Refuses a name of an operation, service or source that the file does not have."""

    def known(place: str, name: str, what: str, names: Mapping[str, Any]) -> None:
        if name not in names:
            raise UsageError(
                f"{file}: {place} = {quoted(name)}: no such {what}{nearest(name, names)}"
            )

    operations = topology.operations
    for name in topology.entry:
        known("entry", name, "operation", operations)
    for kind, name in topology.violations.items():
        known(f"violations.{kind}", name, "operation", operations)
    for key, operation in operations.items():
        place = f"operations.{key}"
        known(f"{place}.service", operation.service, "service", topology.services)
        for link in operation.links:
            known(f"{place}.links", link, "operation", operations)
        for call in operation.calls:
            for name in call.to:
                known(f"{place}.calls", name, "operation", operations)
        caller = operation.caller.attributes if operation.caller else {}
        for value in (*operation.attributes.values(), *caller.values()):
            for source, _ in REFERENCE.findall(value) if isinstance(value, str) else ():
                known(f"{place}.attributes", source, "source", topology.sources)


def _source(name: str, table: Table) -> Source:
    source = Source(
        name,
        table.number("distinct", whole(1, MAX_DISTINCT), 0),
        table.number("zipf", _real(0, 10), 0.0),
        table.flag("per_trace"),
    )
    table.end()
    if not source.distinct:
        raise UsageError(f"{table.file}: {table.path}distinct is missing")
    return source


def _service(name: str, table: Table, common: Attributes) -> Service:
    own = _attributes(table, "resource")
    service = Service(table.text("scope", "blaster"), {"service.name": name, **common, **own})
    table.end()
    return service


def _operation(name: str, table: Table) -> Operation:
    operation = Operation(
        service=table.text("service", ""),
        name=table.text("name", name),
        kind=table.choice("kind", SPAN_KINDS, "internal") or "",
        duration=_duration(table, Duration("constant", 1e6)),
        error=table.number("error", _real(0, 1), 0.0),
        size=table.number("size", whole(1, MAX_SPAN_BYTES), 0),
        attributes=_attributes(table, "attributes"),
        exception=_exception(table),
        events=tuple(_event(t) for t in _list(table, "events")),
        links=tuple(_texts(table, "links")),
        caller=_caller(table),
        calls=tuple(_call(t) for t in _list(table, "calls")),
    )
    table.end()
    return operation


def _exception(table: Table) -> Attributes:
    inner = table.table("exception")
    found = {
        f"exception.{key}": _multiline(inner, key) for key in ("type", "message", "stacktrace")
    }
    inner.end()
    return {key: value for key, value in found.items() if value}


def _event(table: Table) -> Event:
    event = Event(
        table.text("name", "event"),
        table.number("at", _real(0, 1), 0.0),
        _attributes(table, "attributes"),
    )
    table.end()
    return event


def _caller(table: Table) -> Caller | None:
    inner = table.table("caller")
    if "caller" not in table.values:
        return None
    caller = Caller(
        inner.text("name", "call"),
        inner.choice("kind", SPAN_KINDS, "client") or "",
        _duration(inner, Duration("constant", 2e5)),
        _attributes(inner, "attributes"),
    )
    inner.end()
    return caller


def _call(table: Table) -> Call:
    if isinstance(table.values.get("to"), str):
        to: Mapping[str, float] = {table.text("to", ""): 1.0}
    else:
        to = _weights(table, "to")
    call = Call(
        to,
        table.choice("mode", MODES, "sequence") or "",
        table.number("chance", _real(0, 1), 1.0),
        _repeat(table),
    )
    table.end()
    if not to:
        raise UsageError(f"{table.file}: {table.path}to is missing")
    return call


def _repeat(table: Table) -> tuple[int, int]:
    table.known.append("repeat")
    value = table.values.get("repeat", 1)
    ends = value if isinstance(value, list) and len(value) == 2 else [value, value]
    if not all(type(end) is int and 0 <= end <= MAX_SPANS for end in ends) or ends[0] > ends[1]:
        table.refuse("repeat", f"must be a number from 0 to {MAX_SPANS:,}, or two: [1, 3]")
    return ends[0], ends[1]


def _duration(table: Table, default: Duration) -> Duration:
    inner = table.table("duration")
    if "duration" not in table.values:
        return default
    kinds = ("constant", "uniform", "normal", "lognormal", "exponential")
    given = [kind for kind in kinds if kind in inner.values]
    inner.known.extend(kinds)
    if len(given) > 1 or not given:
        inner.known.extend(("deviation", "sigma"))
        inner.end()
        raise UsageError(f"{inner.file}: {inner.path[:-1]}: must have one of {', '.join(kinds)}")
    kind = given[0]
    first = second = 0.0
    if kind == "uniform":
        ends = inner.values[kind]
        if not isinstance(ends, list) or len(ends) != 2:
            inner.refuse(kind, 'must be two durations: ["1ms", "2ms"]')
        pair = Table(inner.file, inner.path, {"from": ends[0], "to": ends[1]})
        first, second = (pair.number(key, _nanoseconds, 0.0) for key in ("from", "to"))
        if first > second:
            inner.refuse(kind, "must be two durations, the shorter first")
    else:
        first = inner.number(kind, _nanoseconds, 0.0)
    if kind == "normal":
        second = inner.number("deviation", _nanoseconds, 0.0)
    if kind == "lognormal":
        second = inner.number("sigma", _real(0, 5), 0.5)
    inner.end()
    return Duration(kind, first, second)  # type: ignore[arg-type]


def _nanoseconds(text: str) -> float:
    nanoseconds = parse_duration(text)
    if not 0 < nanoseconds <= MAX_NS:
        raise ValueError("must be above 0 and at most 1h")
    return float(nanoseconds)


def _real(least: float, most: float) -> Callable[[str], float]:
    def parse_real(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not least <= number <= most:
            raise ValueError(f"must be a number from {least} to {most}")
        return number

    return parse_real


def _weights(table: Table, key: str) -> dict[str, float]:
    inner = table.table(key)
    weights = {name: inner.number(name, _real(0, 1e6), 0.0) for name in inner.values}
    if inner.values and not sum(weights.values()):
        table.refuse(key, "must have a weight above 0")
    return weights


def _each(table: Table, key: str) -> list[tuple[str, Table]]:
    inner = table.table(key)
    return [(name, inner.table(name)) for name in inner.values]


def _list(table: Table, key: str) -> list[Table]:
    table.known.append(key)
    values = table.values.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        table.refuse(key, "must be tables in an array")
    return [Table(table.file, f"{table.path}{key}[{i}].", v) for i, v in enumerate(values)]


def _texts(table: Table, key: str) -> list[str]:
    table.known.append(key)
    values = table.values.get(key, [])
    if not isinstance(values, list) or not all(type(value) is str for value in values):
        table.refuse(key, "must be texts in an array")
    return list(values)


def _multiline(table: Table, key: str) -> str:
    table.known.append(key)
    value = table.values.get(key, "")
    if type(value) is not str:
        table.refuse(key, "must be text")
    return value


def _attributes(table: Table, key: str) -> dict[str, Value]:
    """Attributes by their keys; ``http.route`` may be written without quotes, as nested tables."""
    inner = table.table(key)
    found: dict[str, Value] = {}

    def add(prefix: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            elif isinstance(value, Float):
                found[prefix + name] = float(value)
            elif type(value) in (str, bool, int) or (
                isinstance(value, list) and all(type(v) is str for v in value)
            ):
                found[prefix + name] = value
            else:
                place = f"{inner.path}{prefix}{name}"
                raise UsageError(f"{inner.file}: {place}: must be text, a number, or texts")

    add("", inner.values)
    return found
