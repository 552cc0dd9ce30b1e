"""The Job that the options mean: every value parsed once, and what is wrong named by its option."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TypeVar

import msgspec

from blaster import chaos
from blaster.backends.policy import parse_policy
from blaster.backends.scrape import parse_observed
from blaster.backends.verify import VerifySettings, parse_headers, parse_targets
from blaster.cluster.cluster import Cluster
from blaster.errors import UsageError
from blaster.job.job import Job, RecordSettings
from blaster.job.options import LoadOptions, RunOptions, VerifyOptions
from blaster.job.sizing import Hosts, Wanted, check_range
from blaster.measure.sampler import parse_watch
from blaster.payload.capture import capture
from blaster.payload.capture.batch_capture import MAX_BYTES
from blaster.payload.template import LAYOUTS
from blaster.scenario import loading, overrides
from blaster.scenario.scenario import ARRIVALS, MAX_BURST, Scenario, parse_warmup
from blaster.scenario.threshold import Threshold, parse_thresholds
from blaster.sink.fault import GRPC, HTTP, WIRE
from blaster.sink.fault_grammar import check_supported
from blaster.sink.options import SinkOptions
from blaster.sink.settings import SinkSettings
from blaster.sink.settings import resolve as resolve_sink
from blaster.transport import choice, otlp_settings, retry
from blaster.transport.otlp_settings import OtlpSettings
from blaster.units import parse_bytes, parse_duration, quoted
from blaster.verdict import thresholds

MOST_READ_BACK = 10_000

_T = TypeVar("_T")


def resolve(options: RunOptions, cluster: Cluster | None = None) -> Job:
    """The job of a run, on the hosts of ``cluster`` where there is one. Raises UsageError."""
    scenario = scenario_of(options)
    verify = resolve_verify(options, options.read_back, options.sampling_policy)
    if verify.headers and not (options.verify or options.scrape or options.alerts):
        raise UsageError("--verify-header: needs --verify, --scrape or --alerts")
    observe = parse_observed(options.scrape, options.alerts, options.scrape_metric, verify.headers)
    otlp = otlp_settings.resolve(options)
    if options.embedded:
        check_embedded(options, otlp.transport, cluster)
    record = _record(options, otlp)
    if cluster is not None:
        otlp = _on_hosts(options, otlp, cluster)
    job = Job.of(
        scenario,
        otlp,
        wanted=wanted_of(options),
        hosts=Hosts.of(cluster),
        captured=capture.read(options.template) if options.template is not None else None,
        retry_mode=retry.check(options.retry) if options.retry is not None else None,
    )
    watches = tuple(parse_watch(text) for text in options.watch)
    sink = resolve_embedded(options, SinkOptions(fault=options.fault), otlp.protocol)
    if options.chaos is not None and cluster is not None:
        raise UsageError(f"--chaos {quoted(options.chaos)}: cannot be used with --cluster")
    events = chaos.check(
        options.chaos,
        options.allow_chaos,
        scenario.duration_ns,
        options.watch,
        options.embedded,
    )
    return replace(
        job,
        embedded=None if sink is None else replace(sink, fault_seed=job.plan.seed),
        watches=watches,
        chaos=events,
        verify=verify,
        observe=observe,
        record=record,
    )


def scenario_of(options: RunOptions) -> Scenario:
    """The scenario that was named, with the options and the environment in force."""
    for option, value, most in (
        ("--batch", options.batch, 1_000_000),
        ("--spans-per-trace", options.spans_per_trace, 1000),
        ("--burst", options.burst, MAX_BURST),
    ):
        check_range(option, value, most)
    if options.layout is not None and options.layout not in LAYOUTS:
        raise UsageError(f"--layout {quoted(options.layout)}: must be {', '.join(LAYOUTS)}")
    if options.arrivals is not None and options.arrivals not in ARRIVALS:
        raise UsageError(f"--arrivals {quoted(options.arrivals)}: must be {' or '.join(ARRIVALS)}")
    scenario = overrides.resolve(
        loading.load(options.scenario),
        rate=options.rate,
        duration=options.duration,
        violation_rate=options.violation_rate,
        stages=options.stages,
        environ=options.environ,
    )
    try:
        scenario = scenario.with_overrides(
            workload=options.workload,
            layout=options.layout,
            spans_per_trace=options.spans_per_trace,
            batch=options.batch,
            seed=_seed(options.seed),
            arrivals=options.arrivals,
            burst=options.burst,
            warmup=_optional("--warmup", options.warmup, parse_warmup),
            thresholds=resolve_thresholds("--threshold", options.threshold),
            abort_on=resolve_thresholds("--abort-on", options.abort_on),
        )
    except ValueError as error:  # of several options together
        raise UsageError(str(error)) from None
    if options.spans_per_trace is not None and scenario.workload.name != "flat":
        raise UsageError(
            f"--spans-per-trace {options.spans_per_trace}: only for the workload flat; the traces "
            f"of {scenario.workload.name} have their own numbers of spans"
        )
    return scenario if options.template is None else _of_template(scenario, options)


def load_scenario(options: LoadOptions) -> Scenario:
    """The traces that a search sends; its trials say at which rates."""
    return scenario_of(
        RunOptions(
            violation_rate=options.violation_rate,
            spans_per_trace=options.spans_per_trace,
            seed=options.seed,
            batch=options.batch,
            threshold=options.threshold,
            environ=options.environ,
        )
    )


def resolve_verify(
    options: VerifyOptions, read_back: int = 0, policy: str | None = None
) -> VerifySettings:
    """Which backends to ask. Raises UsageError."""
    if not 0 <= read_back <= MOST_READ_BACK:
        raise UsageError(f"--read-back {read_back}: must be from 0 to {MOST_READ_BACK:,}")
    targets = parse_targets(options.verify)
    sampling = _optional("--sampling-policy", policy, parse_policy)
    if sampling is not None and not any(name == "collector" for name, _ in targets):
        raise UsageError("--sampling-policy: needs --verify collector, whose exports it is about")
    return VerifySettings(
        targets=targets,
        headers=parse_headers(options.verify_header),
        limit_s=parsed("--verify-limit", options.verify_limit, parse_duration) / 1e9,
        read_back=read_back,
        policy=sampling,
    )


def resolve_thresholds(option: str, texts: Sequence[str]) -> tuple[Threshold, ...]:
    """The conditions of all texts, whose paths are figures of the results. Raises UsageError."""
    try:
        found = tuple(threshold for text in texts for threshold in parse_thresholds(text))
    except ValueError as error:
        raise UsageError(f"{option} {error}") from None
    thresholds.check_known(option, found)
    return found


def wanted_of(options: LoadOptions) -> Wanted:
    """The sizes that the options fix."""
    return Wanted(options.workers, options.connections, options.in_flight)


def check_embedded(options: LoadOptions, transport: str, cluster: Cluster | None) -> None:
    """Refuses what --embedded cannot be used with."""
    if transport == "null":
        raise UsageError("--transport 'null': sends nothing, so it cannot be used with --embedded")
    if options.endpoint is not None:
        raise UsageError(
            f"--endpoint {quoted(options.endpoint)}: cannot be used with --embedded, "
            "which is the target itself"
        )
    if cluster is not None:
        cluster.check_loopback()


def resolve_embedded(options: LoadOptions, sink: SinkOptions, protocol: str) -> SinkSettings | None:
    """The sink to start, on free ports; None where none is asked for. Raises UsageError for faults
    that its receiver of this protocol cannot show."""
    settings = resolve_sink(replace(sink, grpc_port=0, http_port=0, api_port=0))
    if settings.faults and not options.embedded:
        raise UsageError(
            f"--fault {quoted(options.fault[0])}: is for the embedded sink: only with --embedded"
        )
    native = WIRE if choice.wire_is_built() else GRPC
    check_supported(settings.faults, [HTTP if protocol == "http" else native])
    return settings if options.embedded else None


def parsed(option: str, text: str, parse: Callable[[str], _T]) -> _T:
    """The value of ``text``. Raises UsageError, naming the option, for what ``parse`` refuses."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option} {quoted(text)}: {error}") from None


