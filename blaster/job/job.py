"""Job: a scenario with every option, variable and default resolved and checked."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from blaster.backends.scrape import ObserveSettings
from blaster.backends.verify import VerifySettings
from blaster.chaos import Event
from blaster.engine.plan import Plan, in_spans, mix_of
from blaster.engine.results import Configuration
from blaster.job.sizing import Hosts, Sizing, Wanted, check_batch, size
from blaster.measure.sampler import Watch
from blaster.payload.capture.capture import Capture
from blaster.scenario.scenario import Scenario, Stage
from blaster.sink.settings import SinkSettings
from blaster.transport import retry
from blaster.transport.endpoint import Endpoint
from blaster.transport.factory import Settings
from blaster.transport.otlp_settings import OtlpSettings

NO_VERIFY, NO_OBSERVE = VerifySettings(), ObserveSettings()


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """The file that gets what is sent, and the most bytes of it."""

    path: str
    most_bytes: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a run needs, with nothing left to parse. Make it with :meth:`of`.

    ``wanted``: the sizes that the user fixed, of which ``sizing`` was made. ``embedded``: the sink
    to start and send to, in place of the endpoint; None: there is none. ``watches``: the processes
    to sample. ``chaos``: what is done to them.
    """

    scenario: Scenario
    otlp: OtlpSettings
    plan: Plan
    sizing: Sizing
    retry: str
    wanted: Wanted
    hosts: Hosts
    captured: Capture | None = None
    embedded: SinkSettings | None = None
    watches: tuple[Watch, ...] = ()
    chaos: tuple[Event, ...] = ()
    verify: VerifySettings = NO_VERIFY
    observe: ObserveSettings = NO_OBSERVE
    record: RecordSettings | None = None

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        otlp: OtlpSettings,
        *,
        wanted: Wanted | None = None,
        hosts: Hosts | None = None,
        captured: Capture | None = None,
        retry_mode: str | None = None,
    ) -> Job:
        """The job of sending ``scenario`` to the peer of ``otlp``. Raises UsageError for what
        cannot be sent so.

        ``hosts``: None is this machine. ``retry_mode``: None is ``spec`` for a paced run, which is
        a model client, and ``off`` for a closed loop, which shows the target's answers as they are.
        A scenario without a seed gets a random one.
        """
        wanted, hosts = wanted or Wanted(), hosts or Hosts.of(None)
        seed = scenario.seed if scenario.seed is not None else secrets.randbits(32)
        mix = mix_of(scenario, seed, captured.shapes if captured else (), otlp.encoding)
        offered = in_spans(scenario, mix)
        sizing = size(wanted, offered.peak_rate, otlp.transport, hosts)
        plan = Plan.of(offered, seed=seed, workers=sizing.workers, mix=mix)
        check_batch(plan, otlp.transport)
        return cls(
            scenario=scenario,
            otlp=otlp,
            plan=plan,
            sizing=sizing,
            retry=retry_mode or (retry.OFF if scenario.is_max else retry.SPEC),
            wanted=wanted,
            hosts=hosts,
            captured=captured,
        )

    def offering(self, stages: Sequence[Stage], batch: int | None) -> Job:
        """The same job with other stages and batches, and without retries: a retry would hide that
        the target pushed back, and offer it more than was asked for."""
        made = Job.of(
            self.scenario.with_overrides(stages=stages, batch=batch),
            self.otlp,
            wanted=self.wanted,
            hosts=self.hosts,
            captured=self.captured,
            retry_mode=retry.OFF,
        )
        return replace(
            self, scenario=made.scenario, plan=made.plan, sizing=made.sizing, retry=made.retry
        )

    def sending_to(self, endpoint: Endpoint) -> Job:
        """The same job with another endpoint, in plaintext."""
        return replace(self, otlp=replace(self.otlp, endpoint=endpoint, tls=None))

    @property
    def settings(self) -> Settings:
        """The transport's settings in each worker."""
        return Settings(
            self.otlp,
            self.sizing.connections,
            self.sizing.in_flight,
            self.retry,
            self.plan.seed,
        )

    @property
    def configuration(self) -> Configuration:
        """The job as results show it."""
        otlp, plan, mix, scenario = self.otlp, self.plan, self.plan.mix, self.scenario
        return Configuration(
            endpoint=otlp.endpoint.url,
            transport=otlp.transport,
            encoding=otlp.encoding,
            compression=otlp.compression,
            tls=otlp.tls is not None,
            insecure_skip_verify=otlp.tls is not None and not otlp.tls.verify,
            workers=self.sizing.workers,
            connections=self.sizing.connections * self.sizing.workers,
            in_flight=self.sizing.in_flight * self.sizing.workers,
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
            retry=self.retry,
            faults=[fault.text for fault in self.embedded.faults] if self.embedded else [],
        )
