"""Scenarios from TOML: those that come with blaster, and the user's own files.

A file says, with everything but ``stages`` optional::

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
    # Rates are in spans per second, or say otherwise: "50req/s", "10MB/s".
    arrivals = "poisson"            # requests come at random; default: "uniform"
    burst = 10                      # requests that come at once; default: 1
    warmup = "10s"                  # left out of the figures; "auto": found by MSER-5
    thresholds = ["latency_ms.response.p99 < 500"]      # over the results; see threshold.py
    abort_on = ["spans.failed > 1000"]                  # ends the run as soon as it holds

    [workload]
    name = "flat"                   # or web-shop, deep, wide, llm-agent, a TOML file
    layout = "sdk"                  # or gateway, scattered; default: by the workload
    violation_rate = 0.1            # share of traces with a violation
    spans_per_trace = 1

    [criteria]                      # when the run has passed
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

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

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
from blaster.units import (
    in_line,
    parse_bytes,
    parse_count,
    parse_duration,
    parse_load,
    parse_share,
    quoted,
)

MAX_FILE_BYTES = 1 << 20

LAYOUTS = ("sdk", "gateway", "scattered")

_PRESETS = ("normal", "medium", "high", "spike", "soak")

_T = TypeVar("_T")


def names() -> list[str]:
    """The scenarios that come with blaster, the lightest first."""
    return list(_PRESETS)


def describe() -> list[tuple[str, str, str]]:
    """Name, description and stages in words of each scenario that comes with blaster."""
    rows = []
    for name in _PRESETS:
        scenario = load(name)
        rows.append((name, scenario.description, ", ".join(map(str, scenario.stages))))
    return rows


def load(name_or_path: str) -> Scenario:
    """The scenario of this name or in this TOML file; a name wins over a file called like it.

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
    """The scenario that TOML ``text`` says; ``file`` names it in errors. UsageError as in load."""
    return _scenario(document(text, file), Path(file).stem)


def document(text: str, file: str) -> Table:
    """The keys of TOML ``text``; ``file`` names it in errors. UsageError where it is not TOML."""
    shown = in_line(file)
    try:
        # Floats stay text, so that a share is kept exactly as it was written.
        values = tomllib.loads(text, parse_float=Float)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = found[1] if found else text.rstrip().count("\n") + 1  # "end of document"
        raise UsageError(f"{shown}:{line}: not TOML: {in_line(message or place)}") from None
    except (ValueError, RecursionError):
        # tomllib lets int's own limit on digits and Python's on nesting through.
        raise UsageError(f"{shown}: not TOML: a number too long or tables too deep") from None
    return Table(shown, "", values)


class Float(str):
    """A TOML float as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Table:
    """A TOML table whose keys are taken one by one; what is left at the end is unknown."""

    def __init__(self, file: str, path: str, values: dict[str, Any]) -> None:
        self.file = file
        self.path = path
        self.values = values
        self.known: list[str] = []

    def refuse(self, key: str, wanted: str) -> NoReturn:
        value = self.values[key]
        shown = str(value).lower() if isinstance(value, bool) else quoted(value)
        raise UsageError(f"{self.file}: {self.path}{key} = {shown}: {wanted}")

    def number(self, key: str, parse: Callable[[str], _T], default: _T) -> _T:
        """The value of ``key``, a number or text, by ``parse`` (ValueError: what is right)."""
        self.known.append(key)
        if key not in self.values:
            return default
        value = self.values[key]
        # An array or a table cannot be what is right, and neither can a boolean.
        written = str(value) if isinstance(value, (str, int)) and value is not True else ""
        try:
            return parse("" if value is False else written)
        except ValueError as error:
            self.refuse(key, str(error))

    def text(self, key: str, default: str) -> str:
        self.known.append(key)
        value = self.values.get(key, default)
        if type(value) is not str or not value.isprintable():
            self.refuse(key, "must be text in one line")
        return value

    def choice(self, key: str, known: Sequence[str], default: str | None) -> str | None:
        """The value of ``key``, one of the words in ``known``."""
        self.known.append(key)
        value = self.values.get(key, default)
        if value is not default and value not in known:
            close = nearest(value, known) if isinstance(value, str) else ""
            self.refuse(key, f"must be {', '.join(known)}{close}")
        return value

    def flag(self, key: str) -> bool:
        self.known.append(key)
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        return value

    def table(self, key: str) -> Table:
        self.known.append(key)
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.refuse(key, f"must be a table: [{key}]")
        return Table(self.file, f"{self.path}{key}.", value)

    def end(self) -> None:
        """Refuses the first key that nobody took."""
        for key in self.values:
            if key not in self.known:
                raise UsageError(
                    f"{self.file}: {self.path}{in_line(key)}: unknown key; "
                    f"known: {', '.join(self.known)}{nearest(key, self.known)}"
                )


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
    except ValueError as error:  # what no single key is guilty of
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


def whole(least: int, most: int) -> Callable[[str], int]:
    """What reads a whole number from ``least`` to ``most``; it raises ValueError otherwise."""

    def parse_whole(text: str) -> int:
        number = parse_count(text, least, most)
        if number is None:
            raise ValueError(f"must be a whole number from {least} to {most:,}")
        return number

    return parse_whole


def _ramp_end(text: str) -> tuple[int | None, str]:
    """A rate, which may be 0, and its unit; "" where the text says none."""
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


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file to be read. UsageError in one line where it is none or cannot be read."""
    shown = in_line(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # open would wait for ever on a pipe
            raise UsageError(f"{shown}: not a file")
        with open(path, "rb") as file:
            yield file
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise UsageError(f"{shown}: cannot be read: {reason}") from None


def read(path: str) -> str:
    """The text of a file. UsageError where it is none, too large or not UTF-8."""
    shown = in_line(path)
    with opened(path) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{shown}: larger than 1 MiB, which no such file is")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown}:{line}: not TOML: not UTF-8 text") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion for the end of an error: the known word that looks most like ``word``."""
    close = difflib.get_close_matches(word[:60], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
