"""Cluster: the hosts that a run may use, and what can be asked of all of them at once."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs

from blaster.cluster import about
from blaster.cluster.about import About
from blaster.cluster.conductor import Conductor, Link
from blaster.cluster.merged import Part
from blaster.cluster.messages import Order
from blaster.engine.control import Progress
from blaster.engine.outcome_log import OutcomeLog
from blaster.engine.plan import Plan
from blaster.engine.results import Configuration
from blaster.engine.signals import StopSignals
from blaster.errors import BlasterError, UsageError
from blaster.measure.sampler import Sampler
from blaster.transport.factory import Settings

ASK_TIMEOUT_S, CEILING_TIMEOUT_S = 30.0, 120.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class Member:
    """One host: its address, the way to it, and what it is."""

    address: str
    link: Link
    about: About


@dataclass(frozen=True)
class Cluster:
    """``members`` in the order of their numbers; ``loop``, which runs in a thread of its own, is
    where their links are called; ``stop_on_loss``: a lost host ends a run."""

    url: str
    members: Sequence[Member]
    loop: asyncio.AbstractEventLoop
    stop_on_loss: bool = False

    @property
    def cpus(self) -> int:
        """Those of the host with the fewest."""
        return min(member.about.cpus for member in self.members)

    @property
    def names(self) -> list[str]:
        """What the hosts are called: by their names, or by their addresses where names repeat."""
        names = [member.about.name for member in self.members]
        if len(set(names)) == len(names) > 1:
            return names
        return [member.address for member in self.members]

    def check_loopback(self) -> None:
        """UsageError where a host is not on this machine's loopback, where an embedded sink is."""
        if not all(_is_loopback(member.address) for member in self.members):
            raise UsageError(
                "--embedded: the sink listens on this machine's loopback only; with --cluster "
                "start `blaster sink --host ADDRESS` and give --endpoint"
            )

    def check_same(self) -> None:
        """UsageError where a host has other versions than this one."""
        about.check_same(about.here(), {m.address: m.about for m in self.members})

    def transport(self, name: str, chosen: str) -> str:
        """What ``--transport NAME`` means on all hosts, where it means ``chosen`` on this one.
        UsageError where a host lacks it."""
        lacking = [m.address for m in self.members if not m.about.wire]
        if chosen != "wire" or not lacking:
            return chosen
        if name == "auto":
            return "grpc"
        raise UsageError(
            f"--transport 'wire': blaster._wire is not built on {', '.join(lacking[:4])}"
        )

    def conductor(
        self,
        plan: Plan,
        settings: Settings,
        configuration: Configuration,
        *,
        signals: StopSignals,
        target: Sampler | None,
        on_progress: Callable[[Progress], str | None] | None,
        keep_intervals: bool,
        outcome_log: OutcomeLog | None,
    ) -> Conductor:
        """What runs ``plan``, whose workers are those of all hosts."""
        hosts = len(self.members)
        order = Order(
            plan=replace(plan, workers=plan.workers // hosts, hosts=hosts),
            settings=settings,
            configuration=configuration_of(configuration, hosts),
            keep_outcomes=outcome_log is not None,
            files=_files(settings),
        )
        parts = [
            Part(number, name, member.address, member.about.cpus)
            for number, (name, member) in enumerate(zip(self.names, self.members, strict=True))
        ]
        return Conductor(
            order,
            parts,
            [member.link for member in self.members],
            self.loop,
            signals=signals,
            stop_on_loss=self.stop_on_loss,
            target=target,
            on_progress=on_progress,
            keep_intervals=keep_intervals,
            outcome_log=outcome_log,
        )

    def ceilings(self, arguments: Sequence[str]) -> list[str]:
        """What each host manages by itself: see :meth:`Agent.ceiling`."""
        return [
            answer if isinstance(answer, str) else str(answer)
            for answer in self.ask(lambda link: link.ceiling(arguments), CEILING_TIMEOUT_S)
        ]

    def ask(
        self, question: Callable[[Link], Coroutine[Any, Any, _T]], timeout_s: float = ASK_TIMEOUT_S
    ) -> list[_T | Exception]:
        """What each host answers, or what went wrong there."""
        return ask(self.loop, [member.link for member in self.members], question, timeout_s)


def hosts_of(cluster: Cluster | None) -> int:
    """How many send: without a cluster one, this machine."""
    return 1 if cluster is None else len(cluster.members)


def ask(
    loop: asyncio.AbstractEventLoop,
    links: Sequence[Link],
    question: Callable[[Link], Coroutine[Any, Any, _T]],
    timeout_s: float,
) -> list[_T | Exception]:
    """What each of the hosts that ``links`` lead to answers, or what went wrong there."""

    async def one(link: Link) -> _T | Exception:
        try:
            return await asyncio.wait_for(question(link), timeout_s)
        except Exception as error:
            return error

    async def every() -> list[_T | Exception]:
        return list(await asyncio.gather(*(one(link) for link in links)))

    future = asyncio.run_coroutine_threadsafe(every(), loop)
    try:
        return future.result(timeout_s + 5.0)
    except futures.TimeoutError:
        raise BlasterError(f"the hosts do not answer within {timeout_s:g} s") from None


def configuration_of(whole: Configuration, hosts: int) -> Configuration:
    """One host's part of what was configured for all."""
    return structs.replace(
        whole,
        workers=whole.workers // hosts,
        connections=whole.connections // hosts,
        in_flight=whole.in_flight // hosts,
    )


def _files(settings: Settings) -> dict[str, bytes]:
    """What the paths in the settings hold, by path: they mean nothing on a host."""
    tls = settings.otlp.tls
    paths = () if tls is None else (tls.ca, tls.certificate, tls.key)
    return {path: Path(path).read_bytes() for path in paths if path is not None}


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
