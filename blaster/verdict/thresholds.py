"""Thresholds over the results: checked before the run, watched during it, judged after it."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import Any

import msgspec

from blaster.engine.results import Check, Results
from blaster.errors import UsageError
from blaster.scenario.threshold import Threshold
from blaster.units import quoted

NOT_MEASURED = "not measured"

_WITHOUT = (
    *("verdict", "series", "host", "configuration"),
    *("latency_distribution", "latency_heat", "holds"),
)


@cache
def known_paths() -> tuple[str, ...]:
    """The paths of all figures in results.json; ``0`` stands for any index, ``OK`` for any key."""
    return tuple(
        f"{name}{rest}"
        for name, kind in typing.get_type_hints(Results).items()
        if name not in _WITHOUT
        for rest in _leaves(kind)
    )


def check_known(option: str, thresholds: Iterable[Threshold]) -> None:
    """Raise UsageError for a path that no results have, with the most similar known path."""
    for threshold in thresholds:
        if not any(_same(threshold.path, path) for path in known_paths()):
            nearest = max(known_paths(), key=partial(_likeness, threshold.path[:100]))
            raise UsageError(
                f"{option} {quoted(threshold.text)}: results have no figure "
                f"{quoted(threshold.path)}; did you mean {nearest}?"
            )


def value_at(results: msgspec.Struct, path: str) -> float | None:
    """The figure at a known path; None if it was not measured, 0 for a key that never occurred."""
    node: Any = results
    for step in path.split("."):
        if isinstance(node, dict):
            node = node.get(step, 0)
        elif isinstance(node, list):
            node = node[int(step)] if int(step) < len(node) else None
        else:
            node = getattr(node, step)
        if node is None:
            return None
    return float(node)


def check(results: Results, threshold: Threshold) -> Check:
    """Judge a threshold: a check of the verdict."""
    value = value_at(results, threshold.path)
    return Check(
        threshold.text,
        f"{threshold.sign} {threshold.number:g}",
        NOT_MEASURED if value is None else f"{value:.10g}",
        None if value is None else threshold.holds(value),
    )


def holding(results: Results, thresholds: Iterable[Threshold]) -> str | None:
    """The first condition that holds, with its value, as text; None if none does."""
    for threshold in thresholds:
        value = value_at(results, threshold.path)
        if value is not None and threshold.holds(value):
            return f"{threshold.text} (was {value:.10g})"
    return None


def _likeness(path: str, known: str) -> tuple[int, float]:
    """The similarity of two paths: the number of steps that begin one of the known path's, then the
    ratio of difflib."""
    steps = known.split(".")
    begun = sum(any(its.startswith(step) for its in steps) for step in path.split("."))
    return begun, difflib.SequenceMatcher(None, path, known).ratio()


def _leaves(kind: Any) -> Iterator[str]:
    """The rest of each path below a type, with its dot; "" if the type is a figure's."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        for part in typing.get_args(kind):
            yield from _leaves(part)
    elif kind in (int, float, bool):
        yield ""
    elif typing.get_origin(kind) is dict:
        yield from (f".OK{rest}" for rest in _leaves(typing.get_args(kind)[1]))
    elif typing.get_origin(kind) is list:
        yield from (f".0{rest}" for rest in _leaves(typing.get_args(kind)[0]))
    elif isinstance(kind, type) and (
        issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)
    ):
        for name, inner in typing.get_type_hints(kind).items():
            yield from (f".{name}{rest}" for rest in _leaves(inner))


def _same(path: str, known: str) -> bool:
    """Whether ``path`` is ``known``, whose 0 is any index and whose OK is any key."""
    steps, wanted = path.split("."), known.split(".")
    return len(steps) == len(wanted) and all(
        its in (mine, "OK") or (its == "0" and mine.isdigit() and len(mine) < 5)
        for mine, its in zip(steps, wanted, strict=True)
    )
