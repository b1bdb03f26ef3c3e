"""The transport protocols of Services, and how they differ as far as this program is concerned.

Code asks for the property that it depends on, never for a name: another protocol is then a row in
this table, a socket type (`uproxy.net.listening`) and a listener in the workers.

The API's third protocol, SCTP, is not served: a port that has it gets a reason instead.
"""

from __future__ import annotations

from typing import Final, NamedTuple

TCP: Final = "TCP"
UDP: Final = "UDP"

DEFAULT: Final = TCP
"""What the API means by an empty protocol, of a Service's port and of an EndpointSlice's."""


class Transport(NamedTuple):
    """Properties of one protocol."""

    is_stream: bool
    """Whether bytes arrive in order and without bounds, rather than as datagrams, each of which is
    counted and has a destination of its own."""
    has_handshake: bool
    """Whether connecting to a backend shows that it answers. Without a handshake only a datagram
    from the backend does."""
    has_accept_queue: bool
    """Whether the kernel completes connections before a worker accepts them. They wait in the
    queue of one listening socket and are reset when it closes."""
    keeps_port_while_paused: bool
    """Whether shutdown(2) makes a listener refuse clients, and listen(2) takes them in again.
    Otherwise only closing the socket does, after which another process may take the port."""
    flows_end: bool
    """Whether either end says that a flow is over. Otherwise silence is the only sign, and a flow
    whose backend has gone would last as long as its client goes on sending."""
    may_have_proxy_header: bool
    """Whether a backend may be sent a PROXY header: HAProxy, nginx and Envoy read it from streams
    only."""


TRANSPORTS: Final = {
    TCP: Transport(
        is_stream=True,
        has_handshake=True,
        has_accept_queue=True,
        keeps_port_while_paused=True,
        flows_end=True,
        may_have_proxy_header=True,
    ),
    UDP: Transport(
        is_stream=False,
        has_handshake=False,
        has_accept_queue=False,
        keeps_port_while_paused=False,
        flows_end=False,
        may_have_proxy_header=False,
    ),
}

SERVED: Final = tuple(TRANSPORTS)
