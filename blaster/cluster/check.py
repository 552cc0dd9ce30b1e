"""``blaster cluster check``: what each host has, and whether it reaches the endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import msgspec

from blaster.cluster import about
from blaster.cluster.cluster import Cluster
from blaster.cluster.conductor import offset_of
from blaster.engine.results import Clock
from blaster.transport.otlp_settings import OtlpSettings
from blaster.verdict.capacity import Ceiling


class HostCheck(msgspec.Struct):
    """One host. ``differs``: what has another version than here, with that; ``round_trip_ms``: of
    a TCP connection to the endpoint, None where it cannot be reached, and ``endpoint`` says why.
    ``ceiling``: what it keeps on a schedule against a sink of its own, None where that was not
    asked for or not measured."""

    host: str
    address: str
    cpus: int
    kernel: str
    wire: bool
    versions: Mapping[str, str]
    differs: list[str]
    clock: Clock | None
    round_trip_ms: float | None
    endpoint: str
    ceiling: Ceiling | None
    said: str

    @property
    def ok(self) -> bool:
        """Whether a run could use it."""
        return not self.differs and self.round_trip_ms is not None and not self.said


def check(cluster: Cluster, otlp: OtlpSettings, ceilings: bool) -> list[HostCheck]:
    """Asks all hosts; with ``ceilings`` each is measured, some ten seconds long."""
    ours = about.here().versions
    clocks = cluster.ask(offset_of)
    reached = cluster.ask(lambda link: link.reach(otlp))
    said = cluster.ceilings(()) if ceilings else [""] * len(cluster.members)
    found = []
    for name, member, clock, reach, text in zip(
        cluster.names, cluster.members, clocks, reached, said, strict=True
    ):
        there = member.about
        trip, why = (None, str(reach)) if isinstance(reach, Exception) else reach
        ceiling = None
        if text:
            with suppress(msgspec.DecodeError):
                ceiling = msgspec.json.decode(text, type=Ceiling)
        found.append(
            HostCheck(
                host=name,
                address=member.address,
                cpus=there.cpus,
                kernel=there.kernel,
                wire=there.wire,
                versions=there.versions,
                differs=[
                    f"{package} {there.versions.get(package, 'none')}"
                    for package, version in ours.items()
                    if there.versions.get(package) != version
                ],
                clock=None if isinstance(clock, Exception) else clock[1],
                round_trip_ms=trip,
                endpoint=why,
                ceiling=ceiling,
                said=text if ceiling is None else "",
            )
        )
    return found
