"""The cost of the live view and of metrics: CPU of the parent, as a share of a core.

Both are made once a second from a run of an hour whose series is full. The view is drawn at 80×24
and 200×50; the metrics are those that --metrics-port hands out. Target for the view at 80×24: at
most 1 % of a core, that is 10 ms of CPU each second.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable

import numpy as np
from common import cpu_seconds, interleaved, parse, report
from rich.console import Console

from blaster.engine.control import Progress
from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan
from blaster.engine.run import Run
from blaster.engine.series import Point
from blaster.report.live import LiveView
from blaster.report.metrics import exposition, metrics
from blaster.scenario.scenario import Scenario, parse_stages

TARGET = 0.01
SECONDS = 3600


def hour() -> Progress:
    """A run at its end: two workers, a point each second, latencies of every size."""
    scenario = Scenario(name="x", stages=parse_stages(f"100..2000@{SECONDS}s"))
    plan = Plan.of(scenario, seed=1, workers=2)
    ledger = Ledger(2, plan.segments)
    random = np.random.default_rng(1)
    for slab in ledger.slabs:
        slab.segments[0].sent = 1
        slab.segments[0].response.record(random.lognormal(15, 2, 100_000).astype(np.int64))
        slab.segments[0].service.record(random.lognormal(14, 2, 100_000).astype(np.int64))
    run = Run(plan=plan, ledger=ledger, started_at=0.0, start_ns=0)
    for second in range(1, SECONDS + 1):
        counts, figures = random.integers(2000, size=4).tolist(), (100 * random.random(8)).tolist()
        point = Point(
            float(second),
            *counts,
            *(figures[0], figures[1], 10**8, figures[2], 10**8, figures[3], 5),
            *figures[4:7],
        )
        run.series.add(point)
    return Progress(run, run.series.items[-1], plan.scenario.duration_ns)


def view(progress: Progress, columns: int, rows: int, draws: int) -> Callable[[], float]:
    """Measures the CPU seconds of one interval's drawing."""
    screen = Console(
        file=io.StringIO(), force_terminal=True, width=columns, height=rows, color_system="256"
    )
    shown = LiveView(screen, keys=False)
    shown.begin(progress.run.plan, "http://localhost:4317 (wire)")
    return lambda: cpu_seconds(lambda: [shown.update(progress) for _ in range(draws)]) / draws


def main() -> None:
    short = parse(__doc__).short
    draws = 20 if short else 200
    progress = hour()

    def scraped() -> float:
        def make() -> None:
            for _ in range(draws):
                exposition(metrics(progress, "http://localhost:4317", "wire"))

        return cpu_seconds(make) / draws

    sides = {
        "view_80x24": view(progress, 80, 24, draws),
        "view_200x50": view(progress, 200, 50, draws),
        "metrics": scraped,
    }
    figures = interleaved(sides, 3 if short else 9)
    median = {name: statistics.median(values) for name, values in figures.items()}
    report(
        "live",
        figures,
        unit="CPU seconds an interval of one second, which is the share of a core",
        targets={"view_80x24": median["view_80x24"] <= TARGET},
    )


if __name__ == "__main__":
    main()
