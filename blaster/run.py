"""One load test, from a Job to its Results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blaster.backends.findings import Sent
from blaster.backends.scrape import Observer
from blaster.backends.verify import Answers, Verifier
from blaster.chaos import Chaos
from blaster.cluster.cluster import Cluster
from blaster.cluster.conductor import Conductor
from blaster.cluster.merged import ClusterRun
from blaster.engine.control import Progress
from blaster.engine.results import Check, Results
from blaster.engine.run import Run, never_started
from blaster.engine.runner import Runner
from blaster.engine.sample import Sample
from blaster.engine.sent import sent_of
from blaster.engine.signals import Interrupted, StopSignals
from blaster.engine.summary import results_of
from blaster.errors import BlasterError, TargetUnreachable
from blaster.job.job import Job
from blaster.listener import Listener
from blaster.measure.hdr import Latencies
from blaster.measure.sampler import Sampler, Watch
from blaster.notes import notes_of
from blaster.payload.capture.batch_capture import BatchCapture
from blaster.progress import Intervals
from blaster.sink.counts import SinkCounts
from blaster.sink.process import EmbeddedSink
from blaster.transport.capturing import capture_batches
from blaster.transport.endpoint import Endpoint, resolve, resolve_betrace
from blaster.transport.factory import factory
from blaster.transport.probe import probe
from blaster.verdict.verdict import judge

NOTHING = Listener()


def run(
    job: Job,
    signals: StopSignals,
    listener: Listener = NOTHING,
    *,
    cluster: Cluster | None = None,
) -> Results:
    """Run the load test and judge it. Raises BlasterError for what keeps it from starting.

    ``cluster``: the hosts that send, for which the job was made; None: this machine.
    """
    asked = observed = recording = None
    with _sink(job) as sink, _chaos(job, sink) as chaos:
        if sink is not None:
            job = job.sending_to(embedded_endpoint(sink, job.otlp.transport))
        configuration = job.configuration
        try:
            signals.release()
            with _verifier(job, sink) as verifier, _observer(job) as observer:
                if job.otlp.transport != "null" and sink is None and cluster is None:
                    probe(job.otlp)
                target = _sampler(job, sink)
                listener.begin(job.plan, configuration)
                sample = _prepare(verifier, job, cluster)
                with _recording(job) as recording:
                    record = _sender(
                        job,
                        signals,
                        listener,
                        Intervals(job.scenario, configuration, listener, observer).update,
                        target=target,
                        sample=sample,
                        chaos=chaos,
                        recording=recording,
                        cluster=cluster,
                    ).run()
                record.messages = {
                    name: job.otlp.hide(text) for name, text in record.messages.items()
                }
                asked = _ask(verifier, record, signals, job, sample)
                observed = observer.end(record.started_at)
        except TargetUnreachable as error:
            raise TargetUnreachable(job.otlp.hide(str(error))) from None
        except Interrupted:
            record = never_started(job.plan)
        counts = lost_sink = None
        if sink is not None and not chaos.killed_sink:
            counts, lost_sink = _counts(sink)
    results = results_of(record, configuration, counts, asked, observed)
    results.faults = chaos.marks(record.ledger.lost_spans())
    results.hosts = record.hosts if isinstance(record, ClusterRun) else None
    results.verdict = judge(results, job.scenario)
    if lost_sink is not None:
        results.verdict.add(Check("embedded sink", "alive", lost_sink, False))
    if recording is not None and recording.failed:
        results.verdict.add(Check("recording", "whole", recording.summary(), False))
    results.notes += notes_of(results, job.captured, recording)
    if listener.wants_latencies:
        listener.latencies(_latencies(record))
    return results


def _sender(
    job: Job,
    signals: StopSignals,
    listener: Listener,
    on_progress: Callable[[Progress], str | None],
    *,
    target: Sampler | None,
    sample: Sample | None,
    chaos: Chaos,
    recording: BatchCapture | None,
    cluster: Cluster | None,
) -> Runner | Conductor:
    """What sends the plan, from here or from a cluster's hosts."""
    if cluster is not None:
        return cluster.conductor(
            job.plan,
            job.settings,
            job.configuration,
            signals=signals,
            target=target,
            on_progress=on_progress,
            keep_intervals=listener.wants_latencies,
            outcome_log=listener.outcomes,
        )
    make = factory(job.settings)
    if listener.outcomes is not None:
        make = listener.outcomes.wrap(make)
    return Runner(
        job.plan,
        capture_batches(make, recording),
        timeout_s=job.otlp.timeout_s,
        signals=signals,
        target=target,
        on_progress=on_progress,
        keep_intervals=listener.wants_latencies,
        sample=sample,
        control=listener.control,
        chaos=chaos,
    )


