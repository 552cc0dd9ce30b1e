"""A page of Prometheus metrics, parsed within bounds, in any of the usual naming styles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from blaster.backends.client import Client, RequestFailed

MAX_SAMPLES = 200_000

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The samples of a metrics page, by name and labels."""

    samples: dict[str, dict[Labels, float]] = field(default_factory=dict)

    def series(self, name: str) -> dict[Labels, float] | None:
        """The samples of a metric, with or without the suffix ``_total`` and the prefix
        ``otelcol_``; None if it is absent."""
        plain = name.removesuffix("_total")
        bare = plain.removeprefix("otelcol_")
        for known in (plain, f"{plain}_total", bare, f"{bare}_total"):
            if known in self.samples:
                return self.samples[known]
        return None

    def total(self, name: str) -> float | None:
        """The sum over all labels; None if the metric is absent."""
        series = self.series(name)
        return None if series is None else sum(series.values())

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """The sums by the values of one label ("" for samples without it)."""
        sums: dict[str, float] = {}
        for labels, value in (self.series(name) or {}).items():
            key = dict(labels).get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return sums


def read(client: Client, path: str = "/metrics") -> Page:
    """Fetch and parse the page. RequestFailed if there is none, or it is malformed."""
    text = client.get(path).decode(errors="replace")
    try:
        return parse(text)
    except ValueError as error:
        raise RequestFailed(f"GET {client.base.url}{path}: no metrics: {error}") from None


def parse(text: str) -> Page:
    """Parse Prometheus' text format. ValueError if it is malformed or too long."""
    # Imported here: runs that read no page need not wait for it.
    from prometheus_client.parser import text_string_to_metric_families

    samples: dict[str, dict[Labels, float]] = {}
    count = 0
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                count += 1
                if count > MAX_SAMPLES:
                    raise ValueError(f"more than {MAX_SAMPLES:,} samples")
                labels = tuple(sorted(sample.labels.items()))
                samples.setdefault(sample.name, {})[labels] = float(sample.value)
    except (KeyError, IndexError, TypeError, AttributeError) as error:  # bugs of the parser
        raise ValueError(f"malformed: {error!r}") from None
    return Page(samples)


def counters(page: Page, names: Iterable[str]) -> dict[str, float]:
    """The totals of those of these metrics that are present."""
    totals = ((name, page.total(name)) for name in names)
    return {name: total for name, total in totals if total is not None}


class Growth:
    """The growth of a page's counters since a first reading.

    A counter that decreased was reset, as by a restart of its process: its whole value counts.
    """

    def __init__(self, read_page: Callable[[], Page]) -> None:
        self._read = read_page
        self._before = Page()
        self.page = Page()

    def begin(self) -> None:
        """Take the first reading. RequestFailed if there is no page."""
        self._before = self.page = self._read()

    def look(self) -> Page:
        """Take another reading; return the growth of each counter since the first, as a page."""
        self.page = self._read()
        grown: dict[str, dict[Labels, float]] = {}
        for name, series in self.page.samples.items():
            before = self._before.samples.get(name, {})
            grown[name] = {}
            for labels, value in series.items():
                then = before.get(labels, 0.0)
                grown[name][labels] = value - then if value >= then else value
        return Page(grown)
