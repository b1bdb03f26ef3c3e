"""Which addresses belong to this node and its cluster, and what a route allows other clients."""

from __future__ import annotations

from _socket import socket as Socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from uproxy.core.ip import Family, family_of, parse_network
from uproxy.core.networks import Networks
from uproxy.core.route import Backend, Route
from uproxy.net.messages import LocalClients

_REMEMBERED: Final = 4096
"""Addresses of which it is remembered to which network they belong, at most: 0.5 MiB. Anyone may be
a client."""

_HERE: Final[dict[Family, str]] = {"IPv4": "IPv4 here", "IPv6": "IPv6 here"}
"""The paths to pods of this node that the IP stack forwards."""


class Locality:
    """The addresses of this node and of the cluster's pods, as the control process knows them."""

    def __init__(self) -> None:
        self.lowest_local_port = 0
        """The lowest port that the kernel may choose for a socket. For a backend with a lower one,
        `is_self_connected` need not be asked: its system call takes 2.6 % of a short connection."""
        self._addresses: frozenset[str] = frozenset()
        self._networks = Networks(())
        self._preserved: tuple[Family, ...] = ()
        self._pods = Networks(())
        self._switched: tuple[Networks, ...] = ()
        self._is_pod_here: dict[str, bool] = {}
        """What `is_pod_here` has answered: to parse an address takes 2 us, for each connection."""
        self._hosts = Networks(())
        self._shared: tuple[tuple[str, Networks], ...] = ()
        """The networks of more than one pod of this node, the smallest first."""
        self._network_of: dict[str, str] = {}
        """What `network_of` has answered."""

    def update(self, clients: LocalClients) -> bool:
        """Take over what the control process says. Returns whether listeners have to be given
        their routes again, because `preserves_outside` or `preserves_pods` answers differently
        now."""
        before = self._preserved, bool(self._pods)
        self._preserved = clients.preserved
        self._addresses = frozenset(clients.addresses)
        self._networks = _parse_networks(clients.networks)
        self._pods = _networks(clients.pods)
        self._switched = tuple(_networks((each,)) for each in clients.switched)
        self._is_pod_here.clear()
        self._network_of.clear()
        parsed = [each for each in map(parse_network, clients.pods) if each is not None]
        self._hosts = Networks(each for each in parsed if each.num_addresses == 1)
        shared = [each for each in parsed if each.num_addresses > 1]
        shared.sort(key=lambda network: network.num_addresses)
        self._shared = tuple((str(each), Networks((each,))) for each in shared)
        return before != (self._preserved, bool(self._pods))

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

    def preserves_outside(self, route: Route) -> bool:
        """Whether backends see the addresses of clients that are outside."""
        return route.preserves_outside and family_of(route.frontend.address) in self._preserved

    def preserves_pods(self, route: Route) -> bool:
        """Whether backends see the addresses of pods of this node, if it has any."""
        family = family_of(route.frontend.address)
        return route.preserves_pods and family in self._preserved and bool(self._pods)

    def is_pod_here(self, client: str) -> bool:
        """Whether an address is that of a pod of this node, and not the node's own: its end of a
        bridge has an address among those of the pods."""
        known = self._is_pod_here.get(client)
        if known is None:
            known = client in self._pods and not self.is_here(client)
            if len(self._is_pod_here) >= _REMEMBERED:
                self._is_pod_here.clear()
            self._is_pod_here[client] = known
        return known

    def network_of(self, address: str) -> str:
        """The network of pods of this node that an address belongs to; "" for any other address.
        All pods that have links of their own count as one network."""
        known = self._network_of.get(address)
        if known is None:
            if len(self._network_of) >= _REMEMBERED:
                self._network_of.clear()
            known = self._network_of[address] = self._find_network(address)
        return known

    def path(self, pod: str, backend: str) -> str:
        """The way that replies of a backend take to this node, if they are for a pod of this node.
        Where those of one backend come back, those of all backends on the same path do.

        Between two pods of one network it is that network: its bridge must bring them up. Replies
        of all other pods of this node come to its IP stack anyway, and those of all others arrive
        from other nodes.
        """
        there = self.network_of(backend)
        if not there:
            return family_of(backend)
        return there if there == self.network_of(pod) else _HERE[family_of(backend)]

    def _find_network(self, address: str) -> str:
        if address in self._hosts:
            return _HERE[family_of(address)]
        return next((name for name, networks in self._shared if address in networks), "")

    def is_past_us(self, pod: str, backend: str) -> bool:
        """Whether replies of a backend to a pod's address do not come by this node's sockets: it is
        on this node itself, or its bridge forwards them to the pod."""
        if self.is_here(backend):
            return True
        # Nearly always empty, and a generator would take half of the time of this call.
        if not self._switched:
            return False
        return any(pod in each and backend in each for each in self._switched)

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
    return _networks(texts)


def _networks(texts: Iterable[str]) -> Networks:
    return Networks(each for each in map(parse_network, texts) if each is not None)
