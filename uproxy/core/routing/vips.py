"""Which addresses have to be claimed: those that a Service has and no interface of this node
has.

An address that is announced on a link is never claimed, whichever frontends want it: every node
that claimed it would answer ARP for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Mapping, Set
from functools import lru_cache

from uproxy.core.route import Announced, Frontend, FrontendKind, Route


class Vips:
    """The addresses to claim, each with the frontends that need it.

    They are updated frontend by frontend, since walking 40,000 routes for each change would take
    7 ms.
    """

    def __init__(self) -> None:
        self._frontends: dict[str, set[Frontend]] = {}
        self._announced: dict[str, set[Frontend]] = {}
        """The frontends of addresses that are announced on a link. No set is empty."""
        self._held_back: dict[str, set[Frontend]] = {}
        """Other frontends at these addresses, which would need a claim. No set is empty."""

    @property
    def frontends(self) -> Mapping[str, Set[Frontend]]:
        """Frontends by the address to claim. No set is empty."""
        return self._frontends

    def update(
        self,
        frontends: Iterable[Frontend],
        routes: Mapping[Frontend, Route],
        local_addresses: Container[str],
    ) -> set[Frontend]:
        """Decide again about these frontends. Returns those whose need for a claim has changed."""
        changed = set[Frontend]()
        for frontend in frontends:
            route = routes.get(frontend)
            announced = route is not None and route.announced is Announced.L2
            if announced != (frontend in self._announced.get(frontend.address, ())):
                changed |= self._set_announced(frontend, announced=announced)
            found = self._frontends
            if frontend.address in self._announced:
                found = self._held_back
            needed = route is not None and needs_claim(route, local_addresses)
            if needed != (frontend in found.get(frontend.address, ())):
                changed.add(frontend)
                _put(found, frontend, is_in=needed)
        return changed

    def _set_announced(self, frontend: Frontend, *, announced: bool) -> Set[Frontend]:
        """Note whether a frontend is announced. Returns others, of which this changes whether they
        need a claim."""
        address = frontend.address
        before = address in self._announced
        _put(self._announced, frontend, is_in=announced)
        if before == (address in self._announced):
            return frozenset()
        come, gone = self._frontends, self._held_back
        if not before:
            come, gone = gone, come
        moved = gone.pop(address, None)
        if moved:
            come[address] = moved
        return moved or frozenset()


def _put(found: dict[str, set[Frontend]], frontend: Frontend, *, is_in: bool) -> None:
    """Have a frontend in one of these sets, or not. No set stays empty."""
    if is_in:
        found.setdefault(frontend.address, set()).add(frontend)
        return
    frontends = found.get(frontend.address, set())
    frontends.discard(frontend)
    if not frontends:
        found.pop(frontend.address, None)


def needs_claim(route: Route, local_addresses: Container[str]) -> bool:
    """Whether a frontend's address must be claimed before it can be bound.

    NodePorts are served at addresses that this node has, and the kernel has all of 127.0.0.0/8.
    `Announced` says when addresses that uproxy has assigned are claimed.
    """
    address = route.frontend.address
    if route.announced is Announced.L2:
        return False
    if route.announced is Announced.ROUTES and not route.usable:
        return False
    return (
        route.kind is not FrontendKind.NODE_PORT
        and address not in local_addresses
        and may_be_claimed(address)
    )


@lru_cache(maxsize=65536)
def may_be_claimed(address: str) -> bool:
    """Whether an address is one that a host may claim: no wildcard, multicast, broadcast, loopback
    or link-local address."""
    parsed = ipaddress.ip_address(address)
    return not (
        parsed.is_unspecified
        or parsed.is_multicast
        or parsed.is_loopback
        or parsed.is_link_local
        or address == "255.255.255.255"
    )
