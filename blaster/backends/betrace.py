"""BeTrace: creates the rules, lists the violations after the run, and deletes the rules again.

Its API has quirks: an ID is a rule's name; a failed creation may leave the name taken; a list is
cut at 100 unless a limit is given, and its totalCount may be its own length; time windows may be
ignored; the same violation may be recorded twice. So each rule is queried with an explicit limit,
which grows until the list is shorter, and distinct traces are counted.
"""

from __future__ import annotations

import contextlib
from typing import Any

from blaster.backends.client import Client, RequestFailed, excerpt
from blaster.backends.findings import Flow, FunnelStage, Sent, Verification
from blaster.backends.metrics import Growth, counters, read
from blaster.backends.otlp import id_of
from blaster.backends.waiting import Wait
from blaster.otlp.rules import ERRORS, MISSING_AUTH, RULES, SLOW

DEFAULT_PORT = 12011
HEALTH = ("/v1/health", "/health")
READY_S = 10.0
TRIES = 3

NEWER, OLDER = "newer", "older"
EXPRESSIONS = {
    NEWER: {
        SLOW: 'when { api.request } never { api.request.where("duration_ms" > 500) }',
        ERRORS: 'when { api.request } never { api.request.where("http.status_code" == 500) }',
        MISSING_AUTH: 'when { api.request.where("http.route" contains "/") } '
        'always { api.request.where("auth.token" != "") }',
    },
    OLDER: {
        SLOW: "span.duration > 500",
        ERRORS: 'span.status == "error"',
        MISSING_AUTH: 'span.attributes["http.route"] and not span.attributes["auth.token"]',
    },
}
DESCRIPTIONS = {
    SLOW: "Requests slower than 500 ms",
    ERRORS: "Requests that end in an error",
    MISSING_AUTH: "Requests to a route without an auth token",
}

MIN_LIMIT, MAX_LIMIT = 1000, 1 << 20

INGESTED = ("betrace_spans_ingested_total", "betrace_rule_engine_spans_processed_total")
COUNTERS = (*INGESTED, "betrace_rule_evaluation_total", "betrace_violations_total")
"""The counters that are reported; any may be absent."""