@contextmanager
def _sink(job: Job) -> Iterator[EmbeddedSink | None]:
    """The embedded sink, started, where it is asked for."""
    if job.embedded is None:
        yield None
        return
    with EmbeddedSink(job.embedded) as sink:
        yield sink


def _counts(sink: EmbeddedSink) -> tuple[SinkCounts | None, str | None]:
    """The sink's counts, or why there are none: what was sent is worth telling without them."""
    try:
        return sink.settled_counts(), None
    except BlasterError as error:
        return None, f"{sink.ending() or error}; its counts are lost"


def embedded_endpoint(sink: EmbeddedSink, transport: str) -> Endpoint:
    """Where the sink takes what this transport sends."""
    if transport == "betrace":
        return resolve_betrace(sink.api_url)
    if transport == "http":
        return resolve(sink.http_endpoint, {}, "http")
    return resolve(sink.endpoint, {})


def _chaos(job: Job, sink: EmbeddedSink | None) -> Chaos:
    watches = {watch.text: watch for watch in job.watches}
    return Chaos(job.chaos, watches, sink.pid if sink is not None else None)


def _sampler(job: Job, sink: EmbeddedSink | None) -> Sampler | None:
    if job.watches:
        return Sampler(job.watches)
    return Sampler([Watch(str(sink.pid), pid=sink.pid)]) if sink is not None else None


@contextmanager
def _verifier(job: Job, sink: EmbeddedSink | None) -> Iterator[Verifier | None]:
    """What asks the backends; what it makes there is removed when the context is left."""
    if not job.verify.targets:
        yield None
        return
    with Verifier(job.verify, betrace_url=None if sink is None else sink.api_url) as verifier:
        yield verifier


@contextmanager
def _observer(job: Job) -> Iterator[Observer]:
    """Reads what is observed, from now until the context is left."""
    observer = Observer(job.observe)
    observer.begin()
    try:
        yield observer
    finally:
        observer.stop()


@contextmanager
def _recording(job: Job) -> Iterator[BatchCapture | None]:
    """The file of what is sent, emptied; whole when the context is left."""
    if job.record is None:
        yield None
        return
    recording = BatchCapture(job.record.path, job.record.most_bytes)
    try:
        yield recording
    finally:
        recording.close()


def _prepare(verifier: Verifier | None, job: Job, cluster: Cluster | None) -> Sample | None:
    """Prepare the backends; return the traces to draw for them to give back, where one does."""
    if verifier is None:
        return None
    verifier.prepare()
    # The hosts of a cluster draw none: their stores are asked for counts alone.
    if not verifier.reads_back or job.verify.read_back == 0 or cluster is not None:
        return None
    return Sample(job.plan.workers, job.verify.read_back, job.plan.seed)


def _ask(
    verifier: Verifier | None,
    record: Run,
    signals: StopSignals,
    job: Job,
    sample: Sample | None,
) -> tuple[Sent, Answers] | None:
    """Ask the backends about a run that has ended; after an interruption, without waiting."""
    if verifier is None:
        return None
    cut: list[bool] = [True] if record.interrupted else []
    signals.on_stop = lambda: cut.append(True)
    settings = job.verify
    sent = sent_of(record, sample, settings.read_back, settings.policy, name=verifier.detects)
    return sent, verifier.ask(sent, record.end_ns / 1e9, lambda: bool(cut))


def _latencies(record: Run) -> Latencies:
    measured = record.plan.segments.after(record.warmup_ns or 0)
    intervals = record.intervals.items if record.intervals is not None else []
    return Latencies(record.started_at, record.ledger.response(measured), intervals)
