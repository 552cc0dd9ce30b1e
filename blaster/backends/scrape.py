"""--scrape and --alerts: metrics and alerts of Prometheus endpoints before, during and after a run.

Metrics are summed over their labels. A thread, started once the workers have been forked, takes the
series, so that a slow page delays nothing.
"""

from __future__ import annotations

import fnmatch
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from blaster.backends.client import Base, Client, RequestFailed, parse_base
from blaster.backends.metrics import Page, read
from blaster.errors import UsageError
from blaster.transport.headers import Headers
from blaster.units import quoted

DEFAULT_METRICS = (
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "go_goroutines",
    "otelcol_process_*",
    "otelcol_*_spans*",
    "otelcol_exporter_queue_*",
    "tempo_*_spans*",
    "betrace_*",
)
"""The default selection of metrics."""

PERIOD_S = 1.0
MAX_POINTS = 3600
MAX_METRICS = 500
MAX_PROBLEMS = 5

PROMETHEUS_PORT = 9090


class ScrapePoint(msgspec.Struct):
    """The selected metrics ``t`` seconds after the run's start."""

    t: float
    values: dict[str, float]


class Scraped(msgspec.Struct):
    """One endpoint's selected metrics: before the run, after it, their growth, and a series of at
    most MAX_POINTS. ``problems`` fail the run, since the metrics were asked for."""

    url: str
    before: dict[str, float]
    after: dict[str, float]
    growth: dict[str, float]
    series: list[ScrapePoint]
    problems: list[str]


class Alert(msgspec.Struct):
    """An alert that fired during the run. ``before``: it was firing when the run began."""

    name: str
    severity: str
    since: str
    before: bool


class Alerts(msgspec.Struct):
    """The alerts of one Prometheus; ``fired`` counts those that began during the run."""

    url: str
    fired: int
    alerts: list[Alert]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class ObserveSettings:
    """Which Prometheus endpoints are read during a run.

    ``pages``: systems and the paths of their metrics; ``alerts``: Prometheus servers; ``metrics``:
    the names to keep, ``*`` and ``?`` for any. ``headers`` go with every request.
    """

    pages: tuple[tuple[Base, str], ...] = ()
    alerts: tuple[Base, ...] = ()
    metrics: tuple[str, ...] = DEFAULT_METRICS
    headers: Headers = field(default=(), repr=False)


def parse_observed(
    scrapes: Sequence[str], alerts: Sequence[str], metrics: Sequence[str], headers: Headers
) -> ObserveSettings:
    """The settings that --scrape, --alerts and --scrape-metric mean. Raises UsageError, naming the
    option."""
    if metrics and not scrapes:
        raise UsageError("--scrape-metric: needs --scrape")
    for name in metrics:
        if not 0 < len(name) <= 200 or not all(
            c.isascii() and (c.isalnum() or c in "_:*?") for c in name
        ):
            raise UsageError(
                f"--scrape-metric {quoted(name)}: must be a metric's name, * and ? stand for any"
            )
    return ObserveSettings(
        pages=tuple(_split(parse_base("--scrape", url, 80)) for url in scrapes),
        alerts=tuple(parse_base("--alerts", url, PROMETHEUS_PORT) for url in alerts),
        metrics=tuple(metrics) or DEFAULT_METRICS,
        headers=headers,
    )


