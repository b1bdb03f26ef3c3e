"""UDP echo: the sender, and the server.

The sender is one socket. Its flows differ in the source address, so it can batch over flows. It
keeps a fixed number of datagrams in flight and sends one for each that returns. So the rate is that
of the slowest part of the loop, and no queue overflows by design.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.wire.mmsg import MSG_WAITFORONE, Batch
from bench.wire.places import Place

SIZE = 64
"""Bytes of payload: a DNS question, a game's update."""
_WINDOW = 128
"""Datagrams on their way. The kernel's default receive buffer holds about 250 of them."""
_BATCH = 32
_LOST_AFTER_MS = 200.0
_QUEUE = 4 * 1024 * 1024
"""Bytes of receive buffer at both ends, where the kernel allows it."""


@dataclass(slots=True)
class Tally:
    """What became of the datagrams."""

    sent: int = 0
    received: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Datagrams that came back, each second."""
        return self.received / self.seconds

    @property
    def loss(self) -> float:
        """Share that did not come back, in [0, 1]."""
        return max(0.0, 1 - self.received / self.sent) if self.sent else 1.0


class UdpLoad:
    """Sends to one place; each source address is a flow."""

    def __init__(self, destination: Place, sources: Sequence[str], source_port: int) -> None:
        self._out = Batch(max(len(sources), _BATCH), SIZE)
        self._out.address_to(destination, sources)
        for index in range(self._out.count):
            self._out.fill(index, index.to_bytes(4, "big"))
        self._in = Batch(_BATCH, SIZE)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
        self._socket.bind(("0.0.0.0", source_port))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._next = 0
        self._away = 0

    def close(self) -> None:
        self._socket.close()

    def begin_flows(self) -> None:
        """Send a datagram on every flow, untimed: what begins a flow is not what is measured."""
        tally = Tally()
        while tally.sent < self._out.count:
            self._turn(tally)
        while self._away:
            self._receive(tally)

    def run(self, seconds: float) -> Tally:
        """Send and receive for so long, then wait for what is still on its way."""
        tally = Tally()
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            self._turn(tally)
        while self._away:
            self._receive(tally)
        tally.seconds = time.monotonic() - begin
        return tally

    def _turn(self, tally: Tally) -> None:
        if self._away <= _WINDOW - _BATCH:
            count = min(_BATCH, self._out.count - self._next)
            sent = self._out.send(self._socket.fileno(), self._next, count)
            self._next = (self._next + sent) % self._out.count
            tally.sent += sent
            self._away += sent
        else:
            self._receive(tally)

    def _receive(self, tally: Tally) -> None:
        """One batch; when nothing comes for long, what is on its way is given up."""
        received = self._in.receive(self._socket.fileno())
        if received:
            tally.received += received
            self._away = max(0, self._away - received)
        elif not self._poll.poll(_LOST_AFTER_MS):
            self._away = 0


class OnceLoad(UdpLoad):
    """Each datagram is one of a new flow: of a client that asks once and is answered once."""

    def __init__(self, destination: Place, source_port: int) -> None:
        super().__init__(destination, sources_on_loopback(_BATCH), source_port)
        self._flow = time.monotonic_ns() // 1000
        """Number of the next flow. Each run begins with another one, so that flows of the one
        before it are not met again while they last."""

    def begin_flows(self) -> None:
        """Do nothing: each datagram begins a flow of its own."""

    def _turn(self, tally: Tally) -> None:
        if self._next == 0 and self._away <= _WINDOW - _BATCH:
            for index in range(self._out.count):
                self._flow += 1
                # 127.64.0.0 to 127.255.255.255: apart from all places of services.
                self._out.source(index, (0x7F400000 + self._flow % 0xBF0000).to_bytes(4, "big"))
        super()._turn(tally)


def sources_on_loopback(flows: int) -> list[str]:
    """A source address for each flow. Loopback has all of 127.0.0.0/8."""
    return [f"127.1.{flow >> 8}.{flow & 255}" for flow in range(flows)]


def echo(place: Place) -> None:
    """Answer until killed."""
    batch = Batch(_BATCH, SIZE)
    batch.keep_peers()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
        sock.bind(place)
        while True:
            count, first = batch.receive(sock.fileno(), MSG_WAITFORONE), 0
            while first < count:
                first += batch.send(sock.fileno(), first, count - first) or 1


if __name__ == "__main__":
    echo(Place(sys.argv[1], int(sys.argv[2])))
