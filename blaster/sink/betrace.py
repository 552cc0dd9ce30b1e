"""A stand-in for BeTrace: rules, the violations that the sink's own scan finds, and its ingest.

What it does of BeTrace's: an ID is the rule's name; a rule whose creation failed leaves its name
taken; a list of violations is cut at 100 unless a limit is given, and its totalCount is its length.
What it does not: of the expressions it understands only those of the three load-test rules, in both
dialects. Any other that looks like one of a dialect is taken and never matches.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from blaster._native import Scanner
from blaster.errors import UsageError
from blaster.sink.counts import SinkCounts
from blaster.sink.ingest import Refused, request_of
from blaster.sink.kept import Keeper, Kept, take_all
from blaster.units import quoted

QUIRKS = {
    "snake": "keys in snake_case instead of camelCase",
    "twice": "every violation is recorded twice",
    "old-dialect": "only span.duration > 500 and its like are understood",
    "new-dialect": "only when { … } and its like are understood",
    "never-ready": "its health is always 503",
    "no-metrics": "no betrace_ metrics",
}

DEFAULT_LIMIT = 100
MOST_RULES = 1000
MOST_KEPT = 1 << 20
"""Violations remembered: the oldest go first."""
POLL_S = 0.02
"""How often what was kept is taken over while rules are active: 65,536 fit in between."""

OLD = {
    "span.duration>500": 0,
    'span.status=="error"': 1,
    'span.attributes["http.route"]andnotspan.attributes["auth.token"]': 2,
}
NEW = {
    'when{api.request}never{api.request.where("duration_ms">500)}': 0,
    'when{api.request}never{api.request.where("http.status_code"==500)}': 1,
    'when{api.request.where("http.route"contains"/")}'
    'always{api.request.where("auth.token"!="")}': 2,
}
"""Which of RULES an expression is, by its text without blanks."""

_NEW = re.compile(r"when\s*\{.+\}\s*(always|never)\s*\{.+\}", re.DOTALL)
_OLD = re.compile(r"(not\s+)?span\.\w+.*", re.DOTALL)


@dataclass(slots=True)
class Rule:
    """A rule; ``number``: which of the sink's RULES it is, None where it never matches."""

    name: str
    description: str
    expression: str
    enabled: bool
    severity: str
    tags: list[str]
    number: int | None
    created_ns: int = field(default_factory=time.time_ns)
    spans_before: int = 0
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """One span that broke one rule, as it is told to whoever wants to pass it on."""

    id: str
    rule: Rule
    trace_id: bytes
    span_id: bytes
    found_ns: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Violations of one rule that were found together."""

    rule: Rule
    kept: Kept
    first: int  # the number of the first, from which the IDs follow
    found_ns: int


Answer = tuple[int, dict[str, Any]]


def check_quirks(option: str, quirks: Iterable[str]) -> None:
    """UsageError for a quirk that there is not."""
    for quirk in quirks:
        if quirk not in QUIRKS:
            raise UsageError(f"{option} {quoted(quirk)}: must be {', '.join(QUIRKS)}")


class Betrace:
    """The stand-in's state and its answers. Any thread may call it.

    ``keepers``: what scans; ``counts`` of all of them; ``on_violations`` is given those just found.
    """

    def __init__(
        self,
        keepers: Sequence[Keeper],
        counts: Callable[[], SinkCounts],
        quirks: Iterable[str] = (),
        on_violations: Callable[[list[Violation]], None] | None = None,
    ) -> None:
        self._own = Scanner()  # of what comes by POST /v1/spans
        self._keepers = [*keepers, self._own]
        self._receivers_counts = counts
        self._quirks = frozenset(quirks)
        self._on_violations = on_violations
        self._rules: dict[str, Rule | None] = {}  # None: a failed creation has taken the name
        self._found: list[_Found] = []
        self._recorded = self._missed = self._forgotten = 0
        self._namespace = uuid.uuid4()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="betrace", daemon=True)

    def start(self) -> None:
        """Begins to take over what is kept."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after a last look."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def counts(self) -> SinkCounts:
        """What was counted of all that came, by OTLP and by BeTrace's own ingest."""
        return self._receivers_counts() + SinkCounts.from_scan(self._own.counts())

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            self._take()
        self._take()

    def _take(self) -> None:
        """Takes over what the keepers kept."""
        with self._lock:
            self._missed = 0
            found: list[_Found] = []
            for keeper in self._keepers:
                kept, missed = take_all(keeper)
                self._missed += missed
                if len(kept):
                    found += self._judge(kept)
            self._found += found
            while self._found and self._recorded - self._forgotten > MOST_KEPT:
                self._forgotten += len(self._found.pop(0).kept)
        if found and self._on_violations is not None:
            self._on_violations([v for item in found for v in self._violations(item)])

    def _judge(self, kept: Kept) -> list[_Found]:
        """By rule, the violations among these spans, each counted and numbered."""
        found, now = [], time.time_ns()
        for rule in self._active():
            assert rule.number is not None
            broken = kept[(kept["rules"] >> np.uint64(rule.number) & np.uint64(1)).astype(bool)]
            if not len(broken):
                continue
            rule.hits += len(broken)
            if "twice" in self._quirks:
                broken = np.repeat(broken, 2)
            found.append(_Found(rule, broken, self._recorded, now))
            self._recorded += len(broken)
        return found

    def _violations(self, found: _Found) -> list[Violation]:
        return [
            Violation(
                self._id(found.first + i),
                found.rule,
                record["trace_id"].tobytes(),
                record["span_id"].tobytes(),
                found.found_ns,
            )
            for i, record in enumerate(found.kept)
        ]

    def _id(self, number: int) -> str:
        return str(uuid.uuid5(self._namespace, str(number)))

    def _active(self) -> list[Rule]:
        return [r for r in self._rules.values() if r and r.enabled and r.number is not None]

    def _watch(self) -> None:
        """Tells the keepers which rules are of interest now."""
        mask = 0
        for rule in self._active():
            mask |= 1 << (rule.number or 0)
        for keeper in self._keepers:
            keeper.watch(mask)

    # ---- the API ----

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer | None:
        """Status and JSON body; None where the path is none of BeTrace's.

        ``body``: what was read of the request's JSON, None without one.
        """
        if path in ("/v1/health", "/health"):
            ready = "never-ready" not in self._quirks
            return (200, {"status": "healthy"}) if ready else (503, {"status": "starting"})
        if path == "/v1/rules":
            return self._list_rules() if method == "GET" else self._create(body)
        if path.startswith("/v1/rules/"):
            return self._one_rule(method, path.removeprefix("/v1/rules/"))
        if path == "/v1/violations" and method == "GET":
            return self._list_violations(query)
        if path == "/v1/spans" and method == "POST":
            return self._ingest(body)
        return None

    def _keys(self, value: Any) -> Any:
        """The same with its keys in the style that is in force."""
        if isinstance(value, list):
            return [self._keys(item) for item in value]
        if not isinstance(value, dict) or "snake" not in self._quirks:
            return value
        return {
            re.sub("[A-Z]", lambda c: "_" + c[0].lower(), key): self._keys(item)
            for key, item in value.items()
        }

    def _list_rules(self) -> Answer:
        with self._lock:
            rules = [_shown(rule) for rule in self._rules.values() if rule is not None]
        return 200, self._keys({"rules": rules, "totalCount": len(rules)})

    def _one_rule(self, method: str, name: str) -> Answer:
        with self._lock:
            if name not in self._rules or (method == "GET" and self._rules[name] is None):
                return _error(404, 5, f"rule not found: {name}")
            rule = self._rules[name]
            if method == "DELETE":
                self._take()  # what came before belongs to the rule
                del self._rules[name]
                self._watch()
                return 200, {"success": True}
            assert rule is not None
            return 200, self._keys(_shown(rule))

    def _create(self, body: Any) -> Answer:
        try:
            rule = _rule_of(body)
        except ValueError as error:
            return _error(400, 3, f"rule validation failed: {error}")
        with self._lock:
            if rule.name in self._rules:
                return _error(409, 6, f"rule already exists: {rule.name}")
            if len(self._rules) >= MOST_RULES:
                return _error(429, 8, f"rule limit exceeded: {MOST_RULES}")
            try:
                rule.number = self._parse(rule.expression)
            except ValueError as error:
                self._rules[rule.name] = None
                return _error(400, 3, f"failed to compile rule: {error}")
            rule.spans_before = self.counts().spans
            self._rules[rule.name] = rule
            self._watch()
            return 200, self._keys(_shown(rule))

    def _parse(self, expression: str) -> int | None:
        """Which of RULES it is, or None. ValueError where it is of no dialect in force."""
        text = "".join(expression.split())
        old, new = "new-dialect" not in self._quirks, "old-dialect" not in self._quirks
        if new and _NEW.fullmatch(expression.strip()):
            return NEW.get(text)
        if old and _OLD.fullmatch(expression.strip()):
            return OLD.get(text)
        raise ValueError(f"unexpected token at the beginning of {quoted(expression)}")

    def _list_violations(self, query: dict[str, str]) -> Answer:
        try:
            limit = int(query.get("limit") or 0)
            since, until = (_time_of(query.get(key)) for key in ("start_time", "end_time"))
        except ValueError as error:
            return _error(400, 3, str(error))
        if limit <= 0:
            limit = DEFAULT_LIMIT
        wanted = query.get("rule_id") or query.get("ruleId")
        trace = query.get("trace_id") or query.get("traceId")
        listed: list[dict[str, Any]] = []
        self._take()
        with self._lock:
            for found in reversed(self._found):
                if wanted is not None and found.rule.name != wanted:
                    continue
                if since is not None and found.found_ns < since:
                    continue
                if until is not None and found.found_ns > until:
                    continue
                for i in range(len(found.kept)):
                    if len(listed) >= limit:
                        break
                    shown = self._shown(found, i)
                    if trace is None or shown["traceId"] == trace:
                        listed.append(shown)
        return 200, self._keys({"violations": listed, "totalCount": len(listed)})

    def _shown(self, found: _Found, index: int) -> dict[str, Any]:
        record, rule = found.kept[index], found.rule
        trace, span = record["trace_id"].tobytes().hex(), record["span_id"].tobytes().hex()
        return {
            "id": self._id(found.first + index),
            "ruleId": rule.name,
            "ruleName": rule.name,
            "traceId": trace,
            "spanId": span,
            "timestamp": _rfc3339(found.found_ns),
            "severity": rule.severity,
            "message": f"Rule '{rule.name}' matched span '{span}' in trace '{trace}'",
            "context": {},
        }

    def _ingest(self, body: Any) -> Answer:
        try:
            data, spans = request_of(body)
        except Refused as error:
            return _error(error.status, 3, str(error))
        if self._own.request(data) != spans:
            return _error(400, 3, "the spans are malformed")
        return 200, {"accepted": spans, "rejected": 0, "errors": []}

    def metrics(self) -> list[str]:
        """Lines of Prometheus' text format; none with the quirk no-metrics."""
        if "no-metrics" in self._quirks:
            return []
        self._take()
        spans = self.counts().spans
        with self._lock:
            rules = [rule for rule in self._rules.values() if rule is not None]
            lines = [
                "# TYPE betrace_rule_engine_spans_processed_total counter",
                f"betrace_rule_engine_spans_processed_total {spans}",
                "# TYPE betrace_spans_ingested_total counter",
                f"betrace_spans_ingested_total {spans}",
                "# TYPE betrace_rules_active gauge",
                f"betrace_rules_active {len([rule for rule in rules if rule.enabled])}",
                "# TYPE betrace_violations_total counter",
                f"betrace_violations_total {self._recorded}",
                "# TYPE betrace_violations_missed_total counter",
                f"betrace_violations_missed_total {self._missed + self._forgotten}",
                "# TYPE betrace_rule_evaluation_total counter",
            ]
            for rule in rules:
                label = re.sub(r'(["\\])', r"\\\1", rule.name).replace("\n", r"\n")
                misses = max(0, spans - rule.spans_before - rule.hits) if rule.enabled else 0
                for result, count in (("hit", rule.hits), ("miss", misses)):
                    labels = f'rule_id="{label}",result="{result}"'
                    lines.append(f"betrace_rule_evaluation_total{{{labels}}} {count}")
        return lines


