"""Scenarios from TOML: the presets, and the user's own files.

A file in full; everything but ``stages`` is optional::

    name = "checkout"               # default: the file's name
    description = "Black Friday"
    seed = 7                        # default: drawn for each run
    batch = 500                     # spans per request; default: the engine chooses
    stages = [
        { rate = 100, duration = "60s" },               # steady
        { from = 100, to = "10k", duration = "2m" },    # a ramp
        { from = 100, to = "1k", period = "30s", duration = "5m" },    # a sine, from 100 and back
        { from = 100, to = "10k", width = "30s", duration = "5m" },    # a spike in the middle
    ]                               # or a single stage with rate = "max"
    # Rates are in spans per second unless they have a unit: "50req/s", "10MB/s".
    arrivals = "poisson"            # requests at random times; default: "uniform"
    burst = 10                      # requests sent at once; default: 1
    warmup = "10s"                  # excluded from the figures; "auto": by MSER-5
    thresholds = ["latency_ms.response.p99 < 500"]      # over the results; see threshold.py
    abort_on = ["spans.failed > 1000"]                  # ends the run as soon as it holds

    [workload]
    name = "flat"                   # or web-shop, deep, wide, llm-agent, a TOML file
    layout = "sdk"                  # or gateway, scattered; default: by the workload
    violation_rate = 0.1            # share of traces with a violation
    spans_per_trace = 1

    [criteria]                      # conditions for a pass
    detection_rate_min = 0.9        # detected / injected violations are above it
    target_cpu_percent_max = 70     # the target's average CPU, of one core, is below it
    target_rss_max = "500MB"        # the target's peak memory is below it
    no_errors = true                # no request ended in an error
    none_dropped = true             # every scheduled span was accepted
    cpu_recovers = true             # the target's CPU and the latency come back after the peak
    no_leak = true                  # neither the target's memory nor our own keeps growing

Numbers may be written as in the options: ``"10k"``, ``"1h30m"``, ``"10%"``. A bare duration is in
seconds. Unknown keys are refused.
"""

from __future__ import annotations

import os
import re
from fractions import Fraction
from importlib import resources
from pathlib import Path

from blaster.errors import UsageError
from blaster.scenario.scenario import (
    MAX_BATCH,
    MAX_BURST,
    MAX_SPANS_PER_TRACE,
    Criteria,
    Scenario,
    Stage,
    WarmUp,
    Workload,
    parse_warmup,
    spike,
)
from blaster.scenario.threshold import Threshold, parse_thresholds
from blaster.scenario.toml_file import Table, document, nearest, read, whole
from blaster.units import (
    parse_bytes,
    parse_count,
    parse_duration,
    parse_load,
    parse_share,
    quoted,
)

LAYOUTS = ("sdk", "gateway", "scattered")

_PRESETS = ("normal", "medium", "high", "spike", "soak")


def names() -> list[str]:
    """The names of the presets, the lightest first."""
    return list(_PRESETS)


def describe() -> list[tuple[str, str, str]]:
    """Name, description and stages (as text) of each preset."""
    rows = []
    for name in _PRESETS:
        scenario = load(name)
        rows.append((name, scenario.description, ", ".join(map(str, scenario.stages))))
    return rows


def load(name_or_path: str) -> Scenario:
    """Load a preset or a TOML file; a preset takes precedence over a file of the same name.

    UsageError in one line: the file, the key, its value and what would be right.
    """
    if name_or_path in _PRESETS:
        source = resources.files("blaster.scenario") / "presets" / f"{name_or_path}.toml"
        return parse(source.read_text("utf-8"), f"{name_or_path}.toml")
    looks_like_path = os.sep in name_or_path or name_or_path.endswith(".toml")
    if not looks_like_path and not os.path.exists(name_or_path):
        raise UsageError(
            f"scenario {quoted(name_or_path)}: must be {', '.join(_PRESETS)} or a TOML file"
            f"{nearest(name_or_path, _PRESETS)}"
        )
    return parse(read(name_or_path), name_or_path)


def parse(text: str, file: str) -> Scenario:
    """Parse a scenario from TOML; ``file`` names it in errors. UsageError as in load."""
    return _scenario(document(text, file), Path(file).stem)


def _scenario(top: Table, stem: str) -> Scenario:
    name = top.text("name", stem)
    description = top.text("description", "")
    seed = top.number("seed", whole(0, 2**63 - 1), None)
    batch = top.number("batch", whole(1, MAX_BATCH), None)
    stages = _stages(top)
    arrivals = top.text("arrivals", "uniform")
    burst = top.number("burst", whole(1, MAX_BURST), 1)
    warmup = top.number("warmup", parse_warmup, WarmUp())
    thresholds = _thresholds(top, "thresholds")
    abort_on = _thresholds(top, "abort_on")
    workload = _workload(top.table("workload"))
    criteria = _criteria(top.table("criteria"))
    top.end()
    try:
        return Scenario(
            name=name,
            description=description,
            stages=stages,
            workload=workload,
            criteria=criteria,
            batch=batch,
            seed=seed,
            arrivals=arrivals,
            burst=burst,
            warmup=warmup,
            thresholds=thresholds,
            abort_on=abort_on,
        )
    except ValueError as error:  # a conflict between keys
        raise UsageError(f"{top.file}: {error}") from None


