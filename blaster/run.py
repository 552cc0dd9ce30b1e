"""One load test from its options to its results: what ``blaster run`` does."""

from __future__ import annotations

import dataclasses
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

from msgspec.structs import replace

from blaster import chaos
from blaster.backends.findings import Sent
from blaster.backends.policy import SamplingPolicy, parse_policy
from blaster.backends.scrape import Observer, check_metrics
from blaster.backends.verify import (
    DEFAULT_LIMIT_S,
    Answers,
    Verifier,
    parse_headers,
    parse_targets,
)
from blaster.chaos import Chaos
from blaster.cluster.cluster import Cluster, hosts_of
from blaster.cluster.conductor import Conductor
from blaster.cluster.merged import ClusterRun
from blaster.engine.control import Control, Progress
from blaster.engine.plan import Plan, in_spans, mix_of
from blaster.engine.recorder import Recorder
from blaster.engine.results import Configuration, Results
from blaster.engine.run import Run, never_started, so_far
from blaster.engine.runner import Runner
from blaster.engine.sample import Sample
from blaster.engine.sent import sent_of
from blaster.engine.signals import Interrupted, StopSignals
from blaster.engine.summary import results_of
from blaster.errors import TargetUnreachable, UsageError
from blaster.measure.hdr import Latencies
from blaster.measure.sampler import Sampler, Watch, parse_watch
from blaster.payload.capture import capture
from blaster.payload.capture.capture import Capture
from blaster.payload.capture.recording import MAX_BYTES as MAX_RECORD_BYTES
from blaster.payload.capture.recording import Recording
from blaster.payload.template import LAYOUTS
from blaster.scenario import loading, overrides
from blaster.scenario.scenario import ARRIVALS, MAX_BURST, Scenario, WarmUp, parse_warmup
from blaster.scenario.threshold import Threshold, parse_thresholds
from blaster.sink.fault import GRPC, HTTP, WIRE
from blaster.sink.fault_grammar import check_supported
from blaster.sink.fault_grammar import parse_all as parse_faults
from blaster.sink.process import EmbeddedSink
from blaster.transport import choice, otlp_settings, retry
from blaster.transport.capturing import capture_batches
from blaster.transport.endpoint import Endpoint, Protocol, resolve_betrace
from blaster.transport.endpoint import resolve as resolve_endpoint
from blaster.transport.factory import Settings, factory
from blaster.transport.otlp_settings import OtlpOptions, OtlpSettings
from blaster.transport.probe import probe
from blaster.units import format_bytes, parse_bytes, quoted
from blaster.verdict import thresholds
from blaster.verdict.verdict import judge

MAX_MESSAGE_BYTES = 4 << 20
"""What a gRPC server takes unless told otherwise."""

PACED_IN_FLIGHT, CLOSED_IN_FLIGHT = 256, 16
"""Requests in flight by default: of a host in a paced run, of a worker in a closed loop."""

MAX_CONNECTIONS = 10_000

PACED_CONNECTIONS, CLOSED_CONNECTIONS = 64, 8
"""The same over HTTP/1.1, where a connection carries one request at a time."""

BETRACE_SPANS = 10_000
"""What BeTrace's own ingest takes in a request."""

READ_BACK, MOST_READ_BACK = 20, 10_000
"""Traces that are read back from a store unless told otherwise, and at most."""

CHECKPOINT_S = 30.0
"""How often the results so far are given away: a lost machine loses at most a minute."""

SPANS_PER_WORKER = {
    "wire": 2_000_000,
    "grpc": 200_000,
    "http": 300_000,
    "betrace": 5_000,
    "null": 5_000_000,
}
"""The rate that one worker is given before another is started: well below what it can send."""


