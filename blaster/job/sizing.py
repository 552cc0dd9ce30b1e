"""How many workers, connections and requests in flight a run has."""

from __future__ import annotations

import os
from dataclasses import dataclass

from blaster.cluster.cluster import Cluster
from blaster.engine.plan import Plan
from blaster.errors import UsageError
from blaster.transport import choice
from blaster.units import format_bytes

MAX_MESSAGE_BYTES = 4 << 20
"""The largest message that a gRPC server takes by default."""

PACED_IN_FLIGHT, CLOSED_IN_FLIGHT = 256, 16
"""Default requests in flight: of a host in a paced run, of a worker in a closed loop."""

PACED_CONNECTIONS, CLOSED_CONNECTIONS = 64, 8
"""The same over HTTP/1.1, where a connection carries one request at a time."""

MAX_CONNECTIONS, MAX_IN_FLIGHT = 10_000, 100_000

BETRACE_SPANS = 10_000
"""The most spans that BeTrace's own ingest takes in a request."""

SPANS_PER_WORKER = {
    "wire": 2_000_000,
    "grpc": 200_000,
    "http": 300_000,
    "betrace": 5_000,
    "null": 5_000_000,
}
"""The rate that one worker is given before another is started: well below what it can send."""


def cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that send. ``cpus``: of the one with the fewest."""

    count: int
    cpus: int

    @classmethod
    def of(cls, cluster: Cluster | None) -> Hosts:
        """The cluster's hosts; this machine where there is no cluster."""
        return cls(1, cpus()) if cluster is None else cls(len(cluster.members), cluster.cpus)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The sizes that the user fixed; None: chosen by the rate, the transport and the CPUs.
    ``workers`` are one host's."""

    workers: int | None = None
    connections: int | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Sizing:
    """The workers of all hosts, and the connections and requests in flight of one worker."""

    workers: int
    connections: int
    in_flight: int


def size(wanted: Wanted, peak_rate: int | None, transport: str, hosts: Hosts) -> Sizing:
    """The sizes for a run at up to ``peak_rate`` spans per second (None: a closed loop). Raises
    UsageError, naming the option."""
    workers = _workers(wanted.workers, peak_rate, transport, hosts)
    most_connections, most_in_flight, where = MAX_CONNECTIONS, MAX_IN_FLIGHT, ""
    if transport == "wire":
        limits = choice.wire_limits()
        most_connections = min(most_connections, limits.connections * workers)
        most_in_flight = min(most_in_flight, limits.in_flight * workers)
        where = f" with --workers {workers}"
    check_range("--in-flight", wanted.in_flight, most_in_flight, where)
    check_range("--connections", wanted.connections, most_connections, where)
    if transport in ("http", "betrace"):
        connections = in_flight = _connections_http(wanted, peak_rate, workers, hosts)
    else:
        closed = peak_rate is None
        default = CLOSED_IN_FLIGHT * workers if closed else PACED_IN_FLIGHT * hosts.count
        in_flight = wanted.in_flight or default
        connections = wanted.connections or workers
    return Sizing(workers, -(-connections // workers), -(-in_flight // workers))


def _workers(wanted: int | None, peak_rate: int | None, transport: str, hosts: Hosts) -> int:
    check_range("--workers", wanted, max(8, 4 * hosts.cpus), f" on {hosts.cpus} CPUs")
    if wanted is None and peak_rate is None:
        wanted = max(1, hosts.cpus - 1)
    elif wanted is None:
        needed = -(-(peak_rate or 0) // (SPANS_PER_WORKER[transport] * hosts.count))
        wanted = max(1, min(hosts.cpus, needed))
    return wanted * hosts.count


def _connections_http(wanted: Wanted, peak_rate: int | None, workers: int, hosts: Hosts) -> int:
    """The connections of all workers, each of which carries one request at a time."""
    default = PACED_CONNECTIONS * hosts.count
    if peak_rate is None:
        default = CLOSED_CONNECTIONS * workers
    given = [n for n in (wanted.connections, wanted.in_flight) if n is not None]
    connections = max(min(given, default=default), workers)
    if connections > MAX_CONNECTIONS * hosts.count:
        raise UsageError(
            f"--in-flight {connections}: over HTTP each takes a connection of its own: "
            f"at most {MAX_CONNECTIONS:,}"
        )
    return connections


def check_range(option: str, value: int | None, most: int, where: str = "") -> None:
    """UsageError for a value that is given and not from 1 to ``most``."""
    if value is not None and not 1 <= value <= most:
        raise UsageError(f"{option} {value}: must be from 1 to {most:,}{where}")


def check_batch(plan: Plan, transport: str) -> None:
    """UsageError where a request would be larger than a receiver takes."""
    size = plan.bytes_per_request
    if transport == "betrace" and plan.spans_per_request > BETRACE_SPANS:
        raise UsageError(
            f"--batch {round(plan.spans_per_request)}: BeTrace takes at most {BETRACE_SPANS:,} "
            "spans in a request"
        )
    if size <= MAX_MESSAGE_BYTES:
        return
    fits = plan.spans_per_request * MAX_MESSAGE_BYTES / size
    raise UsageError(
        f"--batch {round(plan.spans_per_request)}: a request could take {format_bytes(size)}, "
        f"and a receiver takes {format_bytes(MAX_MESSAGE_BYTES)} unless told otherwise: "
        f"at most {int(fits):,} spans"
    )
