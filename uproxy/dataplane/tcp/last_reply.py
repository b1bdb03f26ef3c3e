"""What a socket had sent before it failed.

A server that rejects a request may reply and close without reading the rest of it, as nginx does
with a body that is too large. Its kernel then answers what is still sent to it by RST, and the
proxy's send fails, while the reply may still lie in the proxy's receive queue. The client should
see the reply before the reset (tests/dataplane/tcp/test_conformance.py).
"""

from __future__ import annotations

from _socket import socket as Socket
from contextlib import suppress
from typing import Final, Protocol

from uproxy.dataplane.tcp.epoll_events import RECV_FLAGS, SEND_FLAGS
from uproxy.dataplane.tcp.shared_buffers import SharedBuffers

READS: Final = 4
"""At most, as what comes last is short, and the other flows wait."""


class Replying(Protocol):
    """The direction from the socket that has failed."""

    total: int
    held: memoryview | None
    shared: SharedBuffers
    sock: Socket
    target: Socket
    """The socket of the peer."""

    @property
    def pending(self) -> int: ...


def pass_on_last_reply(direction: Replying) -> None:
    """Deliver what can be delivered at once. The flow is about to be reset."""
    shared = direction.shared
    with suppress(OSError):
        if direction.held is not None:
            sent = direction.target.send(direction.held, SEND_FLAGS)
            direction.held = direction.held[sent:] or None
        for _ in range(READS):
            # What is read here must not overtake what waits, in `held` or in a pipe.
            if direction.pending:
                return
            count = direction.sock.recv_into(shared.buffer, 0, RECV_FLAGS)
            if not count:
                return
            sent = direction.target.send(shared.view[:count], SEND_FLAGS)
            # Not `count`: the rest is lost, as the flow ends here, and would count as delivered.
            direction.total += sent
            if sent < count:
                return
