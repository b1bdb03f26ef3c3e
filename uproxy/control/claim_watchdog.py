"""Watches the API server after addresses were claimed: one of the claims may have cut it off.

A Kubernetes watch does not show that. It receives nothing when this node has taken the server's
address, but it may also receive nothing because nothing changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from uproxy.core.routing.suspect_claims import SuspectClaims

log = logging.getLogger(__name__)

_INTERVAL: Final = 3.0
"""Seconds between two questions, a good three of them for each claim."""


class Cluster(Protocol):
    """What has to be known of the API server."""

    @property
    def reachable(self) -> bool:
        """Whether it was there when it was last heard of."""

    async def answers(self) -> bool:
        """Ask it."""


class ClaimWatchdog:
    """`changed` is called when `held_back` has changed. Without a cluster nothing can be lost."""

    def __init__(
        self,
        cluster: Cluster | None,
        changed: Callable[[], None],
        *,
        interval: float = _INTERVAL,
        suspects: SuspectClaims | None = None,
    ) -> None:
        self._cluster = cluster
        self._changed = changed
        self._interval = interval
        self._suspects = suspects or SuspectClaims()
        self._wake = asyncio.Event()

    @property
    def held_back(self) -> Mapping[str, str]:
        """Addresses that must not be claimed now, as in RoutingOptions."""
        return self._suspects.held_back

    def claimed(self, addresses: Collection[str]) -> None:
        """Addresses have been claimed."""
        if not addresses or self._cluster is None:
            return
        if self._cluster.reachable:
            self._suspects.claimed(addresses, time.monotonic())
        else:
            self._suspects.claimed_while_unreachable(addresses, time.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._rest()
            asked = time.monotonic()
            if self._suspects.has_recent_claims(asked) and not await self._is_there():
                self._suspect(asked)
            if self._cluster is not None and self._cluster.reachable:
                self._suspects.server_answered()
            if self._suspects.update(time.monotonic()):
                self._changed()

    async def _rest(self) -> None:
        now, due = time.monotonic(), self._suspects.next_due()
        if self._suspects.has_recent_claims(now) or self._suspects.has_untested_claims:
            await asyncio.sleep(self._interval)
            return
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                await self._wake.wait()

    async def _is_there(self) -> bool:
        if self._cluster is None or not self._cluster.reachable:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                return await self._cluster.answers()
        return False

    def _suspect(self, asked: float) -> None:
        suspects = sorted(self._suspects.server_lost(asked))
        if suspects:
            log.warning(
                "the API server was lost right after %s; this is undone, and tried again later",
                f"{suspects[0]} was claimed"
                if len(suspects) == 1
                else f"{len(suspects)} addresses were claimed, {suspects[0]} for one",
            )
            self._changed()
