"""Tempo: spans that its distributor received and discarded, spans stored, and traces by ID.

API: grafana.com/docs/tempo/latest/api_docs. IDs within a trace are base64; /api/search strips the
leading zeros of a trace ID and does not cover the last half minute or so; counts over time need
the metrics-generator's local blocks, or the answer is an error that says so.
"""

from __future__ import annotations

from typing import Any

from blaster.backends.client import Client, RequestFailed
from blaster.backends.findings import Flow, FunnelStage, Sent, Verification
from blaster.backends.metrics import Growth, counters, read
from blaster.backends.otlp import id_of, spans_in
from blaster.backends.readback import read_back
from blaster.backends.waiting import Wait
from blaster.otlp.rules import RULES
from blaster.payload.span import Span

READY_S = 20.0
RECEIVED = "tempo_distributor_spans_received_total"
DISCARDED = "tempo_discarded_spans_total"
COUNTERS = (RECEIVED, DISCARDED)


class Tempo:
    """The Backend for Tempo."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._growth = Growth(lambda: read(client))
        self._ready = self._metrics = False
        self.verification = Verification("tempo", client.base.url)

    def prepare(self, wait: Wait) -> None:
        ready_wait = Wait(min(READY_S, wait.limit_s), wait.stopped)
        try:
            ready_wait.until(self._look_ready, 1)
            self._ready = True
        except RequestFailed as error:
            self.verification.problems.append(f"not ready: {error}")
            return
        try:
            self._growth.begin()
            self._metrics = True
        except RequestFailed as error:
            self.verification.notes.append(f"its counters are not available: {error}")

    def _look_ready(self) -> int:
        self._client.get("/ready")
        return 1

    def close(self) -> None:
        """Nothing to undo."""

    def verify(self, sent: Sent, flow: Flow, wait: Wait) -> None:
        if not self._ready:
            flow.stages.append(FunnelStage("stored in Tempo", None, None, "not ready"))
            return
        lost = ""
        try:
            if self._metrics:
                lost = self._received(flow, wait)
            self._stored(sent, flow, wait, lost)
        except RequestFailed as error:
            self.verification.problems.append(str(error))
        stage = read_back("Tempo", self._fetch, sent, wait, self.verification)
        if stage is not None:
            flow.stages.append(stage)

    def _received(self, flow: Flow, wait: Wait) -> str:
        """Add the stage of its distributor; return the spans that it discarded, by reason."""
        if self._growth.look().total(RECEIVED) is not None:
            seen = wait.until(lambda: int(self._growth.look().total(RECEIVED) or 0), flow.low)
            flow.stage("received by Tempo", seen.count, "its distributor received no more")
        grown = self._growth.look()
        self.verification.counters = counters(grown, COUNTERS)
        discarded = {r: int(n) for r, n in grown.by_label(DISCARDED, "reason").items() if n}
        return ", ".join(f"{n:,} discarded: {reason}" for reason, n in discarded.items())

    def _stored(self, sent: Sent, flow: Flow, wait: Wait, lost: str) -> None:
        """Add the exact count of stored spans, if Tempo can give it."""
        try:
            seen = wait.until(lambda: self._count(sent), flow.low)
        except RequestFailed as error:
            # Without local blocks the answer is an error; that is not a fault.
            self.verification.notes.append(f"no counts of what is stored: {error}")
            if lost:
                flow.stages.append(FunnelStage("stored in Tempo", None, None, lost))
                self.verification.problems.append(lost)
            return
        self.verification.time_to_visible_s = round(seen.after_s, 3)
        flow.stage("stored in Tempo", min(seen.count, max(flow.high, flow.low)), lost)

    def _count(self, sent: Sent) -> int:
        return sum(
            self._count_over_time(f'{{resource.service.name="{service}"}}', sent)
            for service in sent.services
        )

    def _count_over_time(self, spans: str, sent: Sent) -> int:
        query = {"q": f"{spans} | count_over_time()", **_window(sent)}
        answer = self._client.get_json("/api/metrics/query", query)
        series = answer.get("series") if isinstance(answer, dict) else None
        values = [s.get("value", 0) for s in series or () if isinstance(s, dict)]
        return int(sum(value for value in values if isinstance(value, int | float)))

    def _fetch(self, trace_id: bytes) -> list[Span]:
        """By version 2 of the API, or by version 1 where there is no other."""
        for path in ("/api/v2/traces/", "/api/traces/"):
            try:
                return spans_in(self._client.get_json(path + trace_id.hex()))
            except RequestFailed as error:
                if error.status != 404:  # also the answer for a trace that is not found
                    raise
        return []

    def verify_violations(self, sent: Sent, flow: Flow, wait: Wait) -> None:
        """Add a stage: the violations that BeTrace found and exported to Tempo as spans."""
        if sent.violating is None or not self._ready:
            return
        found: dict[str, set[bytes]] = {}
        expected = sum(sent.violations.values())
        stage = FunnelStage("violations in Tempo", None, None, "", "violations", expected)

        def look() -> int:
            for rule in RULES:
                if len(found.get(rule, ())) < max(1, sent.violations[rule]):
                    found[rule] = self._violations(rule, sent)
            return sum(map(len, found.values()))

        try:
            stage.spans = wait.until(look, expected).count
            stage.lost = expected - stage.spans
            if stage.lost:
                stage.reason = self._why_no_violations(stage.spans)
        except RequestFailed as error:
            stage.reason = str(error)
            self.verification.problems.append(str(error))
        flow.stages.append(stage)

    def _violations(self, rule: str, sent: Sent) -> set[bytes]:
        assert sent.violating is not None
        wanted = sent.violating[rule]
        query = {
            "q": f'{{ span.betrace.violation.rule_id = "{rule}" }}',
            "limit": max(20, 2 * len(wanted)),
            **_window(sent),
        }
        answer = self._client.get_json("/api/search", query)
        traces = answer.get("traces") if isinstance(answer, dict) else None
        ids = (_trace_id(item) for item in traces or () if isinstance(item, dict))
        return {trace_id for trace_id in ids if trace_id is not None} & wanted

    def _why_no_violations(self, found: int) -> str:
        try:
            self._look_ready()
        except RequestFailed:
            return "Tempo is not ready"
        if found:
            return "its search does not cover the last half minute: wait longer (--verify-limit)"
        return (
            "none at all: BeTrace's exporter endpoint is another one, or Tempo's retention is "
            "shorter than the run, or its search does not show them yet"
        )


def _trace_id(item: dict[str, Any]) -> bytes | None:
    """The trace ID of a search result, which has no leading zeros."""
    value = item.get("traceID", item.get("traceId"))
    return id_of(value.rjust(32, "0"), 16) if isinstance(value, str) else None


def _window(sent: Sent) -> dict[str, int]:
    """The time window of queries: with room for slow spans, which start earlier, and for clocks."""
    return {"start": int(sent.started_s) - 60, "end": int(sent.ended_s) + 120}
