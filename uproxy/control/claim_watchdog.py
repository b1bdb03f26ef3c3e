"""Asks the API server for a sign of life after addresses were claimed: a claim may have cut it off.

That happens when a Service has the address of the server, or of a router on the way: this node then
takes the address for its own. A Kubernetes watch does not show it: it then receives nothing, just
as it does while nothing changes. So the claims that came before are released, and tried again
later.
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
"""Seconds between two requests to the server, of which each claim gets at least three."""


class ApiServer(Protocol):
    """What the watchdog has to know of the API server."""

    @property
    def reachable(self) -> bool:
        """Whether the latest requests to it succeeded."""

    async def answers(self) -> bool:
        """Send it a request; returns whether there was an answer."""


class ClaimWatchdog:
    """Finds the claims after which the API server was lost, and holds those addresses back.

    `changed` is called when `held_back` has changed. Without a cluster there is nothing to lose.
    """

    def __init__(
        self,
        api_server: ApiServer | None,
        changed: Callable[[], None],
        *,
        interval: float = _INTERVAL,
        suspects: SuspectClaims | None = None,
    ) -> None:
        self._api_server = api_server
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
        if not addresses or self._api_server is None:
            return
        if self._api_server.reachable:
            self._suspects.claimed(addresses, time.monotonic())
        else:
            self._suspects.claimed_while_unreachable(addresses, time.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wait_until_due()
            asked = time.monotonic()
            if self._suspects.has_recent_claims(asked) and not await self._server_answers():
                self._suspect(asked)
            if self._api_server is not None and self._api_server.reachable:
                self._suspects.server_answered()
            if self._suspects.update(time.monotonic()):
                self._changed()

    async def _wait_until_due(self) -> None:
        now, due = time.monotonic(), self._suspects.next_due()
        if self._suspects.has_recent_claims(now) or self._suspects.has_untested_claims:
            await asyncio.sleep(self._interval)
            return
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                await self._wake.wait()

    async def _server_answers(self) -> bool:
        if self._api_server is None or not self._api_server.reachable:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                return await self._api_server.answers()
        return False

    def _suspect(self, asked: float) -> None:
        suspects = sorted(self._suspects.server_lost(asked))
        if suspects:
            log.warning(
                "the API server stopped answering right after %s claimed; released for now, to be "
                "claimed again later",
                f"{suspects[0]} was"
                if len(suspects) == 1
                else f"{len(suspects)} addresses ({suspects[0]}, ...) were",
            )
            self._changed()
