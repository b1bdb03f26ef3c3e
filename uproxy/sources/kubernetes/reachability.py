"""What is known about the API server from all resources: whether it answers, and what it can do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class ApiReachability:
    """Whether the API server can be reached, that is, whether every resource is being watched. A
    change is logged once, not once for each resource."""

    def __init__(self, server: Callable[[], str], wanted: int, what: str = "the cluster") -> None:
        """`server` returns the URL that is in use at present. `wanted`: the number of resources.
        `what` they are, for the log."""
        self.troubles: dict[str, str] = {}
        """By resource: why it cannot be watched at present."""
        self.last_error = ""
        """The latest trouble, over or not."""
        self._server = server
        self._wanted = wanted
        self._what = what
        self._watched: set[str] = set()
        self._was_reachable = False
        """Whether the server has been reachable at any time before."""
        self._lost_at: float | None = None
        self._logged: dict[str, str] = {}
        """By resource: the reasons that were logged since all of them were watched."""

    @property
    def reachable(self) -> bool:
        """Whether every resource is being watched."""
        return len(self._watched) == self._wanted

    @property
    def watching_any(self) -> bool:
        """Whether at least one resource is being watched."""
        return bool(self._watched)

    def watching(self, resource: str) -> None:
        """A watch of this resource has begun to bring changes."""
        self.troubles.pop(resource, None)
        if resource in self._watched:
            return
        self._watched.add(resource)
        if not self.reachable:
            return
        if self._lost_at is None:
            log.info("watching %s at %s", self._what, self._server())
        else:
            away = time.monotonic() - self._lost_at
            server = self._server()
            log.info("watching %s at %s again, after %.1f s", self._what, server, away)
        self._lost_at, self._was_reachable = None, True
        self._logged.clear()

    def failed(self, resource: str, reason: str) -> None:
        """This resource cannot be watched."""
        self._watched.discard(resource)
        self.troubles[resource] = reason
        self.last_error = f"{resource}: {reason}"
        if self._lost_at is None and self._was_reachable:
            self._lost_at = time.monotonic()
        logged = reason in self._logged.values()
        self._logged[resource] = reason
        if not logged:
            verb = "lost" if self._was_reachable else "cannot watch"
            server = self._server()
            log.warning("%s %s at %s: %s: %s", verb, self._what, server, resource, reason)


class WatchListSupport:
    """Whether the server streams lists (WatchList, KEP-3157). The first refusal decides for all
    resources."""

    def __init__(self) -> None:
        self.usable = True

    def refused(self, why: str) -> None:
        if self.usable:
            log.info("the API server does not stream lists (%s); reading them in pages", why)
            self.usable = False


class OptionalKinds:
    """Kinds that the cluster may lack. They are often installed together, so all of them are asked
    for as soon as one of them is there."""

    def __init__(self) -> None:
        self._installed = asyncio.Event()

    def found(self) -> None:
        """A kind that was missing is there."""
        # A new Event for those that begin to wait from now on; the old one stays set.
        installed, self._installed = self._installed, asyncio.Event()
        installed.set()

    async def wait(self, seconds: float) -> None:
        """Wait for another kind to be found, but no longer than this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._installed.wait()