def _rule_of(body: Any) -> Rule:
    """The rule of a request's body; ValueError for what it lacks."""
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    name, expression = body.get("name"), body.get("expression")
    if not isinstance(name, str) or not 0 < len(name) <= 256 or "/" in name:
        raise ValueError("name: must be text of 1 to 256 characters without /")
    if not isinstance(expression, str) or not 0 < len(expression) <= 65536:
        raise ValueError("expression: must be text of 1 to 65,536 characters")
    tags = body.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("tags: must be a list of texts")
    return Rule(
        name=name,
        description=str(body.get("description") or "")[:4096],
        expression=expression,
        enabled=body.get("enabled") is True,
        severity=str(body.get("severity") or "MEDIUM")[:32],
        tags=tags,
        number=None,
    )


def _shown(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.name,
        "name": rule.name,
        "description": rule.description,
        "expression": rule.expression,
        "enabled": rule.enabled,
        "severity": rule.severity,
        "tags": rule.tags,
        "createdAt": _rfc3339(rule.created_ns),
        "updatedAt": _rfc3339(rule.created_ns),
    }


def _error(status: int, code: int, message: str) -> Answer:
    """As grpc-gateway says an error."""
    return status, {"code": code, "message": message, "details": []}


def _rfc3339(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _time_of(text: str | None) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 text or a number of seconds; ValueError else."""
    if not text:
        return None
    try:
        return int(float(text) * 1e9) if len(text) < 32 else _raise(text)
    except (ValueError, OverflowError):
        pass
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except (ValueError, OverflowError):
        raise ValueError(f"{quoted(text)}: must be RFC 3339 or seconds since 1970") from None


def _raise(text: str) -> int:
    raise ValueError(text)
