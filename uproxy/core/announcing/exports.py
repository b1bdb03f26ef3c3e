"""Which addresses this node exports as routes, for routers that spread clients over all nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from uproxy.core.route import Announced, Frontend, Route

NO_ENDPOINT: Final = "no endpoint is ready"
NO_LOCAL_ENDPOINT: Final = "no endpoint on this node is ready (externalTrafficPolicy Local)"
NOT_OPEN: Final = "its listeners are not open"


def exports(
    routes: Iterable[Route], is_open: Callable[[Frontend], bool], refusal: str = ""
) -> Mapping[str, str]:
    """Every address that is announced by routes, with the reason why this node does not export it;
    "" if it does.

    It does if it can serve a client from outside at one port at least, which need not be so for
    clients on this node. `refusal` is why this node exports nothing at all; "" if it may.
    """
    reasons: dict[str, str] = {}
    for route in routes:
        if route.announced is not Announced.ROUTES:
            continue
        address = route.frontend.address
        if reasons.get(address) != "":
            reasons[address] = refusal or _unserved(route) or _closed(route, is_open)
    return reasons


def _unserved(route: Route) -> str:
    """Why clients from outside cannot be served; "" if they can."""
    if route.local_backends is not None:
        return "" if route.local_backends else NO_LOCAL_ENDPOINT
    return "" if route.backends else NO_ENDPOINT


def _closed(route: Route, is_open: Callable[[Frontend], bool]) -> str:
    return "" if is_open(route.frontend) else NOT_OPEN