@dataclass(frozen=True)
class Options(OtlpOptions):
    """What the command line says; None: not given."""

    scenario: str = "normal"
    embedded: bool = False
    rate: str | None = None
    duration: str | None = None
    violation_rate: str | None = None
    stages: str | None = None
    spans_per_trace: int | None = None
    workload: str | None = None
    layout: str | None = None
    template: str | None = None
    record: str | None = None
    record_limit: str | None = None
    workers: int | None = None
    connections: int | None = None
    in_flight: int | None = None
    batch: int | None = None
    retry: str | None = None
    watch: Sequence[str] = ()
    faults: Sequence[str] = ()
    chaos: str | None = None
    allow_chaos: bool = False
    seed: int | None = None
    arrivals: str | None = None
    burst: int | None = None
    warmup: str | None = None
    thresholds: Sequence[str] = ()
    abort_on: Sequence[str] = ()
    verify: Sequence[str] = ()
    verify_limit_s: float = DEFAULT_LIMIT_S
    read_back: int = READ_BACK
    sampling_policy: str | None = None
    scrapes: Sequence[str] = ()
    scrape_metrics: Sequence[str] = ()
    alerts: Sequence[str] = ()
    verify_headers: Sequence[str] = dataclasses.field(default=(), repr=False)


def run(
    options: Options,
    signals: StopSignals,
    on_progress: Callable[[Progress], None] | None = None,
    on_plan: Callable[[Plan, Configuration], None] | None = None,
    *,
    on_checkpoint: Callable[[Results], None] | None = None,
    on_latencies: Callable[[Latencies], None] | None = None,
    recorder: Recorder | None = None,
    cluster: Cluster | None = None,
    control: Control | None = None,
) -> Results:
    """Runs the load test and judges it. Raises BlasterError for what keeps it from starting.

    ``on_plan`` is called once, before anything is sent; ``on_checkpoint`` is given the results so
    far every CHECKPOINT_S, ``on_latencies`` the histograms at the end. ``recorder`` is given every
    Outcome. ``cluster``: the hosts that run it, in place of this machine. ``control`` may stop a
    run on this machine, or hold its rate.
    """
    scenario = scenario_of(options)
    _check_verify(options)
    otlp = otlp_settings.resolve(options)
    _check_files(options, otlp)
    if cluster is not None:
        otlp = _check_cluster(options, otlp, cluster)
    transport = otlp.transport
    seed = scenario.seed if scenario.seed is not None else secrets.randbits(32)
    captured = capture.read(options.template) if options.template is not None else None
    mix = mix_of(scenario, seed, captured.shapes if captured else (), otlp.encoding)
    offered = in_spans(scenario, mix)
    workers = _workers(options, offered, transport, cluster)
    connections, in_flight = _flight(options, offered, workers, transport, hosts_of(cluster))
    retry_mode = _retry(options, scenario)
    plan = Plan.of(offered, seed=seed, workers=workers, mix=mix)
    _check_batch(plan, transport)
    watches = [parse_watch(text) for text in options.watch]
    events = _events(options, scenario, cluster, otlp.protocol)
    with (
        _target(options, otlp, seed) as (otlp, sink),
        _chaos(options, events, watches, sink) as disorder,
    ):
        settings = Settings(
            otlp, -(-connections // workers), -(-in_flight // workers), retry_mode, seed
        )
        configuration = Configuration(
            endpoint=otlp.endpoint.url,
            transport=transport,
            encoding=otlp.encoding,
            compression=otlp.compression,
            tls=otlp.tls is not None,
            insecure_skip_verify=otlp.tls is not None and not otlp.tls.verify,
            workers=workers,
            connections=settings.connections * workers,
            in_flight=settings.in_flight * workers,
            spans_per_request=round(plan.spans_per_request, 2),
            spans_per_trace=round(mix.spans_per_trace, 2),
            traces_per_request=plan.per_request,
            bytes_per_span=round(mix.bytes_per_span, 1),
            workload=scenario.workload.name,
            layout=mix.layout,
            violation_rate=float(scenario.workload.violation_rate),
            stages=[str(stage) for stage in scenario.stages],
            arrivals=scenario.arrivals,
            burst=scenario.burst,
            warmup=str(scenario.warmup),
            retry=retry_mode,
            faults=list(options.faults),
        )
        asked = seen = recording = None
        try:
            signals.release()
            with _verifier(options, sink) as verifier, _observer(options) as observer:
                if transport != "null" and sink is None and cluster is None:
                    probe(otlp)
                target = _sampler(watches, sink)
                if on_plan is not None:
                    on_plan(plan, configuration)
                sample = _prepare(verifier, options, plan, cluster)
                watch = _Watch(scenario, configuration, on_progress, on_checkpoint, observer).update
                with _recording(options) as recording:
                    sending = _Sending(
                        *(plan, settings, configuration, signals, target, watch, sample, control),
                        disorder,
                    )
                    record = sending.runner(
                        on_latencies is not None, recorder, recording, cluster
                    ).run()
                record.messages = {name: otlp.hide(text) for name, text in record.messages.items()}
                asked = _ask(verifier, record, signals, options, sample)
                seen = observer.end(record.started_at)
        except TargetUnreachable as error:
            raise TargetUnreachable(otlp.hide(str(error))) from None
        except Interrupted:
            record = never_started(plan)
        counts = None if sink is None or disorder.killed_sink else sink.settled_counts()
    results = results_of(record, configuration, counts, asked, seen)
    _complete(results, record, scenario, disorder)
    results.notes += _notes(results, captured, recording)
    if on_latencies is not None:
        on_latencies(_latencies(record))
    return results


def _complete(results: Results, record: Run, scenario: Scenario, disorder: Chaos) -> None:
    """What --chaos did, what the hosts of a cluster did, and the verdict."""
    results.faults = disorder.marks(record.ledger.lost_spans())
    results.hosts = record.hosts if isinstance(record, ClusterRun) else None
    results.verdict = judge(results, scenario)


def _check_embedded(options: Options, transport: str) -> None:
    """Refuses what --embedded cannot be used with."""
    if transport == "null" and options.embedded:
        raise UsageError("--transport 'null': sends nothing, so it cannot be used with --embedded")
    if options.embedded:
        check_no_endpoint(options)


def check_no_endpoint(options: Options) -> None:
    """Refuses an endpoint beside the embedded sink."""
    if options.endpoint is not None:
        raise UsageError(
            f"--endpoint {quoted(options.endpoint)}: cannot be used with --embedded, "
            "which is the target itself"
        )


def _notes(results: Results, captured: Capture | None, recording: Recording | None) -> list[str]:
    """What there is to say beside the figures."""
    notes = [note for asked in results.verification for note in asked.summary_lines()]
    if results.interrupted and not results.spans.scheduled:
        notes.append("interrupted before the first span was offered")
    notes += [str(mark) for mark in results.faults]
    if results.configuration.insecure_skip_verify:
        notes.append("the server's certificate was not verified, as asked for")
    if captured is not None:
        notes += [f"template {captured.path}: {note}" for note in captured.notes]
    if recording is not None:
        notes.append(f"recorded {recording.said()}")
    return notes


def _check_verify(options: Options) -> None:
    """Refuses what names no backend, before anything is started."""
    targets = parse_targets(options.verify)
    parse_headers(options.verify_headers)
    if not 0 <= options.read_back <= MOST_READ_BACK:
        raise UsageError(f"--read-back {options.read_back}: must be from 0 to {MOST_READ_BACK:,}")
    if _policy(options) is not None and not any(name == "collector" for name, _ in targets):
        raise UsageError("--sampling-policy: needs --verify collector, whose exports it is about")
    if options.verify_headers and not (options.verify or options.scrapes or options.alerts):
        raise UsageError("--verify-header: needs --verify, --scrape or --alerts")
    check_metrics(options.scrape_metrics)
    if options.scrape_metrics and not options.scrapes:
        raise UsageError("--scrape-metric: needs --scrape")
    Observer(options.scrapes, options.alerts)


@contextmanager
def _observer(options: Options) -> Iterator[Observer]:
    """Looks at what is scraped, from now until the context is left."""
    observer = Observer(
        options.scrapes,
        options.alerts,
        options.scrape_metrics,
        parse_headers(options.verify_headers),
    )
    observer.begin()
    try:
        yield observer
    finally:
        observer.stop()


def _policy(options: Options) -> SamplingPolicy | None:
    if options.sampling_policy is None:
        return None
    try:
        return parse_policy(options.sampling_policy)
    except ValueError as error:
        raise UsageError(f"--sampling-policy {quoted(options.sampling_policy)}: {error}") from None


@contextmanager
def _verifier(options: Options, sink: EmbeddedSink | None) -> Iterator[Verifier | None]:
    """What asks the backends; what it makes there is removed when the context is left."""
    if not options.verify:
        yield None
        return
    with Verifier(
        options.verify,
        limit_s=options.verify_limit_s,
        headers=parse_headers(options.verify_headers),
        betrace_url=None if sink is None else sink.api_url,
    ) as verifier:
        yield verifier


def _prepare(
    verifier: Verifier | None, options: Options, plan: Plan, cluster: Cluster | None
) -> Sample | None:
    """Prepares the backends; what is drawn for them to give back, if one of them does that."""
    if verifier is None:
        return None
    verifier.prepare()
    # The hosts of a cluster draw none: their stores are asked for counts alone.
    if not verifier.reads_back or options.read_back == 0 or cluster is not None:
        return None
    return Sample(plan.workers, options.read_back, plan.seed)


def _ask(
    verifier: Verifier | None,
    record: Run,
    signals: StopSignals,
    options: Options,
    sample: Sample | None,
) -> tuple[Sent, Answers] | None:
    """Asks the backends about a run that has ended; after an interruption, without waiting."""
    if verifier is None:
        return None
    cut: list[bool] = [True] if record.interrupted else []
    signals.on_stop = lambda: cut.append(True)
    sent = sent_of(record, sample, options.read_back, _policy(options), name=verifier.detects)
    return sent, verifier.ask(sent, record.end_ns / 1e9, lambda: bool(cut))


@dataclass(frozen=True)
class _Sending:
    """What a runner needs, here or on a cluster."""

    plan: Plan
    settings: Settings
    configuration: Configuration
    signals: StopSignals
    target: Sampler | None
    watch: Callable[[Progress], str | None]
    sample: Sample | None
    control: Control | None
    chaos: Chaos

    def runner(
        self,
        keep_intervals: bool,
        recorder: Recorder | None,
        recording: Recording | None,
        cluster: Cluster | None,
    ) -> Runner | Conductor:
        """What sends the plan."""
        if cluster is not None:
            return cluster.conductor(
                self.plan,
                self.settings,
                self.configuration,
                signals=self.signals,
                target=self.target,
                on_progress=self.watch,
                keep_intervals=keep_intervals,
                recorder=recorder,
            )
        settings = self.settings
        make = factory(settings)
        return Runner(
            self.plan,
            capture_batches(make if recorder is None else recorder.wrap(make), recording),
            timeout_s=settings.otlp.timeout_s,
            signals=self.signals,
            target=self.target,
            on_progress=self.watch,
            keep_intervals=keep_intervals,
            sample=self.sample,
            control=self.control,
            chaos=self.chaos,
        )


def _sampler(watches: Sequence[Watch], sink: EmbeddedSink | None) -> Sampler | None:
    if watches:
        return Sampler(watches)
    return Sampler([parse_watch(str(sink.pid))]) if sink is not None else None


class _Watch:
    """What is done with each interval of a run: shown, judged by ``abort_on``, written down."""

    def __init__(
        self,
        scenario: Scenario,
        configuration: Configuration,
        on_progress: Callable[[Progress], None] | None,
        on_checkpoint: Callable[[Results], None] | None,
        observer: Observer,
    ) -> None:
        self._observer = observer
        self._scenario, self._configuration = scenario, configuration
        self._on_progress, self._on_checkpoint = on_progress, on_checkpoint
        self._written = time.monotonic()

    def update(self, progress: Progress) -> str | None:
        """Returns why the run is to end, or None."""
        self._observer.tick()
        if self._on_progress is not None:
            self._on_progress(progress)
        due = time.monotonic() >= self._written + CHECKPOINT_S
        if not self._scenario.abort_on and not (due and self._on_checkpoint):
            return None
        results = results_of(so_far(progress.run), self._configuration, None)
        if due and self._on_checkpoint is not None:
            results.verdict = judge(results, self._scenario)
            self._on_checkpoint(results)
            self._written = time.monotonic()
        return thresholds.holding(results, self._scenario.abort_on)


def _latencies(record: Run) -> Latencies:
    measured = record.plan.segments.after(record.warmup_ns or 0)
    intervals = record.intervals.items if record.intervals is not None else []
    return Latencies(record.started_at, record.ledger.response(measured), intervals)


def scenario_of(options: Options) -> Scenario:
    """The scenario that was named, with the options and the environment in force."""
    scenario = overrides.resolve(
        loading.load(options.scenario),
        rate=options.rate,
        duration=options.duration,
        violation_rate=options.violation_rate,
        stages=options.stages,
        environ=options.environ,
    )
    for option, value, most in (
        ("--batch", options.batch, 1_000_000),
        ("--spans-per-trace", options.spans_per_trace, 1000),
    ):
        _check_range(option, value, most)
    if options.seed is not None and not 0 <= options.seed < 2**63:
        raise UsageError(f"--seed {options.seed}: must be from 0 to 2^63 - 1")
    if options.layout is not None and options.layout not in LAYOUTS:
        raise UsageError(f"--layout {quoted(options.layout)}: must be {', '.join(LAYOUTS)}")
    if options.arrivals is not None and options.arrivals not in ARRIVALS:
        raise UsageError(f"--arrivals {quoted(options.arrivals)}: must be {' or '.join(ARRIVALS)}")
    _check_range("--burst", options.burst, MAX_BURST)
    try:
        scenario = scenario.with_overrides(
            workload=options.workload,
            layout=options.layout,
            spans_per_trace=options.spans_per_trace,
            batch=options.batch,
            seed=options.seed,
            arrivals=options.arrivals,
            burst=options.burst,
            warmup=_warmup(options.warmup),
            thresholds=_thresholds("--threshold", options.thresholds),
            abort_on=_thresholds("--abort-on", options.abort_on),
        )
    except ValueError as error:  # what no single option is guilty of
        raise UsageError(str(error)) from None
    thresholds.check_known("--threshold", scenario.thresholds)
    thresholds.check_known("--abort-on", scenario.abort_on)
    if options.spans_per_trace is not None and scenario.workload.name != "flat":
        raise UsageError(
            f"--spans-per-trace {options.spans_per_trace}: only for the workload flat; "
            f"{scenario.workload.name} says itself what its traces are"
        )
    return scenario if options.template is None else _of_template(scenario, options)


def _warmup(text: str | None) -> WarmUp | None:
    if text is None:
        return None
    try:
        return parse_warmup(text)
    except ValueError as error:
        raise UsageError(f"--warmup {quoted(text)}: {error}") from None


def _thresholds(option: str, texts: Sequence[str]) -> list[Threshold]:
    try:
        return [threshold for text in texts for threshold in parse_thresholds(text)]
    except ValueError as error:
        raise UsageError(f"{option} {error}") from None


def _of_template(scenario: Scenario, options: Options) -> Scenario:
    """The scenario with captured traces, which violate nothing unless that is asked for."""
    assert options.template is not None
    for option, value in (
        ("--workload", options.workload),
        ("--spans-per-trace", options.spans_per_trace),
    ):
        if value is not None:
            raise UsageError(
                f"{option} {quoted(value)}: cannot be used with --template, "
                "which says itself what the traces are"
            )
    asked = options.violation_rate or options.environ.get(overrides.VIOLATION_RATE_VARIABLE)
    rate = scenario.workload.violation_rate if asked else Fraction(0)
    workload = replace(scenario.workload, name=options.template, violation_rate=rate)
    return replace(scenario, workload=workload)


def _events(
    options: Options, scenario: Scenario, cluster: Cluster | None, protocol: str
) -> tuple[chaos.Event, ...]:
    """What --chaos asks for. UsageError for what can't be done, of --fault too."""
    _check_faults(options.embedded, options.faults, protocol)
    if options.chaos is not None and cluster is not None:
        raise UsageError(f"--chaos {quoted(options.chaos)}: cannot be used with --cluster")
    return chaos.check(
        *(options.chaos, options.allow_chaos, scenario.duration_ns),
        *(options.watch, options.embedded),
    )


def _chaos(
    options: Options,
    events: Sequence[chaos.Event],
    watches: Sequence[Watch],
    sink: EmbeddedSink | None,
) -> Chaos:
    named = dict(zip(options.watch, watches, strict=True))
    return Chaos(events, named, sink.pid if sink is not None else None)


def _check_faults(embedded: bool, faults: Sequence[str], protocol: str) -> None:
    """Refuses faults that nobody would show: the embedded sink's receiver of this protocol."""
    parsed = parse_faults(faults)
    if faults and not embedded:
        raise UsageError(
            f"--fault {quoted(faults[0])}: is for the embedded sink: only with --embedded"
        )
    native = WIRE if choice.wire_is_built() else GRPC
    check_supported(parsed, [HTTP if protocol == "http" else native])


@contextmanager
def _target(
    options: Options, otlp: OtlpSettings, seed: int
) -> Iterator[tuple[OtlpSettings, EmbeddedSink | None]]:
    if not options.embedded:
        yield otlp, None
        return
    faults = [argument for fault in options.faults for argument in ("--fault", fault)]
    with EmbeddedSink(*faults, "--fault-seed", str(seed)) as sink:
        endpoint = _embedded_endpoint(otlp, sink)
        yield dataclasses.replace(otlp, endpoint=endpoint, tls=None), sink


def _embedded_endpoint(otlp: OtlpSettings, sink: EmbeddedSink) -> Endpoint:
    url = embedded_url(sink, otlp.transport, otlp.protocol)
    if otlp.transport == "betrace":
        return resolve_betrace(url)
    return resolve_endpoint(url, {}, otlp.protocol)


def embedded_url(sink: EmbeddedSink, transport: str, protocol: Protocol) -> str:
    """Where the sink takes what is sent so."""
    if transport == "betrace":
        return sink.api_url
    return sink.http_endpoint if protocol == "http" else sink.endpoint


@contextmanager
def _recording(options: Options) -> Iterator[Recording | None]:
    """The file of what is sent, emptied; whole when the context is left."""
    if options.record is None:
        yield None
        return
    recording = Recording(options.record, _record_limit(options))
    try:
        yield recording
    finally:
        recording.close()


def _record_limit(options: Options) -> int:
    text = options.record_limit
    if text is None:
        return MAX_RECORD_BYTES
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise UsageError(f"--record-limit {quoted(text)}: {error}") from None


def _check_files(options: Options, otlp: OtlpSettings) -> None:
    """Refuses what cannot be sent or recorded so, before anything is emptied or sent."""
    _check_embedded(options, otlp.transport)
    if options.record is None:
        if options.record_limit is not None:
            raise UsageError(f"--record-limit {quoted(options.record_limit)}: needs --record")
        return
    if otlp.encoding == "json":
        raise UsageError(
            f"--record {quoted(options.record)}: cannot be used with --encoding json, only protobuf"
        )
    _record_limit(options)
    for option, path in (("--template", options.template), ("scenario", options.scenario)):
        both = path is not None and os.path.exists(path) and os.path.exists(options.record)
        if both and os.path.samefile(str(path), options.record):
            raise UsageError(f"--record {quoted(options.record)}: is {option} too")


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_cluster(options: Options, otlp: OtlpSettings, cluster: Cluster) -> OtlpSettings:
    """The settings for the cluster's hosts. UsageError for what cannot be done there."""
    if options.record is not None:
        raise UsageError(f"--record {quoted(options.record)}: cannot be used with --cluster")
    if options.embedded:
        cluster.check_loopback()
    cluster.check_same()
    return dataclasses.replace(otlp, transport=cluster.transport(options.transport, otlp.transport))


def _workers(options: Options, scenario: Scenario, transport: str, cluster: Cluster | None) -> int:
    """The workers of all hosts."""
    if cluster is not None:
        return _workers_on(options, scenario, transport, cluster.cpus, len(cluster.members))
    return _workers_on(options, scenario, transport, _cpus(), 1)


def _workers_on(options: Options, scenario: Scenario, transport: str, cpus: int, hosts: int) -> int:
    _check_range("--workers", options.workers, max(8, 4 * cpus), f" on {cpus} CPUs")
    if options.workers is not None:
        return options.workers * hosts
    if scenario.peak_rate is None:
        return max(1, cpus - 1) * hosts
    wanted = -(-scenario.peak_rate // (SPANS_PER_WORKER[transport] * hosts))
    return max(1, min(cpus, wanted)) * hosts


def _flight(
    options: Options, scenario: Scenario, workers: int, transport: str, hosts: int
) -> tuple[int, int]:
    """Connections and requests in flight over all workers."""
    _check_range("--in-flight", options.in_flight, 100_000)
    _check_range("--connections", options.connections, MAX_CONNECTIONS)
    if transport in ("http", "betrace"):
        default = PACED_CONNECTIONS * hosts
        if scenario.peak_rate is None:
            default = CLOSED_CONNECTIONS * workers
        given = [n for n in (options.connections, options.in_flight) if n is not None]
        connections = max(min(given, default=default), workers)
        if connections > MAX_CONNECTIONS * hosts:
            raise UsageError(
                f"--in-flight {connections}: over HTTP each takes a connection of its own: "
                f"at most {MAX_CONNECTIONS:,}"
            )
        return connections, connections
    closed = scenario.peak_rate is None
    default = CLOSED_IN_FLIGHT * workers if closed else PACED_IN_FLIGHT * hosts
    in_flight = max(options.in_flight or default, workers)
    return max(options.connections or workers, workers), in_flight


def _retry(options: Options, scenario: Scenario) -> str:
    """What was asked for; else a paced run is a model client, and a closed loop shows the target's
    answers as they are."""
    if options.retry is not None:
        return retry.check(options.retry)
    return retry.OFF if scenario.peak_rate is None else retry.SPEC


def _check_range(option: str, value: int | None, most: int, where: str = "") -> None:
    if value is not None and not 1 <= value <= most:
        raise UsageError(f"{option} {value}: must be from 1 to {most:,}{where}")


def _check_batch(plan: Plan, transport: str) -> None:
    size = plan.bytes_per_request
    if transport == "betrace" and plan.spans_per_request > BETRACE_SPANS:
        raise UsageError(
            f"--batch {round(plan.spans_per_request)}: BeTrace takes at most {BETRACE_SPANS:,} "
            "spans in a request"
        )
    if size <= MAX_MESSAGE_BYTES:
        return
    fits = plan.spans_per_request * MAX_MESSAGE_BYTES / size
    raise UsageError(
        f"--batch {round(plan.spans_per_request)}: a request could take {format_bytes(size)}, "
        f"and a receiver takes {format_bytes(MAX_MESSAGE_BYTES)} unless told otherwise: "
        f"at most {int(fits):,} spans"
    )