class Betrace:
    """The Backend for BeTrace. ``detected``: the violating traces found, by rule, once verified."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._made: list[str] = []
        self._growth = Growth(lambda: read(client))
        self._metrics = False
        self.detected: dict[str, int] | None = None
        self.verification = Verification("betrace", client.base.url)

    def prepare(self, wait: Wait) -> None:
        try:
            self._await_ready(wait)
            with contextlib.suppress(RequestFailed):  # any of its metrics may be absent
                self._growth.begin()
                self._metrics = True
            self._make_rules()
        except RequestFailed as error:
            self.verification.problems.append(str(error))

    def _await_ready(self, wait: Wait) -> None:
        """Wait until a health path answers 200. RequestFailed if none does in time."""

        def ready() -> int:
            for path in HEALTH:
                with contextlib.suppress(RequestFailed):
                    self._client.get(path)
                    return 1
            return 0

        ready_wait = Wait(min(READY_S, wait.limit_s), wait.stopped)
        if not ready_wait.until(ready, 1).count:
            raise RequestFailed(
                f"{self._client.base.url} is not ready: neither {HEALTH[0]} nor {HEALTH[1]} "
                f"answered 200 within {ready_wait.limit_s:g} s"
            )

    # ---- rules ----

    def _make_rules(self) -> None:
        """Make all rules in the newer dialect, else in the older. RequestFailed if neither goes."""
        refusal = ""
        for dialect in (NEWER, OLDER):
            try:
                for name in RULES:
                    self._make_rule(name, EXPRESSIONS[dialect][name])
            except RequestFailed as error:
                refusal = str(error)
                self._remove_rules()
                if error.status != 400:  # the expression was not the reason
                    break
            else:
                self.verification.dialect = dialect
                self._check_rules()
                return
        raise RequestFailed(f"the rules could not be made: {refusal}")

    def _make_rule(self, name: str, expression: str) -> None:
        rule = {
            "name": name,
            "description": DESCRIPTIONS[name],
            "expression": expression,
            "enabled": True,
            "severity": "HIGH",
            "tags": ["load-test"],
        }
        self._made.append(name)  # before the request: removed even if its answer is lost
        for _ in range(2):
            status, body = self._client.request("POST", "/v1/rules", body=rule)
            if status in (200, 201):
                return
            if status != 409:
                break
            # Left over from a run that was killed, or from a creation that failed.
            self._client.request("DELETE", f"/v1/rules/{name}")
        raise RequestFailed(f"POST /v1/rules {name}: {status} {excerpt(body)}", status)

    def _check_rules(self) -> None:
        listed = self._list_rules()
        problem = rules_problem(listed)
        self.verification.rules = sorted(listed)
        if problem:
            self.verification.problems.append(problem)

    def _list_rules(self) -> dict[str, bool]:
        """The rules by name, and whether they are enabled."""
        answer = self._client.get_json("/v1/rules")
        rules = answer.get("rules") if isinstance(answer, dict) else answer
        if not isinstance(rules, list):
            raise RequestFailed(f"GET {self._client.base.url}/v1/rules: no list of rules")
        return {
            str(rule.get("name") or rule.get("id")): rule.get("enabled") is not False
            for rule in rules
            if isinstance(rule, dict)
        }

    def _remove_rules(self) -> list[str]:
        """Delete the rules that were made; return the names of those that could not be."""
        remaining = []
        for name in dict.fromkeys(self._made):
            for _ in range(TRIES):
                try:
                    status, _ = self._client.request("DELETE", f"/v1/rules/{name}")
                except RequestFailed:
                    continue
                if status < 300 or status == 404:
                    break
            else:
                remaining.append(name)
        self._made.clear()
        return remaining

    def close(self) -> None:
        remaining = self._remove_rules()
        if remaining:
            names = ", ".join(remaining)
            self.verification.problems.append(f"these rules could not be removed: {names}")

    # ---- violations found ----

    def verify(self, sent: Sent, flow: Flow, wait: Wait) -> None:
        stage = FunnelStage("detected by BeTrace", None, None, "", "violations")
        stage.expected = sum(sent.violations.values())
        try:
            if self._metrics:
                self._count_ingested(flow, wait)
            if self.verification.dialect is not None:
                self._count_detected(sent, stage, wait)
                stage.reason = self._diagnose(sent, flow, stage)
        except RequestFailed as error:
            self.verification.problems.append(str(error))
            stage.reason = str(error)
        if stage.spans is None and not stage.reason:
            stage.reason = "there were no rules"
        with contextlib.suppress(RequestFailed):
            if self._metrics:
                self.verification.counters = counters(self._growth.look(), COUNTERS)
        flow.stages.append(stage)

    def _count_ingested(self, flow: Flow, wait: Wait) -> None:
        """Wait until its counter has seen all spans; without a counter there is no such stage."""
        if self._ingested() is None:
            return
        seen = wait.until(lambda: self._ingested() or 0, flow.low)
        flow.stage("ingested by BeTrace", seen.count, "no span beyond these came to its ingest")

    def _ingested(self) -> int | None:
        """The growth of its counter of spans; None if it has none."""
        grown = self._growth.look()
        totals = (grown.total(name) for name in INGESTED)
        return next((int(total) for total in totals if total is not None), None)

    def _count_detected(self, sent: Sent, stage: FunnelStage, wait: Wait) -> None:
        found: dict[str, set[bytes]] = {}

        def detected() -> int:
            for rule in RULES:
                # A rule whose violations are all found is not queried again.
                if len(found.get(rule, ())) < max(sent.violations[rule], 1):
                    found[rule] = self._of_run(rule, sent)
            return sum(map(len, found.values()))

        seen = wait.until(detected, stage.expected or 0)
        self.detected = {rule: len(traces) for rule, traces in found.items()}
        self.verification.time_to_visible_s = round(seen.after_s, 3)
        stage.spans = seen.count
        stage.lost = max(0, (stage.expected or 0) - seen.count)

    def _of_run(self, rule: str, sent: Sent) -> set[bytes]:
        """The traces that BeTrace reports for the rule, of those that break it in this run."""
        traces = self._traces(rule, sent)
        if sent.violating is None:
            return traces
        others = len(traces - sent.violating[rule])
        if others:
            note = f"{rule}: {others:,} traces are reported that do not violate it in this run"
            notes = [n for n in self.verification.notes if not n.startswith(f"{rule}: ")]
            self.verification.notes = [*notes, note]
        return traces & sent.violating[rule]

    def _traces(self, rule: str, sent: Sent) -> set[bytes]:
        limit = max(MIN_LIMIT, 3 * sent.violations[rule])
        while True:
            query = {
                "rule_id": rule,
                # Clocks differ; other runs are told apart by their trace IDs.
                "start_time": _rfc3339(sent.started_s - 60),
                "end_time": _rfc3339(sent.ended_s + 3600),
                "limit": limit,
            }
            answer = self._ask_violations(query, sent)
            listed = answer.get("violations") if isinstance(answer, dict) else answer
            if listed is None:
                listed = []  # protobuf's JSON omits empty lists
            if not isinstance(listed, list):
                raise RequestFailed(
                    f"GET {self._client.base.url}/v1/violations: no list of violations"
                )
            if len(listed) < limit or limit >= MAX_LIMIT:
                return _trace_ids(listed)
            limit = min(4 * limit, MAX_LIMIT)

    def _ask_violations(self, query: dict[str, Any], sent: Sent) -> Any:
        try:
            return self._client.get_json("/v1/violations", query)
        except RequestFailed as error:
            if error.status != 400:
                raise
        seconds = {
            "start_time": int(sent.started_s - 60),
            "end_time": int(sent.ended_s + 3600),
        }
        return self._client.get_json("/v1/violations", {**query, **seconds})

    # ---- why violations are missing ----

    def _diagnose(self, sent: Sent, flow: Flow, stage: FunnelStage) -> str:
        """The reason that violations are missing, by BeTrace's own figures; "" if none are."""
        if not stage.lost:
            return ""
        if problem := rules_problem(self._list_rules()):
            return problem
        if not flow.forwarded:
            return "the collector forwards nothing"
        if few := self._too_few(flow):
            return few
        if unmatched := self._unmatched(sent):
            dialect = self.verification.dialect
            hint = "" if dialect == OLDER else "; it wants spans named api.request"
            return f"expression unmatched in the {dialect} dialect: {', '.join(unmatched)}{hint}"
        return f"not reported within the time waited ({self.verification.time_to_visible_s} s)"

    def _too_few(self, flow: Flow) -> str:
        """The reason "too few spans", by its counter of spans; "" if it has none or saw enough."""
        ingested = self._ingested() if self._metrics else None
        if ingested is None or ingested >= flow.low:
            return ""
        if ingested == 0:
            return "nothing ingested: are the spans forwarded to BeTrace?"
        return f"only {ingested:,} of {flow.low:,} spans ingested"

    def _unmatched(self, sent: Sent) -> list[str]:
        """The rules with violations sent and none at all found."""
        assert self.detected is not None
        return [rule for rule in RULES if sent.violations[rule] and not self.detected[rule]]


def rules_problem(rules: dict[str, bool]) -> str:
    """The problem with the rules that BeTrace lists; "" if there is none."""
    missing = [name for name in RULES if name not in rules]
    disabled = [name for name in RULES if rules.get(name) is False]
    if missing:
        return f"no rules: {', '.join(missing)} not among the {len(rules)} that are listed"
    return f"rules disabled: {', '.join(disabled)}" if disabled else ""


def _trace_ids(listed: list[Any]) -> set[bytes]:
    """The distinct trace IDs in a list of violations, keys in camelCase or snake_case."""
    found = set()
    for item in listed:
        if not isinstance(item, dict):
            continue
        value = item.get("traceId", item.get("trace_id"))
        if value is None:
            several = item.get("traceIds", item.get("trace_ids"))
            value = several[0] if isinstance(several, list) and several else None
        trace_id = id_of(value, 16)
        if trace_id is not None:
            found.add(trace_id)
    return found


def _rfc3339(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
