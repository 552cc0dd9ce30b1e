"""The hosts of a cluster as a table."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from blaster.cluster.check import HostCheck
from blaster.text import clean


def to_json(hosts: Sequence[HostCheck]) -> str:
    """The hosts as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(hosts), indent=2).decode() + "\n"


def show(hosts: Sequence[HostCheck], console: Console) -> None:
    """Print a row for each host, and below the table what keeps hosts from being used."""
    table = Table(box=None, pad_edge=False)
    for title in ("host", "CPUs", "wire", "clock", "round trip", "own ceiling", "versions"):
        table.add_column(title, justify="right" if title == "CPUs" else "left")
    for host in hosts:
        clock = host.clock
        table.add_row(
            host.host if host.host == host.address else f"{host.host} ({host.address})",
            str(host.cpus),
            "built" if host.wire else "no",
            "–" if clock is None else f"{clock.offset_ms:+.3f} ± {clock.uncertainty_ms:.3f} ms",
            "–" if host.round_trip_ms is None else f"{host.round_trip_ms:.3f} ms",
            "–" if host.ceiling is None else f"{host.ceiling.large_rate:,.0f} spans/s",
            "as here" if not host.differs else ", ".join(host.differs),
        )
    console.print(table)
    for host in hosts:
        for wrong in ("" if host.round_trip_ms is not None else host.endpoint, host.said):
            if wrong:
                console.print(clean(f"{host.host}: {wrong}"), markup=False, highlight=False)