class Observer:
    """Reads the endpoints before, during and after a run.

    Call ``begin`` before the workers are forked, ``tick`` once they are (any number of times), and
    ``end`` when they have ended.
    """

    def __init__(self, settings: ObserveSettings) -> None:
        headers = dict(settings.headers)
        self._pages = [
            _ScrapedPage(Client(base, headers), path, settings.metrics)
            for base, path in settings.pages
        ]
        self._alerts = [_Alerts(Client(base, headers)) for base in settings.alerts]
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Take the first reading. Anything missing is noted as a problem; the run goes on."""
        for page in self._pages:
            page.begin()
        for alerts in self._alerts:
            alerts.begin()

    def tick(self) -> None:
        """Start taking the series, if that has not begun."""
        if self._thread is None and (self._pages or self._alerts):
            self._thread = threading.Thread(target=self._follow, name="scrape", daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        while not self._ended.wait(PERIOD_S):
            for page in self._pages:
                page.look()
            for alerts in self._alerts:
                alerts.look()

    def end(self, started_s: float) -> tuple[list[Scraped], list[Alerts]]:
        """Take the last reading; return everything. ``started_s``: the run's start, since 1970."""
        self.stop()
        scraped = [page.end(started_s) for page in self._pages]
        return scraped, [alerts.end() for alerts in self._alerts]

    def stop(self) -> None:
        """Stop the thread. May be called more than once."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


class _ScrapedPage:
    """One page of metrics."""

    def __init__(self, client: Client, path: str, wanted: Sequence[str]) -> None:
        self._client, self._path, self._wanted = client, path, wanted
        self._before: dict[str, float] = {}
        self._series: list[tuple[float, dict[str, float]]] = []
        self._every = self._looks = 1
        self._problems: list[str] = []

    def _read(self) -> dict[str, float] | None:
        try:
            return select_metrics(read(self._client, self._path), self._wanted)
        except RequestFailed as error:
            if str(error) not in self._problems and len(self._problems) < MAX_PROBLEMS:
                self._problems.append(str(error))
            return None

    def begin(self) -> None:
        self._before = self._read() or {}

    def look(self) -> None:
        self._looks += 1
        if self._looks % self._every:
            return
        values = self._read()
        if values is not None:
            self._series.append((time.time(), values))
        if len(self._series) > MAX_POINTS:
            self._series = self._series[1::2]
            self._every *= 2

    def end(self, started_s: float) -> Scraped:
        after = self._read() or {}
        if not self._problems and not after:
            self._problems.append(
                f"none of the selected metrics is present: {', '.join(self._wanted)}"
            )
        growth = {name: value - self._before.get(name, 0.0) for name, value in after.items()}
        return Scraped(
            url=self._client.base.url + self._path,
            before=self._before,
            after=after,
            growth=growth,
            series=[ScrapePoint(round(at - started_s, 3), values) for at, values in self._series],
            problems=self._problems,
        )


class _Alerts:
    """The alerts of one Prometheus."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before: set[str] = set()
        self._seen: dict[str, Alert] = {}
        self._problems: list[str] = []

    def begin(self) -> None:
        self._before = set(self._look())

    def look(self) -> None:
        for key, alert in self._look().items():
            alert.before = key in self._before
            self._seen.setdefault(key, alert)

    def _look(self) -> dict[str, Alert]:
        """The alerts that are firing now, by their labels."""
        try:
            answer = self._client.get_json("/api/v1/alerts")
            return firing_alerts(answer)
        except RequestFailed as error:
            problem = str(error)
        except ValueError as error:
            problem = f"GET {self._client.base.url}/api/v1/alerts: {error}"
        if problem not in self._problems and len(self._problems) < MAX_PROBLEMS:
            self._problems.append(problem)
        return {}

    def end(self) -> Alerts:
        self.look()
        alerts = list(self._seen.values())
        fired = sum(not alert.before for alert in alerts)
        return Alerts(self._client.base.url, fired, alerts, self._problems)


def firing_alerts(answer: Any) -> dict[str, Alert]:
    """The firing alerts in an answer of Prometheus' /api/v1/alerts, by their labels. ValueError for
    any other answer."""
    data = answer.get("data") if isinstance(answer, dict) else None
    listed = data.get("alerts") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no list of alerts")
    found = {}
    for item in listed:
        if not isinstance(item, dict) or item.get("state") != "firing":
            continue
        given = item.get("labels")
        labels = given if isinstance(given, dict) else {}
        key = repr(sorted((str(k), str(v)) for k, v in labels.items()))
        found[key] = Alert(
            name=str(labels.get("alertname", "?"))[:200],
            severity=str(labels.get("severity", ""))[:40],
            since=str(item.get("activeAt", ""))[:40],
            before=False,
        )
    return found


def select_metrics(page: Page, wanted: Sequence[str]) -> dict[str, float]:
    """Return the metrics whose names match a pattern, summed over labels; no histogram buckets."""
    names = [
        name
        for name in page.samples
        if not name.endswith("_bucket") and any(fnmatch.fnmatchcase(name, w) for w in wanted)
    ]
    return {name: sum(page.samples[name].values()) for name in sorted(names)[:MAX_METRICS]}


def _split(base: Base) -> tuple[Base, str]:
    """The base without its path, and the path of the page; /metrics if the URL has none."""
    path = base.path or "/metrics"
    url = base.url.removesuffix(base.path) if base.path else base.url
    return Base(url, base.host, base.port, "", base.tls), path
