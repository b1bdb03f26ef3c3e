"""The last ACK of the handshake with a backend, which waits for the client's first bytes.

Most clients speak first, and have spoken when the backend answers. Then the ACK goes out together
with the request: a packet less, and the backend is woken once in place of twice. So TCP_QUICKACK is
off when a backend is dialed (tcp(7)); it has to be off before, as Linux decides when the SYN-ACK
arrives whether to acknowledge that at once.

A server that speaks first does not hear of the connection meanwhile, and Linux itself would let it
wait for 200 ms. So the ACK is sent after DELAY. If that happens to a Service port, its next
connections are not delayed: one, then two, then four, up to PAUSE. As long as clients speak in
time, all are. A port whose server speaks first thus has a delay in one of a thousand connections,
and in about ten of the first thousand.

There is one timer for all flows of a worker. (Measured against a decision after three turns of the
ring, for each flow: docs/decisions/0027-short-connections.md.)
"""

from __future__ import annotations

import asyncio
from _socket import IPPROTO_TCP, TCP_QUICKACK
from _socket import socket as Socket
from contextlib import suppress
from typing import Final, Protocol

from uproxy.dataplane.ports import Port
from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.tcp.mover import Mover

DELAY: Final = 0.01
"""Seconds for which the ACK waits; twice that at most."""

PAUSE: Final = 1024
"""Connections to a Service port in a row that are not delayed, at most."""


class DelayedFlow(Protocol):
    """A flow that has dialed its backend, and may have got it."""

    port: Port
    sock: Socket | None
    mover: Mover | None
    """Set once the backend has answered."""


class Handshakes:
    """Those of one worker that are delayed."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._timer: asyncio.TimerHandle | None = None
        self._runs = 0
        """Of the timer."""
        self._waiting: dict[DelayedFlow, int] = {}
        """To the number of runs when it was added."""
        self.forget: Final = self._waiting.pop
        """`forget(flow, None)`: the flow is over. It is a builtin, as each flow calls it."""

    def delay(self, flow: DelayedFlow, sock: Socket) -> None:
        """Call it before connect(2). Raises OSError."""
        port = flow.port
        if port.undelayed:
            port.undelayed -= 1
            return
        sock.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)
        self._waiting[flow] = self._runs
        if self._timer is None:
            self._timer = self._reactor.call_later(DELAY, self._expire)

    def close(self) -> None:
        """Send none any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()

    def _expire(self) -> None:
        self._runs += 1
        for flow, added in list(self._waiting.items()):
            mover, port = flow.mover, flow.port
            if mover is not None and mover.from_client.total:
                port.pause = 0
            elif added + 1 < self._runs:
                _acknowledge(flow)
                if mover is not None:
                    port.undelayed = port.pause = min(2 * port.pause or 1, PAUSE)
            else:
                continue
            del self._waiting[flow]
        self._timer = self._reactor.call_later(DELAY, self._expire) if self._waiting else None


def _acknowledge(flow: DelayedFlow) -> None:
    """Send the ACK, or if the backend has not answered yet, have it sent at once then."""
    if flow.sock is not None:
        with suppress(OSError):
            flow.sock.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)
