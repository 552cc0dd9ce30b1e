"""Jaeger v2: traces by ID, and the services that it knows.

API: /api/v3 (jaeger-idl, query_service.proto), over HTTP as JSON. Its own counters are those of a
Collector, usually at port 8888: ``--verify collector=`` reads them.
"""

from __future__ import annotations

from blaster.backends.client import Client, RequestFailed
from blaster.backends.findings import Flow, FunnelStage, Sent, Verification
from blaster.backends.otlp import spans_in
from blaster.backends.readback import read_back
from blaster.backends.waiting import Wait
from blaster.payload.span import Span

READY_S = 20.0


class Jaeger:
    """The Backend for Jaeger."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ready = False
        self.verification = Verification("jaeger", client.base.url)

    def prepare(self, wait: Wait) -> None:
        ready_wait = Wait(min(READY_S, wait.limit_s), wait.stopped)
        try:
            ready_wait.until(lambda: len(self._services()) + 1, 1)
            self._ready = True
        except RequestFailed as error:
            self.verification.problems.append(f"not ready: {error}")

    def close(self) -> None:
        """Nothing to undo."""

    def _services(self) -> list[str]:
        answer = self._client.get_json("/api/v3/services")
        services = answer.get("services") if isinstance(answer, dict) else None
        return [str(service) for service in services] if isinstance(services, list) else []

    def verify(self, sent: Sent, flow: Flow, wait: Wait) -> None:
        if not self._ready:
            flow.stages.append(FunnelStage("found in Jaeger", None, None, "not ready"))
            return
        stage = read_back("Jaeger", self._fetch, sent, wait, self.verification)
        if stage is None:
            return
        flow.stages.append(stage)
        if stage.lost:
            stage.reason += self._missing_services(sent)

    def _missing_services(self, sent: Sent) -> str:
        try:
            missing = sorted(set(sent.services) - set(self._services()))
        except RequestFailed:
            return ""
        return f"; it knows no service {', '.join(missing)}" if missing else ""

    def _fetch(self, trace_id: bytes) -> list[Span]:
        try:
            return spans_in(self._client.get_json(f"/api/v3/traces/{trace_id.hex()}"))
        except RequestFailed as error:
            if error.status == 404:
                return []
            raise
