"""What all listeners of one worker share."""

from __future__ import annotations

import asyncio
import sys
from _socket import socket as Socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import islice

from uproxy.core.flows.affinity import fair_share
from uproxy.core.flows.balancer import Balancer
from uproxy.core.flows.capacity import Capacity
from uproxy.core.flows.counters import Counters
from uproxy.core.ip import Family, family_of, parse_network
from uproxy.core.networks import Networks
from uproxy.core.route import Backend, Route, ServicePortName
from uproxy.dataplane.reactor import Reactor
from uproxy.net.messages import LocalClients, Settings

PINS = 262_144
"""Clients that all ports with session affinity remember, about 80 MiB. Each one remembers 65,536 at
the most, but an attacker may go for all of them."""

RESUMED = 8
"""Listeners that look for clients when a flow has ended. All of them would be thousands, to find
that one was faster."""

PAUSE = 0.1
"""Seconds until the next ones do, should they have found nobody."""

FORGOTTEN = 50_000
"""Clients that are forgotten in one go: about 10 ms of work."""


class Port:
    """State of one ServicePortName, shared by its frontends: pins and cursor follow the client
    from ClusterIP to NodePort, as kube-proxy's affinity does."""

    __slots__ = ("balancer", "counters")

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.counters = Counters()


class Context:
    """Owned by the worker; the only mutable state that flows of different frontends share."""

    def __init__(
        self,
        reactor: Reactor,
        settings: Settings,
        random: Callable[[], float],
        descriptors: int = sys.maxsize,
    ) -> None:
        """`descriptors`: as many as this process may have open."""
        self.reactor = reactor
        self.settings = settings
        self.capacity = Capacity(settings.max_flows, descriptors)
        self.on_room: dict[Callable[[], None], None] = {}
        """Called once, then forgotten, when TCP has room again, in turn: listeners resume."""
        self.on_need: list[Callable[[], None]] = []
        """Called whenever TCP has no room: UDP gives back what is more than its share."""
        self._look: asyncio.TimerHandle | None = None
        self._random = random
        self._ports: dict[ServicePortName, Port] = {}
        self._remembering: set[ServicePortName] = set()
        """Ports that may remember clients."""
        self._local_addresses: frozenset[str] = frozenset()
        self._local_networks = Networks(())
        self._preserved: tuple[Family, ...] = ()

    @property
    def active(self) -> int:
        """Flows alive in this worker."""
        return self.capacity.tcp + self.capacity.udp

    def port(self, name: ServicePortName) -> Port:
        """The shared state of a ServicePortName, created at first sight."""
        found = self._ports.get(name)
        if found is None:
            # Workers start their rotation apart, so that few connections spread well too.
            offset = self.settings.worker / max(1, self.settings.workers)
            found = self._ports[name] = Port(Balancer(offset=offset, random=self._random))
        return found

    def forget(self, names: set[ServicePortName]) -> None:
        """Drop the state of ports that no frontend has any more."""
        for name in names:
            self._ports.pop(name, None)

    def forget_clients(self, busy: Iterable[ServicePortName]) -> None:
        """Hold the limit of clients that are remembered; `busy`: ports that had any lately. Those
        of the ports that have most are forgotten, and come back to where their hash leads them."""
        for name in [*self._remembering, *busy]:
            if name in self._ports and self._ports[name].balancer.pins:
                self._remembering.add(name)
            else:
                self._remembering.discard(name)
        holders = [self._ports[each].balancer for each in self._remembering]
        share = fair_share([each.pins for each in holders], PINS)
        left = FORGOTTEN
        for each in holders:
            left -= each.forget_clients(share, at_most=left)

    def ports(self) -> dict[ServicePortName, Port]:
        return self._ports

    def flow_began(self) -> None:
        """Of TCP."""
        self.capacity.tcp += 1

    def flow_ended(self) -> None:
        """Of TCP."""
        self.capacity.tcp -= 1
        if self.on_room:
            self.resume_if_room()

    def resume_if_room(self) -> None:
        """A flow of either protocol has ended."""
        if self.on_room and self.capacity.tcp_room(self.reactor.now) > 0:
            for resume in list(islice(self.on_room, RESUMED)):
                del self.on_room[resume]
                resume()

    def wait_for_room(self, resume: Callable[[], None]) -> None:
        """TCP has none: call once when there may be some."""
        self.on_room[resume] = None
        self.ask_for_room()
        if self._look is None:
            self._look = self.reactor.later(PAUSE, self._look_again)

    def ask_for_room(self) -> None:
        """TCP clients have to wait."""
        for give_back in self.on_need:
            give_back()

    def stop_waiting(self) -> None:
        """Nobody is called any more."""
        self.on_room.clear()
        if self._look is not None:
            self._look.cancel()

    def _look_again(self) -> None:
        """Listeners that were resumed may have no clients left, and limits may have changed."""
        self._look = None
        self.resume_if_room()
        if self.on_room:
            self._look = self.reactor.later(PAUSE, self._look_again)

    def ran_out(self) -> None:
        """A descriptor, or memory for one, could not be had."""
        self.capacity.ran_out(self.reactor.now)

    def set_local_clients(self, clients: LocalClients) -> bool:
        """Whether listeners have to be given their routes again."""
        before, self._preserved = self._preserved, clients.preserved
        self._local_addresses = frozenset(clients.addresses)
        self._local_networks = _parse_networks(clients.networks)
        return before != self._preserved

    def is_local(self, client: str) -> bool:
        """Whether an address is this node's or a pod's: those bypass policy Local."""
        if self.is_here(client):
            return True
        return bool(self._local_networks) and client in self._local_networks

    def is_here(self, address: str) -> bool:
        """Whether an address is this node's own."""
        return address in self._local_addresses or address.startswith("127.") or address == "::1"

    def is_itself(self, sock: Socket, backend: Backend) -> bool:
        """Whether a socket that was connected to a backend has met itself.

        Where nobody listens on this node, and the kernel happens to choose the backend's port for
        us, both ends are one (RFC 9293, 3.5: simultaneous open). It would send back what it is
        sent, and keep the port from a server that starts to listen there.
        """
        return self.is_here(backend.address) and sock.getsockname()[:2] == backend

    def is_outside(self, route: Route, client: str) -> bool:
        """Whether a client gets local backends only (externalTrafficPolicy Local).

        What this node itself sends to an address that it has claimed comes from that address.
        """
        if route.local_backends is None or client == route.frontend.address:
            return False
        return not self.is_local(client)

    def backends_for(self, route: Route, client: str) -> tuple[Backend, ...]:
        """The set that a client may reach through a route (externalTrafficPolicy)."""
        local = route.local_backends
        return route.backends if local is None or not self.is_outside(route, client) else local

    def preserves(self, route: Route) -> bool:
        """Whether backends see the address of clients that are outside."""
        family = family_of(route.frontend.address)
        return route.local_backends is not None and family in self._preserved


def allowed_sources(route: Route) -> Networks | None:
    """Who is let in by loadBalancerSourceRanges, which are per family (kube-proxy); None: all."""
    return None if route.allowed_sources is None else _parse_networks(route.allowed_sources)


@lru_cache(maxsize=1024)
def _parse_networks(texts: tuple[str, ...]) -> Networks:
    return Networks(each for each in map(parse_network, texts) if each is not None)
