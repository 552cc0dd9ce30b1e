"""Overrides of a scenario: options take precedence over the environment, and that over the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from blaster.errors import UsageError
from blaster.scenario.scenario import Scenario, parse_stages
from blaster.units import parse_duration, parse_load, parse_share, quoted

RATE_VARIABLE = "SPANS_PER_SECOND"
DURATION_VARIABLE = "DURATION_SECONDS"
VIOLATION_RATE_VARIABLE = "VIOLATION_RATE"

_T = TypeVar("_T")


def resolve(
    scenario: Scenario,
    *,
    rate: str | None,
    duration: str | None,
    violation_rate: str | None,
    stages: str | None,
    environ: Mapping[str, str],
) -> Scenario:
    """Apply the options (None: not given) and the environment's variables to the scenario.

    A rate makes one steady stage that lasts as long as all stages did, or ``duration``. Stages
    take precedence over the variables for rate and duration, and exclude those options. An empty
    variable counts as not set. UsageError names the option or the variable, its value and what
    would be right.
    """
    changes: dict[str, Any] = {}
    if stages is not None:
        for option, value in (("--rate", rate), ("--duration", duration)):
            if value is not None:
                raise UsageError(
                    f"{option} {quoted(value)}: cannot be used with --stages, "
                    "which sets rates and durations itself"
                )
        changes["stages"] = _parsed("--stages", stages, parse_stages)
    else:
        source, text = _chosen("--rate", rate, RATE_VARIABLE, environ)
        if text is not None:
            changes["rate"], changes["unit"] = _parsed(source, text, parse_load)
        source, text = _chosen("--duration", duration, DURATION_VARIABLE, environ)
        if text is not None:
            changes["duration_ns"] = _parsed(source, text, parse_duration)
            if "rate" not in changes and len(scenario.stages) > 1:
                raise UsageError(
                    f"{source} {quoted(text)}: scenario {scenario.name} has "
                    f"{len(scenario.stages)} stages: give --rate too for one steady stage, "
                    "or --stages"
                )
    source, text = _chosen("--violation-rate", violation_rate, VIOLATION_RATE_VARIABLE, environ)
    if text is not None:
        changes["violation_rate"] = _parsed(source, text, parse_share)
    return scenario.with_overrides(**changes)


def _chosen(
    option: str, value: str | None, variable: str, environ: Mapping[str, str]
) -> tuple[str, str | None]:
    """The source and the text that take precedence; None: neither is set."""
    if value is not None:
        return option, value
    return variable, environ.get(variable) or None


def _parsed(source: str, text: str, parse: Callable[[str], _T]) -> _T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{source} {quoted(text)}: {error}") from None
