"""The workloads that come with blaster, those in files, and the traces that they are."""

from __future__ import annotations

from collections.abc import Sequence

from blaster.payload import flat
from blaster.payload.mix import Mix
from blaster.payload.shape import Shape
from blaster.payload.template import LAYOUTS, Layout
from blaster.scenario.scenario import Workload


def mix(workload: Workload, seed: int) -> Mix:
    """The traces of a workload and their order. UsageError for what cannot be read, ValueError for
    what cannot be sent."""
    shapes = shapes_of(workload, seed)
    return Mix(shapes, workload.violation_rate, _layout(workload.layout, shapes))


def shapes_of(workload: Workload, seed: int) -> Sequence[Shape]:
    """The shapes of a workload."""
    return [flat.shape(workload.spans_per_trace)]


def _layout(name: str | None, shapes: Sequence[Shape]) -> Layout:
    """The layout of this name; by default, whole traces in a request: as an SDK sends them where
    they are of one service, as a gateway does where not."""
    if name is None:
        resources = {
            r.resource.SerializeToString() for s in shapes for r in s.request.resource_spans
        }
        return "sdk" if len(resources) == 1 else "gateway"
    return next(layout for layout in LAYOUTS if layout == name)
