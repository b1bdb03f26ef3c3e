"""The addresses that Services need and no interface has, and the claims of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import Final

from uproxy.core.errors import unexpected
from uproxy.core.route import Frontend, FrontendKind, Route
from uproxy.core.routing.reserved import ReservedAddresses
from uproxy.core.routing.table import RoutingTable
from uproxy.core.routing.vips import Vips
from uproxy.host.claims import Claims

log = logging.getLogger(__name__)

_TOO_EARLY: Final = "it is not claimed until all nodes are known, as one of them might have it"


class ServiceAddresses:
    """Knows which addresses the routing table needs to be claimed, and claims and releases them."""

    def __init__(
        self, claims: Claims, on_claimed: Callable[[Collection[str]], None] = lambda _: None
    ) -> None:
        """`on_claimed` is called with the addresses that were claimed, except for ClusterIPs."""
        self._claims = claims
        self._on_claimed = on_claimed
        self._vips = Vips()

    @property
    def held(self) -> Set[str]:
        """The addresses that are claimed; the set changes with them."""
        return self._claims.claimed

    @property
    def needed(self) -> Mapping[str, Set[Frontend]]:
        """By address: the frontends that cannot be opened unless it is claimed."""
        return self._vips.frontends

    @property
    def reason(self) -> str:
        """Why nothing can be claimed; "": addresses can be claimed."""
        return self._claims.reason

    def update(
        self, table: RoutingTable, frontends: Iterable[Frontend], local_addresses: Set[str]
    ) -> set[Frontend]:
        """These frontends have changed; returns those that now need a claim or no longer do."""
        if self._claims.reason:
            return set()
        return self._vips.update(frontends, table.routes, local_addresses)

    async def claim(
        self, addresses: Sequence[str], routes: Mapping[Frontend, Route], *, all_known: bool
    ) -> Mapping[str, str]:
        """Claim addresses; returns those that could not be claimed, with the reason, which
        completes "X is not on this node, and ". `all_known`: all objects are known, and so is which
        addresses other nodes have."""
        others = [each for each in addresses if not self._is_cluster_ip(each, routes)]
        early = {} if all_known else dict.fromkeys(others, _TOO_EARLY)
        failures = await self._claimed([each for each in addresses if each not in early])
        self._on_claimed([each for each in others if each not in early and each not in failures])
        return {**failures, **early}

    async def release(self, addresses: Sequence[str]) -> None:
        try:
            await self._claims.release(addresses)
        except Exception:  # They are still held, so the next plan releases them.
            log.exception("cannot release addresses; retrying")

    async def maintain(self, available: Callable[[], None]) -> None:
        """See Claims."""
        await self._claims.maintain(available)

    async def release_reserved(self, reserved: ReservedAddresses) -> None:
        """Release addresses that an earlier process has claimed although they must not be."""
        await self.release(sorted(each for each in self.held if each in reserved))

    async def release_all(self) -> None:
        await self.release(sorted(self.held))

    async def _claimed(self, addresses: Sequence[str]) -> Mapping[str, str]:
        try:
            return await self._claims.claim(addresses)
        except Exception as error:
            log.exception("cannot claim addresses; retrying")
            return dict.fromkeys(addresses, f"it cannot be claimed: {unexpected(error)}")

    def _is_cluster_ip(self, address: str, routes: Mapping[Frontend, Route]) -> bool:
        frontends = self.needed.get(address, ())
        return any(routes[each].kind is FrontendKind.CLUSTER_IP for each in frontends)
