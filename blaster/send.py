"""One span from here to wherever it can be seen: what ``blaster send`` does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from blaster.backends.findings import Sent, SentTrace
from blaster.backends.verify import Answers, Verifier, VerifySettings
from blaster.engine.signals import StopSignals
from blaster.otlp.rules import RULES, SLOW
from blaster.payload.single import SERVICE, single_span
from blaster.payload.span import decode
from blaster.transport.base import Chunk, SendCounts, Status
from blaster.transport.factory import Settings, factory
from blaster.transport.otlp_settings import OtlpSettings
from blaster.transport.probe import probe

CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class SentSpan:
    """``status``: how its request ended, with the peer's ``message``; ``answers``: what the
    backends said, where any was asked."""

    trace_id: bytes
    span_id: bytes
    endpoint: str
    status: str
    message: str
    answers: Answers | None

    @property
    def arrived(self) -> bool:
        """Whether it was accepted, and every backend that was asked shows it."""
        if self.status != Status.OK.name or self.answers is None:
            return self.status == Status.OK.name
        lost = any(stage.lost or stage.spans is None for stage in self.answers.stages)
        return not lost and not any(asked.problems for asked in self.answers.verifications)


def send(
    settings: OtlpSettings,
    verify: VerifySettings,
    signals: StopSignals,
    on_sent: Callable[[SentSpan], None],
) -> SentSpan:
    """Send the span and, where backends are named, wait until they show it. ``on_sent`` is told
    its IDs and its fate before that. Raises BlasterError for what keeps it from being sent."""
    with Verifier(verify) as verifier:
        probe(settings)
        verifier.prepare()
        trace_id, span_id, data = single_span(time.time_ns())
        status, message = _export(Settings(settings, 1, 1), data)
        url = settings.endpoint.url
        sent = SentSpan(trace_id, span_id, url, status, settings.hide(message), None)
        on_sent(sent)
        if status != Status.OK.name or not verify.targets:
            return sent
        cut: list[bool] = []
        signals.on_stop = lambda: cut.append(True)
        facts = _facts(trace_id, data)
        answers = verifier.ask(facts, time.monotonic(), lambda: bool(cut))
    return SentSpan(trace_id, span_id, url, status, message, answers)


def _export(settings: Settings, data: bytes) -> tuple[str, str]:
    """Sends the request; the name of its Status, and what the peer said to it."""
    raised, stop = SendCounts.zeros(), np.zeros(1, np.int64)
    transport = factory(settings)(raised, stop)
    timeout_ns = round(settings.otlp.timeout_s * 1e9)
    transport.connect(CONNECT_TIMEOUT_S)
    try:
        now = time.monotonic_ns()
        transport.send(Chunk.of([data], np.array([now]), np.array([1])), now + timeout_ns)
        transport.drain(now + timeout_ns)
        outcomes = transport.outcomes()
    finally:
        transport.close()
    (outcome,) = outcomes
    status = Status(int(outcome["status"]))
    if outcome["rejected"]:
        return "REJECTED", transport.messages().get(status, "")
    return status.name, transport.messages().get(status, "")


def _facts(trace_id: bytes, data: bytes) -> Sent:
    now = time.time()
    spans = {span.span_id: span for span in decode(data)}
    return Sent(
        accepted=1,
        unknown=0,
        started_s=now,
        ended_s=now,
        violations={rule: int(rule == SLOW) for rule in RULES},
        violating={rule: {trace_id} if rule == SLOW else set() for rule in RULES},
        services=(SERVICE,),
        sample=[SentTrace(trace_id, spans)],
    )
