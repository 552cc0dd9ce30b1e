"""A Collector, or Alloy: its own counters of spans received, refused, exported and lost.

Metric names may have the suffix ``_total`` and the prefix ``otelcol_``. Counters are compared with
their values before the run, so another sender at the same Collector shows as a surplus.
"""

from __future__ import annotations

from blaster.backends.client import Client, RequestFailed
from blaster.backends.findings import Flow, FunnelStage, Sent, Verification
from blaster.backends.metrics import Growth, Page, counters, read
from blaster.backends.waiting import Wait

ACCEPTED = "otelcol_receiver_accepted_spans"
REFUSED = "otelcol_receiver_refused_spans"
EXPORTED = "otelcol_exporter_sent_spans"
SEND_FAILED = "otelcol_exporter_send_failed_spans"
ENQUEUE_FAILED = "otelcol_exporter_enqueue_failed_spans"
QUEUE_SIZE, QUEUE_CAPACITY = "otelcol_exporter_queue_size", "otelcol_exporter_queue_capacity"
SAMPLED = "otelcol_processor_tail_sampling_global_count_traces_sampled"
DROPPED_EARLY = "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early"
INCOMING, OUTGOING = "otelcol_processor_incoming_items", "otelcol_processor_outgoing_items"

GROWING = (ACCEPTED, REFUSED, EXPORTED, SEND_FAILED, ENQUEUE_FAILED, SAMPLED, DROPPED_EARLY)
STANDING = (QUEUE_SIZE, QUEUE_CAPACITY, "otelcol_process_memory_rss")
SPENT = ("otelcol_process_cpu_seconds",)


class Collector:
    """The Backend for a Collector, whose /metrics are read before and after the run."""

    def __init__(self, client: Client) -> None:
        self._growth = Growth(lambda: read(client, _path(client)))
        self._ready = False
        self.verification = Verification("collector", client.base.url)

    def prepare(self, wait: Wait) -> None:
        try:
            self._growth.begin()
            self._ready = True
        except RequestFailed as error:
            self.verification.problems.append(str(error))

    def verify(self, sent: Sent, flow: Flow, wait: Wait) -> None:
        if not self._ready:
            flow.stages.append(FunnelStage("received by the collector", None))
            return
        try:
            self._verify(sent, flow, wait)
            page = self._growth.look()
            self.verification.counters = {
                **counters(page, (*GROWING, *SPENT)),
                **counters(self._growth.page, STANDING),
            }
        except RequestFailed as error:
            self.verification.problems.append(str(error))
            flow.stages.append(FunnelStage("exported by the collector", None, None, str(error)))

    def close(self) -> None:
        """Nothing to undo."""

    def _verify(self, sent: Sent, flow: Flow, wait: Wait) -> None:
        seen = wait.until(lambda: int(self._growth.look().total(ACCEPTED) or 0), flow.low)
        if self._growth.page.total(ACCEPTED) is None and flow.low:
            self.verification.problems.append(f"its metrics have no {ACCEPTED}")
        refused = int(self._growth.look().total(REFUSED) or 0)
        why = f"{refused:,} refused by its receiver" if refused else "not in its counters"
        flow.stage("received by the collector", seen.count, why)
        if seen.count > flow.high:
            self.verification.notes.append(
                f"{seen.count - flow.high:,} spans more than this run sent: there is another sender"
            )
        flow.passes(min(seen.count, flow.high))
        if sent.kept is not None:
            flow.low, expected, flow.high = sent.kept
            self._exported(flow, wait, expected)
        else:
            self._exported(flow, wait, flow.low)

    def _exported(self, flow: Flow, wait: Wait, expected: int) -> None:
        """Add a stage for each exporter; the next stage expects what the slowest of them sent.
        ``expected``: the spans that a sampler should keep on average."""

        def least_sent() -> int:
            return int(min(self._growth.look().by_label(EXPORTED, "exporter").values(), default=0))

        sampled = flow.low != flow.high
        seen = wait.until(least_sent, flow.low if not sampled else flow.high)
        self.verification.time_to_visible_s = round(seen.after_s, 3)
        page = self._growth.look()
        by_exporter = page.by_label(EXPORTED, "exporter") or {"": 0.0}
        for exporter, count in sorted(by_exporter.items()):
            name = "exported by the collector"
            if len(by_exporter) > 1:
                name += f" ({exporter})"
            stage = flow.stage(name, int(count), self._why(page, exporter))
            if sampled:
                stage.expected = expected
                stage.reason = stage.reason or (
                    f"the sampling policy keeps {flow.low:,} to {flow.high:,}"
                )
                if count > flow.high:
                    self.verification.problems.append(
                        f"{int(count):,} spans exported, where the sampling policy keeps at most "
                        f"{flow.high:,}"
                    )
        least = int(min(by_exporter.values()))
        flow.forwarded = least > 0
        flow.passes(least)

    def _why(self, page: Page, exporter: str) -> str:
        """Where the spans are that the exporter did not send, according to the counters."""
        reasons = []
        for name, what in (
            (ENQUEUE_FAILED, "found its queue full"),
            (SEND_FAILED, "could not be sent"),
        ):
            if count := int(page.by_label(name, "exporter").get(exporter, 0)):
                reasons.append(f"{count:,} {what}")
        for processor, came in page.by_label(INCOMING, "processor").items():
            went = page.by_label(OUTGOING, "processor").get(processor, 0)
            if came > went:
                reasons.append(f"{int(came - went):,} stayed in the processor {processor}")
        if early := int(page.total(DROPPED_EARLY) or 0):
            reasons.append(f"{early:,} traces left the tail sampler's memory before their decision")
        if waiting := int(self._growth.page.by_label(QUEUE_SIZE, "exporter").get(exporter, 0)):
            reasons.append(f"{waiting:,} still in its queue")
        return ", ".join(reasons) or "its counters do not say why"


def _path(client: Client) -> str:
    """The path of its metrics, unless the URL ends with it already."""
    return "" if client.base.path.endswith("/metrics") else "/metrics"
