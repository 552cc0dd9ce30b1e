"""The workloads that come with blaster, those in files, and the traces that they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources

from blaster.errors import UsageError
from blaster.payload import drawing, flat, topology
from blaster.payload.mix import Mix
from blaster.payload.shape import Shape
from blaster.payload.template import LAYOUTS, Encoding, Layout
from blaster.scenario.scenario import Workload
from blaster.scenario.toml_file import nearest, read
from blaster.units import quoted

NAMES = ("flat", "web-shop", "deep", "wide", "llm-agent")
"""The workloads that come with blaster; all but flat, which has a parameter, are files."""


def mix(
    workload: Workload,
    seed: int,
    captured: Sequence[Shape] = (),
    encoding: Encoding = "protobuf",
) -> Mix:
    """The traces of a workload, or those that were captured, and their order. UsageError for what
    cannot be read, ValueError for what cannot be sent."""
    shapes = captured or shapes_of(workload, seed)
    return Mix(shapes, workload.violation_rate, _layout(workload.layout, shapes), encoding)


def shapes_of(workload: Workload, seed: int) -> Sequence[Shape]:
    """The shapes of a workload."""
    if workload.name == "flat":
        return [flat.shape(workload.spans_per_trace)]
    return drawing.draw(load(workload.name), seed)


def load(name_or_path: str) -> topology.Topology:
    """The topology of this name or in this TOML file; a name wins over a file called like it."""
    if name_or_path in NAMES[1:]:
        source = resources.files("blaster.payload") / "workloads" / f"{name_or_path}.toml"
        return topology.parse(source.read_text("utf-8"), f"{name_or_path}.toml")
    looks_like_path = os.sep in name_or_path or name_or_path.endswith(".toml")
    if not looks_like_path and not os.path.exists(name_or_path):
        raise UsageError(
            f"workload {quoted(name_or_path)}: must be {', '.join(NAMES)} or a TOML file"
            f"{nearest(name_or_path, NAMES)}"
        )
    return topology.parse(read(name_or_path), name_or_path)


def _layout(name: str | None, shapes: Sequence[Shape]) -> Layout:
    """The layout of this name; by default, whole traces in a request: as an SDK sends them where
    they are of one service, as a gateway does where not."""
    if name is None:
        found = {r.resource.SerializeToString() for s in shapes for r in s.request.resource_spans}
        return "sdk" if len(found) == 1 else "gateway"
    return next(layout for layout in LAYOUTS if layout == name)
