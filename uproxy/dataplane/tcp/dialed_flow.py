"""What the dialer needs of a flow that waits for a backend."""

from __future__ import annotations

from _socket import socket as Socket
from typing import Protocol

from uproxy.core.flows.backend_counts import BackendTally
from uproxy.core.route import Backend, Route
from uproxy.dataplane.ports import Port
from uproxy.dataplane.tcp.shortage import WaitingFlow


class DialedFlow(WaitingFlow, Protocol):
    """A flow, as far as the dialer is concerned: what to dial for it, and how far that has got."""

    route: Route
    port: Port
    client: str
    """IP address."""
    client_sock: Socket
    backends: tuple[Backend, ...]
    """Those that the client may reach."""
    backend: Backend | None
    """The one that is dialed."""
    dialed: Backend | None
    """The one that was dialed last."""
    answered: float
    """When it has answered, in monotonic seconds."""
    error: int
    """The errno of the last attempt that has failed."""
    tally: BackendTally
    """Of the backend that was dialed last."""
    sock: Socket | None
    """Towards that backend; the flow closes it when it ends."""
    delayed: bool
    """Whether the last ACK of its handshake waits (handshakes.py)."""
    attempt: int
    """Index in TIMEOUTS (dialer.py)."""
    tried: tuple[Backend, ...]
    """Backends not to dial next."""
    refused: tuple[Backend, ...]
    """Backends not to dial again at all."""
    preserving: bool
    """Whether backends are to see the client's address."""
    from_pod: bool
    """Whether the client is a pod of this node, which backends are to see."""
    suspect: Backend | None
    """The backend that is dialed from the node's address although it is to see the client, once
    there is one: it was silent or could not be reached, or could not reply to this node."""

    def connected(self, mask: int) -> None:
        """The first event of the socket towards the backend."""

    def timed_out(self) -> None:
        """The attempt has taken too long."""

    def masquerade(self) -> None:
        """Dial from the node's address from now on, and count it."""