def _stages(top: Table) -> tuple[Stage, ...]:
    top.known.append("stages")
    if "stages" not in top.values:
        top.end()  # a misspelt key is the likelier reason
        raise UsageError(
            f'{top.file}: stages is missing: such as stages = [{{ rate = 100, duration = "60s" }}]'
        )
    tables = top.values["stages"]
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        top.refuse("stages", 'must be tables in an array: [{ rate = 100, duration = "60s" }]')
    return tuple(
        stage
        for index, table in enumerate(tables)
        for stage in _stage(Table(top.file, f"stages[{index}].", table))
    )


def _stage(table: Table) -> tuple[Stage, ...]:
    none: tuple[int | None, str] = (None, "")
    rate, unit = table.number("rate", parse_load, none)
    start = table.number("from", _ramp_end, none)
    end = table.number("to", _ramp_end, none)
    period_ns = table.number("period", parse_duration, None)
    width_ns = table.number("width", parse_duration, None)
    duration_ns = table.number("duration", parse_duration, 0)
    table.end()
    place = f"{table.file}: {table.path[:-1]}"
    if ("rate" in table.values) == ("from" in table.values or "to" in table.values):
        raise UsageError(f"{place}: must have either rate, or from and to")
    for key in ("from", "to"):
        if "rate" not in table.values and key not in table.values:
            raise UsageError(f"{place}: must have from and to: {key} is missing")
    if "rate" in table.values and (period_ns or width_ns):
        raise UsageError(f"{place}: period and width go with from and to")
    if period_ns and width_ns:
        raise UsageError(f"{place}: must have either period, a sine, or width, a spike")
    if not duration_ns:
        raise UsageError(f'{place}: duration is missing: such as duration = "60s"')
    if "rate" not in table.values:
        units = {rate_unit for _, rate_unit in (start, end) if rate_unit}
        if len(units) > 1:
            raise UsageError(f"{place}: from and to must be in the same unit")
        unit = units.pop() if units else "spans"
    else:
        start = end = rate, unit
    try:
        stage = Stage(
            duration_ns=duration_ns,
            start_rate=start[0],
            end_rate=start[0] if width_ns else end[0],
            unit=unit,
            period_ns=period_ns,
        )
        if width_ns is None or end[0] is None:
            return (stage,)
        return spike(stage, end[0], width_ns)
    except ValueError as error:
        raise UsageError(f"{place}: {error}") from None


def _thresholds(top: Table, key: str) -> tuple[Threshold, ...]:
    top.known.append(key)
    texts = top.values.get(key, [])
    if not isinstance(texts, list) or not all(type(text) is str for text in texts):
        top.refuse(key, 'must be texts in an array: ["spans.failed == 0"]')
    try:
        return tuple(threshold for text in texts for threshold in parse_thresholds(text))
    except ValueError as error:
        raise UsageError(f"{top.file}: {key}: {error}") from None


def _workload(table: Table) -> Workload:
    defaults = Workload()
    workload = Workload(
        name=table.text("name", defaults.name),
        layout=table.choice("layout", LAYOUTS, defaults.layout),
        violation_rate=table.number("violation_rate", parse_share, defaults.violation_rate),
        spans_per_trace=table.number(
            "spans_per_trace", whole(1, MAX_SPANS_PER_TRACE), defaults.spans_per_trace
        ),
    )
    table.end()
    return workload


def _criteria(table: Table) -> Criteria:
    share: Fraction | None = table.number("detection_rate_min", parse_share, None)
    criteria = Criteria(
        detection_rate_min=None if share is None else float(share),
        target_cpu_percent_max=table.number("target_cpu_percent_max", _percent, None),
        target_rss_bytes_max=table.number("target_rss_max", parse_bytes, None),
        no_errors=table.flag("no_errors"),
        none_dropped=table.flag("none_dropped"),
        cpu_recovers=table.flag("cpu_recovers"),
        no_leak=table.flag("no_leak"),
    )
    table.end()
    return criteria


def _ramp_end(text: str) -> tuple[int | None, str]:
    """A rate, which may be 0, and its unit; "" if the text has none."""
    rate = parse_count(text)
    if rate is not None:
        return rate, ""
    if text.strip().endswith("/s"):
        number, unit = parse_load(text)
        if number is not None:
            return number, unit
    raise ValueError("must be a whole number of spans per second from 0 to 1G, such as 10k")


def _percent(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text) or not float(text):
        raise ValueError("must be percent of one core, above 0, such as 70")
    return float(text)
