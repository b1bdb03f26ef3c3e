"""The loop guard: a backend that is one of our own frontends would make uproxy dial itself.

Such a flow would go round until every descriptor is used up. A frontend is met exactly, or
through a wildcard frontend of the same port if the backend's address belongs to this node.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator

import msgspec

from uproxy.core.ip import family_of
from uproxy.core.nodeports import ANY
from uproxy.core.route import Backend, Frontend, Route

_WILDCARDS = frozenset(ANY.values())


def is_near(routes: Iterable[Route], local_addresses: Container[str]) -> bool:
    """Whether a backend has an address of this node, so that wildcard frontends may be it."""
    return any(
        _is_local(backend.address, local_addresses)
        for backends in _backend_sets(routes)
        for backend in backends
    )


def backend_ports(routes: Iterable[Route]) -> tuple[int, ...]:
    """The ports that backends have, each once: rarely more than a few."""
    backend_sets = _backend_sets(routes)
    return tuple(sorted({backend.port for backends in backend_sets for backend in backends}))


def guarded(route: Route, frontends: Container[Frontend], local_addresses: Container[str]) -> Route:
    """The route without backends that are frontends of ours; itself when there is none."""
    protocol = route.frontend.protocol

    def loops(backend: Backend) -> bool:
        if Frontend(protocol, *backend) in frontends:
            return True
        if not _is_local(backend.address, local_addresses):
            return False
        return Frontend(protocol, ANY[family_of(backend.address)], backend.port) in frontends

    bad = dict.fromkeys(filter(loops, (*route.backends, *(route.local_backends or ()))))
    if not bad:
        return route
    named = ", ".join(str(backend) for backend in bad)
    left_out = f"left out, because it is a frontend of uproxy itself: {named}"
    local = route.local_backends
    return msgspec.structs.replace(
        route,
        backends=_without(route.backends, bad),
        local_backends=None if local is None else _without(local, bad),
        reason="; ".join(filter(None, (route.reason, left_out))),
    )


class Appeared:
    """Frontends that are new: a quick test for routes that may have one as a backend."""

    def __init__(self, frontends: Collection[Frontend]) -> None:
        self._wildcard = any(frontend.address in _WILDCARDS for frontend in frontends)
        self._exact: dict[str, set[tuple[str, int]]] = {"TCP": set(), "UDP": set()}
        for protocol, address, port in frontends:
            self._exact[protocol].add((address, port))
        self._ports = {frontend.port for frontend in frontends}

    def may_concern(self, routes: tuple[Route, ...], *, near: bool, ports: tuple[int, ...]) -> bool:
        """Whether routes of one Service have to be looked at again. `near`, `ports`: what
        `is_near` and `backend_ports` have said of them."""
        if near and self._wildcard:
            return True
        # Nearly always the end of it: Services listen on other ports than their Pods.
        if self._ports.isdisjoint(ports):
            return False
        protocol: str | None = None
        seen: tuple[Backend, ...] | None = None
        # Frontends of one port share their tuples: skipping those halves the time.
        for route in routes:
            for backends in (route.backends, route.local_backends):
                if backends and not (backends is seen and route.frontend.protocol == protocol):
                    protocol, seen = route.frontend.protocol, backends
                    if not self._exact[protocol].isdisjoint(backends):
                        return True
        return False


def _backend_sets(routes: Iterable[Route]) -> Iterator[tuple[Backend, ...]]:
    seen: tuple[Backend, ...] | None = None
    for route in routes:
        for backends in (route.backends, route.local_backends):
            if backends and backends is not seen:
                seen = backends
                yield backends


def _is_local(address: str, local_addresses: Container[str]) -> bool:
    return address in local_addresses or address.startswith("127.") or address == "::1"


def _without(backends: tuple[Backend, ...], bad: Container[Backend]) -> tuple[Backend, ...]:
    return tuple(backend for backend in backends if backend not in bad)
