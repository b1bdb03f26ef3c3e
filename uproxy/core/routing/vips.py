"""Which addresses have to be claimed: those that a Service has and no interface of this node
has."""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Mapping, Set
from functools import lru_cache

from uproxy.core.route import Frontend, FrontendKind, Route


class Vips:
    """The addresses to claim, each with the frontends that need it.

    They are updated frontend by frontend, since walking 40,000 routes for each change would take
    7 ms.
    """

    def __init__(self) -> None:
        self._frontends: dict[str, set[Frontend]] = {}

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
        changed = set()
        for frontend in frontends:
            route = routes.get(frontend)
            needed = route is not None and needs_claim(route, local_addresses)
            if needed != (frontend in self._frontends.get(frontend.address, ())):
                changed.add(frontend)
                self._set(frontend, needed=needed)
        return changed

    def _set(self, frontend: Frontend, *, needed: bool) -> None:
        if needed:
            self._frontends.setdefault(frontend.address, set()).add(frontend)
            return
        found = self._frontends[frontend.address]
        found.discard(frontend)
        if not found:
            del self._frontends[frontend.address]


def needs_claim(route: Route, local_addresses: Container[str]) -> bool:
    """Whether a frontend's address must be claimed before it can be bound.

    NodePorts are served at addresses that this node has, and the kernel has all of 127.0.0.0/8.
    """
    address = route.frontend.address
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
