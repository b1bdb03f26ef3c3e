"""Which backends of Services are behind a bridge of this node.

A sync looks only at the Services that have changed, which it recognises by their identity.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Final, NamedTuple

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import Backend
from uproxy.core.routing.service_routes import ServiceRoutes
from uproxy.host.bridge_rules import Diverted, may_divert
from uproxy.host.pod_networks import Segment

MOST: Final = 20_000
"""Backends behind bridges. A node has a few hundred pods; nft takes 0.5 s for so many."""
_MOST_FORMER: Final = 4096
"""Backends that a Service has no longer, but to which it may still have flows."""

_Services = Mapping[ObjectName, ServiceRoutes]
_NO_SERVICES: Final[_Services] = {}


class _Range(NamedTuple):
    """A network as numbers: ten times as fast as `ipaddress` for each of 10,000 backends."""

    domain: socket.AddressFamily
    network: int
    mask: int
    mac: str


class BridgedBackends:
    """The backends behind bridges, of all Services that show backends the addresses of pods."""

    def __init__(self) -> None:
        self._ranges: tuple[_Range, ...] = ()
        self._services: _Services = _NO_SERVICES
        self._of: dict[ObjectName, frozenset[Backend]] = {}
        """The backends of each Service that has some behind a bridge."""
        self._counts: Counter[Backend] = Counter()
        """How many Services have each of them."""
        self._former: dict[tuple[Backend, ObjectName], bool] = {}
        """Backends that have left a Service, the oldest first. Their flows may go on. The value is
        whether `forget` has seen them: flows that began just before are not reported at once."""

    def set_segments(self, segments: Sequence[Segment]) -> None:
        """These are the networks behind bridges from now on."""
        ranges = tuple(_range(each) for each in segments if each.bridge_mac)
        if ranges == self._ranges:
            return
        services, former, self._ranges = self._services, self._former, ranges
        self._services, self._of, self._counts, self._former = _NO_SERVICES, {}, Counter(), {}
        self.update(services)
        for (backend, name), seen in former.items():
            if self._mac(backend) and backend not in self._of.get(name, ()):
                self._former[backend, name] = seen

    def update(self, services: _Services) -> bool:
        """Take over what Services want. Returns whether there are backends that are new."""
        before, self._services = self._services, services
        if services is before or not self._ranges:
            return False
        changed = [name for name, found in services.items() if before.get(name) is not found]
        changed += [name for name in self._of if name not in services]
        return sum(self._put(name, services.get(name)) for name in changed) > 0

    def diverted(self) -> Diverted:
        """All of them, with the address of their bridge; those without a Service come last."""
        former = (backend for backend, _ in self._former)
        found = {each: self._mac(each) for each in (*self._counts, *former)}
        return {each: mac for each, mac in found.items() if mac}

    def forget(self, with_flows: Callable[[], Set[ObjectName]]) -> None:
        """Forget backends that had left their Service before the last call, except of Services
        that have flows."""
        if not self._former:
            return
        having = with_flows()
        kept = [each for each, seen in self._former.items() if not seen or each[1] in having]
        self._former = dict.fromkeys(kept[-_MOST_FORMER:], True)

    def _put(self, name: ObjectName, wanted: ServiceRoutes | None) -> bool:
        before = self._of.pop(name, frozenset())
        now = frozenset(self._backends(wanted)) if wanted is not None else frozenset()
        if now:
            self._of[name] = now
        for each in now - before:
            self._counts[each] += 1
            self._former.pop((each, name), None)
        for each in before - now:
            self._counts[each] -= 1
            if not self._counts[each]:
                del self._counts[each]
            self._former[each, name] = False
        return bool(now - before)

    def _backends(self, wanted: ServiceRoutes) -> Iterator[Backend]:
        """Those that pods of this node may reach. Most routes of a Service share one tuple."""
        tuples = {id(each.backends): each.backends for each in wanted.routes if each.preserves_pods}
        for backends in tuples.values():
            for backend in backends:
                if self._mac(backend) and may_divert(backend):
                    yield backend

    def _mac(self, backend: Backend) -> str:
        """The address of the bridge that a backend is behind; "": it is behind none."""
        address = backend.address
        domain = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            number = int.from_bytes(socket.inet_pton(domain, address), "big")
        except (OSError, ValueError):
            return ""
        for each in self._ranges:
            if each.domain == domain and number & each.mask == each.network:
                return each.mac
        return ""


def _range(segment: Segment) -> _Range:
    network = ipaddress.ip_network(segment.network)
    domain = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return _Range(domain, int(network.network_address), int(network.netmask), segment.bridge_mac)
