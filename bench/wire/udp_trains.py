"""Datagrams in trains, as QUIC sends them: few flows, many datagrams of one size at a time.

Each flow has a socket. Like implementations of QUIC on Linux, both ends send a train by
one call (UDP_SEGMENT) and receive what has come as one message by one call (UDP_GRO), so that their
own cost is not what is measured, whatever a proxy makes of a train on the way.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Final

from bench.wire.mmsg import MSG_WAITFORONE, Batch
from bench.wire.places import Place
from bench.wire.udp_load import Tally

SIZE: Final = 1250
"""Bytes of a datagram. QUIC fills the path's MTU, and 1,200 are the least that it may fill."""
TRAIN: Final = 16
"""Datagrams that are sent at a time: what congestion control lets go at once."""
_TRAINS: Final = 2
"""Trains of a flow on their way."""
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_ROOM: Final = 65_536
_LOST_AFTER_MS: Final = 200.0
_QUEUE: Final = 4 * 1024 * 1024


class TrainLoad:
    """Sends trains to one place, each source address on a flow of its own, and a train more
    whenever one has come back."""

    def __init__(self, destination: Place, sources: Sequence[str], source_port: int) -> None:
        self._destination = destination
        self._sockets = [_flow(source, source_port) for source in sources]
        self._away = dict.fromkeys((each.fileno() for each in self._sockets), 0)
        """Datagrams of each flow that are on their way."""
        self._by_number = {each.fileno(): each for each in self._sockets}
        self._poll = select.epoll()
        for each in self._sockets:
            self._poll.register(each.fileno(), select.EPOLLIN)
        self._train = bytes(SIZE * TRAIN)
        self._batch = Batch(TRAIN, _ROOM)

    def close(self) -> None:
        self._poll.close()
        for each in self._sockets:
            each.close()

    def begin_flows(self) -> None:
        """Send a train on every flow, untimed."""
        self._send(Tally(), _TRAINS)
        self._drain(Tally())

    def run(self, seconds: float) -> Tally:
        """Send and receive for so long, then wait for what is still on its way."""
        tally = Tally()
        begin = time.monotonic()
        self._send(tally, _TRAINS)
        while time.monotonic() < begin + seconds:
            self._receive(tally)
            self._send(tally, _TRAINS)
        self._drain(tally)
        tally.seconds = time.monotonic() - begin
        return tally

    def _send(self, tally: Tally, trains: int) -> None:
        for number, sock in self._by_number.items():
            while self._away[number] <= (trains - 1) * TRAIN:
                control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", SIZE))]
                sock.sendmsg([self._train], control, 0, self._destination)
                self._away[number] += TRAIN
                tally.sent += TRAIN

    def _drain(self, tally: Tally) -> None:
        while any(self._away.values()):
            self._receive(tally)

    def _receive(self, tally: Tally) -> None:
        """What is there; when nothing comes for long, what is on its way is given up."""
        ready = self._poll.poll(_LOST_AFTER_MS / 1000)
        if not ready:
            self._away = dict.fromkeys(self._away, 0)
        for number, _ in ready:
            count = self._batch.receive(number)
            datagrams = sum(-(-self._batch.received(index) // SIZE) for index in range(count))
            tally.received += datagrams
            self._away[number] = max(0, self._away[number] - datagrams)


def _flow(source: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
    sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    sock.setblocking(False)
    sock.bind((source, port))
    return sock


def echo(place: Place) -> None:
    """Answer until killed."""
    batch = Batch(TRAIN, _ROOM)
    batch.keep_peers()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        sock.bind(place)
        while True:
            count, first = batch.receive(sock.fileno(), MSG_WAITFORONE), 0
            batch.answer_in_segments(count, SIZE)
            while first < count:
                first += batch.send(sock.fileno(), first, count - first) or 1
            batch.restore(count)


if __name__ == "__main__":
    echo(Place(sys.argv[1], int(sys.argv[2])))
