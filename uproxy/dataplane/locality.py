"""Which addresses belong to this node and its cluster, and what a route allows other clients."""

from __future__ import annotations

from _socket import socket as Socket
from functools import lru_cache

from uproxy.core.ip import Family, family_of, parse_network
from uproxy.core.networks import Networks
from uproxy.core.route import Backend, Route
from uproxy.net.messages import LocalClients


class Locality:
    """The addresses of this node and of the cluster's pods, as the control process knows them."""

    def __init__(self) -> None:
        self._addresses: frozenset[str] = frozenset()
        self._networks = Networks(())
        self._preserved: tuple[Family, ...] = ()

    def update(self, clients: LocalClients) -> bool:
        """Take over what the control process says. Returns whether listeners have to be given
        their routes again, because `preserves` answers differently now."""
        before, self._preserved = self._preserved, clients.preserved
        self._addresses = frozenset(clients.addresses)
        self._networks = _parse_networks(clients.networks)
        return before != self._preserved

    def is_here(self, address: str) -> bool:
        """Whether an address is this node's own."""
        return address in self._addresses or address.startswith("127.") or address == "::1"

    def is_local(self, client: str) -> bool:
        """Whether an address is this node's or a pod's: those bypass externalTrafficPolicy Local,
        as with kube-proxy."""
        if self.is_here(client):
            return True
        return bool(self._networks) and client in self._networks

    def is_outside(self, route: Route, client: str) -> bool:
        """Whether a client gets local backends only (externalTrafficPolicy Local).

        What this node itself sends to an address that it has claimed comes from that address.
        """
        if route.local_backends is None or client == route.frontend.address:
            return False
        return not self.is_local(client)

    def backends_for(self, route: Route, client: str) -> tuple[Backend, ...]:
        """The backends that a client may reach through a route."""
        local = route.local_backends
        return route.backends if local is None or not self.is_outside(route, client) else local

    def preserves(self, route: Route) -> bool:
        """Whether backends see the address of clients that are outside."""
        family = family_of(route.frontend.address)
        return route.preserves_outside and family in self._preserved

    def is_self_connected(self, sock: Socket, backend: Backend) -> bool:
        """Whether a socket that was connected to a backend on this node is connected to itself.

        If nothing listens on the backend's port, and the kernel happens to choose that very port
        for us, both ends are one (RFC 9293, 3.5: simultaneous open). The socket would get back what
        it sends, and keep the port from a server that starts to listen there.
        """
        return self.is_here(backend.address) and sock.getsockname()[:2] == backend


def allowed_sources(route: Route) -> Networks | None:
    """Which clients loadBalancerSourceRanges lets in; None: all. The ranges are per family, as with
    kube-proxy."""
    # Called at each change of a route, nearly always with the same ranges: hence the cache.
    return None if route.allowed_sources is None else _parse_networks(route.allowed_sources)


@lru_cache(maxsize=1024)
def _parse_networks(texts: tuple[str, ...]) -> Networks:
    return Networks(each for each in map(parse_network, texts) if each is not None)
