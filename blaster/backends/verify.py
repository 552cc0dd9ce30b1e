"""--verify: the backends to query, their order, and their findings together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from blaster.address import without_secrets
from blaster.backends.betrace import DEFAULT_PORT as BETRACE_PORT
from blaster.backends.betrace import Betrace
from blaster.backends.client import Base, Client, parse_base
from blaster.backends.collector import Collector
from blaster.backends.findings import Backend, Flow, FunnelStage, Sent, Verification
from blaster.backends.jaeger import Jaeger
from blaster.backends.policy import SamplingPolicy
from blaster.backends.tempo import Tempo
from blaster.backends.waiting import Wait
from blaster.errors import UsageError
from blaster.transport.headers import Headers
from blaster.units import quoted

OPTION = "--verify"
PORTS = {"collector": 8888, "tempo": 3200, "jaeger": 16686, "betrace": BETRACE_PORT}
"""The backends in the order in which spans reach them, and their default ports."""

_ADAPTERS: dict[str, Callable[[Client], Backend]] = {
    "collector": Collector,
    "tempo": Tempo,
    "jaeger": Jaeger,
    "betrace": Betrace,
}

DEFAULT_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """Which backends are asked about a run, and how.

    ``targets``: names and where they are, None: not said. ``headers`` go with every question.
    ``limit_s``: how long each is waited for. ``read_back``: traces that a store gives back.
    ``policy``: the tail sampling that a collector applies.
    """

    targets: tuple[tuple[str, Base | None], ...] = ()
    headers: Headers = field(default=(), repr=False)
    limit_s: float = DEFAULT_LIMIT_S
    read_back: int = 0
    policy: SamplingPolicy | None = None


@dataclass(slots=True)
class Answers:
    """The findings of all backends. ``detects``: one of them evaluates rules; ``detected``: the
    violating traces that it found, by rule (None: not known)."""

    stages: list[FunnelStage] = field(default_factory=list)
    verifications: list[Verification] = field(default_factory=list)
    detects: bool = False
    detected: dict[str, int] | None = None


class Verifier:
    """Prepares the backends, queries them after the run, and undoes the preparations. A context
    manager: however the run ends, nothing is left behind in the backends."""

    def __init__(self, settings: VerifySettings, *, betrace_url: str | None = None) -> None:
        """``betrace_url``: the URL of betrace if its target has none."""
        self._limit_s = settings.limit_s
        self._backends: list[Backend] = []
        for name, given in settings.targets:
            url = f"http://localhost:{PORTS[name]}"
            if name == "betrace" and betrace_url is not None:
                url = betrace_url
            base = given or _base(name, url)
            self._backends.append(_ADAPTERS[name](Client(base, dict(settings.headers))))

    @property
    def reads_back(self) -> bool:
        """Whether any of them can return traces."""
        return any(isinstance(backend, Tempo | Jaeger) for backend in self._backends)

    @property
    def detects(self) -> bool:
        """Whether any of them evaluates rules."""
        return any(isinstance(backend, Betrace) for backend in self._backends)

    def prepare(self) -> None:
        """Prepare the backends before the run. Never raises for a backend's failure."""
        wait = Wait(self._limit_s, lambda: False)
        for backend in self._backends:
            backend.prepare(wait)

    def ask(self, sent: Sent, accepted_at: float, stopped: Callable[[], bool]) -> Answers:
        """Query the backends after the run. ``accepted_at``: when the last span was accepted, by
        time.monotonic()."""
        wait = Wait(self._limit_s, stopped, accepted_at)
        flow = Flow(sent.accepted, sent.accepted + sent.unknown)
        answers = Answers()
        for backend in self._backends:
            backend.verify(sent, flow, wait)
            answers.verifications.append(backend.verification)
            if isinstance(backend, Betrace):
                answers.detects, answers.detected = True, backend.detected
        if answers.detects:
            for backend in self._backends:
                if isinstance(backend, Tempo):
                    backend.verify_violations(sent, flow, wait)
        answers.stages = flow.stages
        return answers

    def close(self) -> None:
        """Undo the preparations."""
        for backend in self._backends:
            backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def parse_targets(targets: Sequence[str]) -> tuple[tuple[str, Base | None], ...]:
    """Return the backends and where they are (None: not said), in the order in which spans come to
    them. UsageError for another name, for what is no URL, or for one twice."""
    wanted: dict[str, list[str]] = {}
    for target in targets:
        name, _, url = target.partition("=")
        if name not in PORTS:
            raise UsageError(
                f"{OPTION} {quoted(without_secrets(target))}: must be NAME or NAME=URL, with "
                f"one of {', '.join(PORTS)}"
            )
        if url in wanted.setdefault(name, []):
            raise UsageError(f"{OPTION} {quoted(without_secrets(target))}: is given twice")
        wanted[name].append(url)
    return tuple(
        (name, _base(name, url) if url else None) for name in PORTS for url in wanted.get(name, ())
    )


def _base(name: str, url: str) -> Base:
    return parse_base(f"{OPTION} {name}", url, PORTS[name])


def parse_headers(texts: Sequence[str]) -> Headers:
    """Return the headers of --verify-header. UsageError, without the value, for what is none."""
    headers = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().lower()
        if not equals or not re.fullmatch(r"[0-9a-z_-]+", name):
            raise UsageError(
                "--verify-header: must be NAME=VALUE, the name of letters, digits, - and _ only"
            )
        if not (value.isascii() and value.isprintable()):
            raise UsageError(f"--verify-header {quoted(name)}: its value must be printable ASCII")
        headers[name] = value.strip()
    return tuple(headers.items())
