"""A page of Prometheus metrics, read with bounds, whatever style its names are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from blaster.backends.client import AskFailed, Client

MOST_SAMPLES = 200_000

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The samples of a page, by name and labels."""

    samples: dict[str, dict[Labels, float]] = field(default_factory=dict)

    def series(self, name: str) -> dict[Labels, float] | None:
        """The samples of a metric, with or without ``_total`` and the prefix ``otelcol_``; None
        where it is not there."""
        plain = name.removesuffix("_total")
        bare = plain.removeprefix("otelcol_")
        for known in (plain, f"{plain}_total", bare, f"{bare}_total"):
            if known in self.samples:
                return self.samples[known]
        return None

    def total(self, name: str) -> float | None:
        """The sum over all labels; None where it is not there."""
        series = self.series(name)
        return None if series is None else sum(series.values())

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """The sums by one label's values ("" where a sample has it not)."""
        sums: dict[str, float] = {}
        for labels, value in (self.series(name) or {}).items():
            key = dict(labels).get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return sums


def read(client: Client, path: str = "/metrics") -> Page:
    """What the page says now. AskFailed where there is none, or what came is none."""
    text = client.get(path).decode(errors="replace")
    try:
        return parse(text)
    except ValueError as error:
        raise AskFailed(f"GET {client.base.url}{path}: no metrics: {error}") from None


def parse(text: str) -> Page:
    """The samples of Prometheus' text format. ValueError where it is malformed or too long."""
    # Not at the top: a run that reads no page need not wait for it.
    from prometheus_client.parser import text_string_to_metric_families

    samples: dict[str, dict[Labels, float]] = {}
    count = 0
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                count += 1
                if count > MOST_SAMPLES:
                    raise ValueError(f"more than {MOST_SAMPLES:,} samples")
                labels = tuple(sorted(sample.labels.items()))
                samples.setdefault(sample.name, {})[labels] = float(sample.value)
    except (KeyError, IndexError, TypeError, AttributeError) as error:  # the parser's own slips
        raise ValueError(f"malformed: {error!r}") from None
    return Page(samples)


def counters(page: Page, names: Iterable[str]) -> dict[str, float]:
    """The totals of these metrics, of those that are there."""
    totals = ((name, page.total(name)) for name in names)
    return {name: total for name, total in totals if total is not None}


class Growth:
    """How much the counters of a page have grown since a first look.

    A counter that came down was reset, as when its process started anew: all of it counts.
    """

    def __init__(self, read_page: Callable[[], Page]) -> None:
        self._read = read_page
        self._before = Page()
        self.page = Page()

    def begin(self) -> None:
        """The first look. AskFailed where there is no page."""
        self._before = self.page = self._read()

    def look(self) -> Page:
        """Looks again; what the counters grew since the first is a page, too."""
        self.page = self._read()
        grown: dict[str, dict[Labels, float]] = {}
        for name, series in self.page.samples.items():
            before = self._before.samples.get(name, {})
            grown[name] = {}
            for labels, value in series.items():
                then = before.get(labels, 0.0)
                grown[name][labels] = value - then if value >= then else value
        return Page(grown)
