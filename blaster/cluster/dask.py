"""The way to hosts that Dask distributed has started: an Agent as an actor on each.

A host is an address: of several Dask workers at one address, one is used. Messages go through the
scheduler, so that only it must be reached from here; what they hold it does not look into, and the
order, which holds headers, is sealed against being printed. In transit TLS protects it, where the
scheduler's URL begins with tls:// (https://distributed.dask.org/en/stable/tls.html).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client
from distributed.comm.addressing import get_address_host

from blaster.cluster.about import About
from blaster.cluster.agent import Agent
from blaster.cluster.cluster import Cluster, Member, ask
from blaster.cluster.conductor import Link
from blaster.errors import BlasterError, UsageError
from blaster.units import quoted

CONNECT_TIMEOUT_S = 5.0
AGENT_TIMEOUT_S = 30.0


class SchedulerUnreachable(BlasterError):
    """No Dask scheduler answers there, or none that speaks to us."""

    exit_status = 3


@contextmanager
def connect(url: str, hosts: int | None = None, *, stop_on_loss: bool = False) -> Iterator[Cluster]:
    """The cluster of the scheduler at ``url``, or ``hosts`` of its hosts, by order of address.

    UsageError where there are too few of them, or a URL that is none; SchedulerUnreachable where
    nobody answers, BlasterError for a host that blaster cannot run on.
    """
    _keep_quiet()
    try:
        client = Client(url, timeout=CONNECT_TIMEOUT_S, name="blaster")
    except (ValueError, TypeError) as error:
        raise UsageError(f"--cluster {quoted(url)}: {error}") from None
    except (OSError, RuntimeError) as error:
        raise SchedulerUnreachable(
            f"--cluster {quoted(url)}: no Dask scheduler answers there ({_line(error)})"
        ) from None
    try:
        yield _cluster(client, url, hosts, stop_on_loss)
    finally:
        with suppress(Exception):
            client.close(timeout=2)


def _cluster(client: Any, url: str, hosts: int | None, stop_on_loss: bool) -> Cluster:
    workers = _one_each(client)
    if not workers:
        raise UsageError(f"--cluster {quoted(url)}: the scheduler has no workers")
    if hosts is not None and not 1 <= hosts <= len(workers):
        raise UsageError(
            f"--hosts {hosts}: must be from 1 to {len(workers)}, the hosts of the cluster"
        )
    chosen = dict(list(workers.items())[:hosts])
    links: list[Link] = [_agent(client, host, worker) for host, worker in chosen.items()]
    loop = client.loop.asyncio_loop
    members = []
    answers = ask(loop, links, lambda link: link.about(), AGENT_TIMEOUT_S)
    for host, link, answer in zip(chosen, links, answers, strict=True):
        if not isinstance(answer, About):
            raise BlasterError(f"host {host}: {_line(answer)}")
        members.append(Member(host, link, answer))
    return Cluster(url, members, loop, stop_on_loss)


def _one_each(client: Any) -> dict[str, str]:
    """A Dask worker at each address, in order."""
    found: dict[str, str] = {}
    for worker in sorted(client.nthreads()):
        found.setdefault(get_address_host(worker), worker)
    return found


def _agent(client: Any, host: str, worker: str) -> Link:
    future = client.submit(
        Agent,
        actor=True,
        workers=[worker],
        allow_other_workers=False,
        pure=False,
        key=f"blaster-{uuid.uuid4().hex}",
    )
    try:
        agent: Link = future.result(timeout=AGENT_TIMEOUT_S)
    except Exception as error:
        raise BlasterError(
            f"host {host}: blaster cannot run there ({_line(error)}); it must be installed as here"
        ) from None
    return agent


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _keep_quiet() -> None:
    """Dask's own messages: what goes wrong is said in a line of ours."""
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
