"""TransportWrapper: a transport that passes everything on to an inner one."""

from __future__ import annotations

from blaster.transport.base import Chunk, Framing, Outcomes, Transport


class TransportWrapper:
    """The inner ``transport`` unchanged; subclasses override what they do differently."""

    framing: Framing

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.framing = transport.framing

    def connect(self, timeout_s: float) -> None:
        self._transport.connect(timeout_s)

    def send(self, chunk: Chunk, until: int) -> int:
        return self._transport.send(chunk, until)

    def wait(self, until: int) -> None:
        self._transport.wait(until)

    def drain(self, until: int) -> None:
        self._transport.drain(until)

    def outcomes(self) -> Outcomes:
        return self._transport.outcomes()

    def in_flight(self) -> int:
        return self._transport.in_flight()

    def messages(self) -> dict[int, str]:
        return self._transport.messages()

    def close(self) -> None:
        self._transport.close()
