"""Sockets of UDP flows that have ended, which wait for flows to come.

When a worker has all the flows that it may have, each new flow displaces another one. A third of
its CPU then went into closing a socket, ending its receive, and opening and arming the next one
(docs/decisions/0026-datagrams-in-batches.md). Instead, the socket is disconnected. That takes its
port away, so that nothing more can reach it, and the next flow gets another port when it connects.

A client must never get a reply to a client before it. What has come until a socket is disconnected
is read and dropped here; what the ring has read of it is the business of `IdleSocket.is_quiet`.
After AGE, no processor can be delivering a packet any more for which it had found the socket before
its port was taken away.
"""

from __future__ import annotations

import socket
from _socket import socket as Socket
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

AGE: Final = 0.01
"""Seconds from the end of one flow to the begin of the next one. The kernel finds the socket of a
packet, and puts the packet into its queue, in microseconds, without being interrupted."""

_MOST_READS: Final = 1000
"""The queue of a socket has room for about 250 datagrams."""


class IdleSocket(Protocol):
    """A socket that still receives, for no flow."""

    sock: Socket
    over: bool
    """Whether it has stopped receiving."""

    def leave(self) -> None:
        """Drop what is received from now on."""

    def is_quiet(self) -> bool:
        """Whether nothing of what was received for the flow before is still to be looked at."""

    def stop(self) -> None:
        """Receive no more, and close the socket."""


class IdleSockets:
    """Of one worker. All are closed when its last flow ends."""

    def __init__(self, most: int, disconnect: Callable[[int], bool]) -> None:
        """`disconnect` takes the peer and the port of a socket away, if it can."""
        self._most = most
        self._count = 0
        self._disconnect = disconnect
        self._scrap = bytearray(1)
        self._waiting: dict[int, deque[tuple[float, IdleSocket]]] = {
            socket.AF_INET: deque(),
            socket.AF_INET6: deque(),
        }
        """By family, those that have waited longest first, and since when."""

    def __len__(self) -> int:
        return self._count

    def keep(self, idle: IdleSocket, now: float) -> bool:
        """Keep the socket of a flow that has ended. If it cannot be kept, the caller closes it."""
        sock = idle.sock
        if self._count >= self._most or not self._disconnect(sock.fileno()):
            return False
        # After that, as more could come until then.
        if not self._drop_received(sock):
            return False
        idle.leave()
        self._waiting[sock.family].append((now, idle))
        self._count += 1
        return True

    def take(self, family: int, now: float) -> IdleSocket | None:
        """A socket without peer and port; None if there is none that may be used yet."""
        waiting = self._waiting[family]
        while waiting:
            since, idle = waiting[0]
            if since + AGE > now or not idle.is_quiet():
                return None
            waiting.popleft()
            self._count -= 1
            if not idle.over:
                return idle
            idle.stop()
        return None

    def clear(self) -> bool:
        """Close all of them. Returns whether there were any."""
        found = self._count > 0
        self._count = 0
        for waiting in self._waiting.values():
            while waiting:
                waiting.popleft()[1].stop()
        return found

    def _drop_received(self, sock: Socket) -> bool:
        """Read all that has come, and errors that the kernel has still to report. Returns whether
        nothing is left."""
        for _ in range(_MOST_READS):
            try:
                sock.recv_into(self._scrap)
            except BlockingIOError:
                return True
            except OSError:
                pass  # What was refused to the flow that has ended. Reading the error clears it.
        return False