def _optional(option: str, text: str | None, parse: Callable[[str], _T]) -> _T | None:
    return None if text is None else parsed(option, text, parse)


def _seed(seed: int | None) -> int | None:
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: must be from 0 to 2^63 - 1")
    return seed


def _of_template(scenario: Scenario, options: RunOptions) -> Scenario:
    """The scenario with captured traces, which violate nothing unless that is asked for."""
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
    workload = msgspec.structs.replace(
        scenario.workload, name=str(options.template), violation_rate=rate
    )
    return msgspec.structs.replace(scenario, workload=workload)


def _record(options: RunOptions, otlp: OtlpSettings) -> RecordSettings | None:
    """The file to record to, which is none of those that are read."""
    path, limit = options.record, options.record_limit
    if path is None:
        if limit is not None:
            raise UsageError(f"--record-limit {quoted(limit)}: needs --record")
        return None
    if otlp.encoding == "json":
        raise UsageError(
            f"--record {quoted(path)}: cannot be used with --encoding json, only protobuf"
        )
    for option, other in (("--template", options.template), ("scenario", options.scenario)):
        both = other is not None and os.path.exists(other) and os.path.exists(path)
        if both and os.path.samefile(str(other), path):
            raise UsageError(f"--record {quoted(path)}: is {option} too")
    return RecordSettings(path, _optional("--record-limit", limit, parse_bytes) or MAX_BYTES)


def _on_hosts(options: RunOptions, otlp: OtlpSettings, cluster: Cluster) -> OtlpSettings:
    """The settings for the cluster's hosts. UsageError for what cannot be done there."""
    if options.record is not None:
        raise UsageError(f"--record {quoted(options.record)}: cannot be used with --cluster")
    cluster.check_same()
    return replace(otlp, transport=cluster.transport(options.transport, otlp.transport))
