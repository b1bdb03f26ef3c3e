"""Which pod a backend is, or was: the addresses of pods that have gone are given to others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Object, ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.ip import parse_ip
from uproxy.core.route import Backend

_FORMER: Final = 10_000
"""Backends whose former pods are remembered, about 4 MB: those that went last."""
_PODS: Final = 4
"""Former pods of one backend."""
_SERVICES: Final = 1_000
"""Services whose present pods are indexed: those that were asked about last."""


class Place(NamedTuple):
    """Where a backend runs."""

    pod: str = ""
    """"": it is no pod, or it is not known which one."""
    node: str = ""


class _Former(NamedTuple):
    until: float
    """Unix time at which it ceased to be an endpoint."""
    place: Place


NOWHERE: Final = Place()


class PodHistory:
    """Follows the endpoints of a ClusterState. A change costs as much as the slice is long."""

    def __init__(self, state: ClusterState, clock: Callable[[], float]) -> None:
        """`clock`: Unix time."""
        self._state = state
        self._clock = clock
        self._slices: dict[ObjectName, EndpointSlice] = {}
        """As they were before the next change."""
        self._present: OrderedDict[ObjectName, dict[Backend, Place]] = OrderedDict()
        self._former: OrderedDict[tuple[ObjectName, Backend], tuple[_Former, ...]] = OrderedDict()
        state.observe(self._changed)

    def at(self, service: ObjectName, backend: Backend, wall: float) -> Place:
        """Where a backend of a Service ran at a Unix time, of which all later ones are known."""
        for former in self._former.get((service, backend), ()):
            if wall <= former.until:
                return former.place
        return self._places(service).get(backend, NOWHERE)

    def _places(self, service: ObjectName) -> dict[Backend, Place]:
        found = self._present.get(service)
        if found is None:
            found = self._present[service] = _by_backend(self._state.slices_of(service))
            if len(self._present) > _SERVICES:
                self._present.popitem(last=False)
        else:
            self._present.move_to_end(service)
        return found

    def _changed(self, kind: type[Object], name: ObjectName) -> None:
        if kind is Endpoints:
            self._present.pop(name, None)
        elif kind is EndpointSlice:
            before, after = self._slices.pop(name, None), self._state.endpoint_slice(name)
            if after is not None:
                self._slices[name] = after
            for each in (before, after):
                if each is not None and each.service is not None:
                    self._present.pop(each.service, None)
            if before is not None and before.service is not None:
                self._remember(before.service, before, after)

    def _remember(
        self, service: ObjectName, before: EndpointSlice, after: EndpointSlice | None
    ) -> None:
        still = _by_backend([after]) if after is not None else {}
        now = self._clock()
        for backend, place in _by_backend([before]).items():
            if still.get(backend) != place:
                key = service, backend
                former = (*self._former.pop(key, ()), _Former(now, place))
                self._former[key] = former[-_PODS:]
        while len(self._former) > _FORMER:
            self._former.popitem(last=False)


def _by_backend(slices: Iterable[EndpointSlice]) -> dict[Backend, Place]:
    """A pod that does not terminate comes before one that does: on the network of a host, both may
    have the same address."""
    found: dict[Backend, Place] = {}
    ending: dict[Backend, Place] = {}
    for of in slices:
        for endpoint in of.endpoints or ():
            # kube-proxy uses the first address only.
            address = parse_ip(endpoint.addresses[0]) if endpoint.addresses else None
            if address is None:
                continue
            place = Place(endpoint.pod, endpoint.node_name or "")
            places = ending if endpoint.conditions.terminating else found
            for port in of.ports or ():
                if port.port:
                    places[Backend(address, port.port)] = place
    return ending | found
