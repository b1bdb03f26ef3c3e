"""What a worker keeps for each port of a Service: its balancer and its counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from uproxy.core.flows.affinity import fair_share
from uproxy.core.flows.balancer import Balancer
from uproxy.core.flows.counters import Counters
from uproxy.core.route import ServicePortName
from uproxy.dataplane.handshakes import Handshakes

PINS: Final = 262_144
"""Clients that all ports with session affinity remember, about 80 MiB. Each one remembers 65,536 at
the most, but an attacker may choose to fill all of them."""

FORGOTTEN: Final = 50_000
"""Clients that are forgotten in one go: about 10 ms of work."""


class Port:
    """State of one ServicePortName, shared by its frontends: pins and cursor follow the client
    from ClusterIP to NodePort, as kube-proxy's affinity does."""

    __slots__ = ("balancer", "counters", "handshakes", "name")

    def __init__(self, name: ServicePortName, balancer: Balancer) -> None:
        self.name = name
        self.balancer = balancer
        self.counters = Counters()
        self.handshakes = Handshakes()
        """TCP only."""


class Ports:
    """The ports of all Services that a worker serves, or has flows of."""

    def __init__(
        self,
        random: Callable[[], float],
        *,
        offset: float = 0.0,
        pins: int = PINS,
        at_most: int = FORGOTTEN,
    ) -> None:
        """`offset` is where in its rotation each balancer begins, from 0 to 1: workers begin at
        different places, so that even a few connections spread well. `pins` and `at_most`: see
        PINS and FORGOTTEN."""
        self._random = random
        self._offset = offset
        self._pins = pins
        self._at_most = at_most
        self._ports: dict[ServicePortName, Port] = {}
        self._with_clients: set[ServicePortName] = set()
        """Ports that may remember clients."""

    @property
    def all(self) -> Mapping[ServicePortName, Port]:
        """A view, as of now and later."""
        return MappingProxyType(self._ports)

    def get(self, name: ServicePortName) -> Port:
        """The state of a port, which begins when it is first asked for."""
        found = self._ports.get(name)
        if found is None:
            balancer = Balancer(offset=self._offset, random=self._random)
            found = self._ports[name] = Port(name, balancer)
        return found

    def forget(self, names: set[ServicePortName]) -> None:
        """Drop the state of ports that no frontend has any more."""
        for name in names:
            self._ports.pop(name, None)

    def forget_clients(self, busy: Iterable[ServicePortName], now: float) -> None:
        """Keep to the limit of clients that are remembered. `busy` are ports that may have got new
        ones. Clients whose pins have expired are forgotten first, then those of the ports that
        remember most. If they come back, a balancer sends them to where their hash leads."""
        for name in [*self._with_clients, *busy]:
            if name in self._ports and self._ports[name].balancer.pins:
                self._with_clients.add(name)
            else:
                self._with_clients.discard(name)
        balancers = [self._ports[each].balancer for each in self._with_clients]
        sizes = [each.pins for each in balancers]
        excess = sum(sizes) - self._pins
        if excess <= 0:
            return
        left = self._at_most
        for each in balancers:
            forgotten = each.forget_expired(now, at_most=min(excess, left))
            excess -= forgotten
            left -= forgotten
        if excess > 0:
            share = fair_share([each.pins for each in balancers], self._pins)
            for each in balancers:
                left -= each.forget_clients(share, at_most=left)
