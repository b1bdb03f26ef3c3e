"""Whether the API server answers: what is known about it, and what is said in the logs."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)


class ApiReachability:
    """Whether the API server answers, over all resources; logs when that changes."""

    def __init__(self, server: str, wanted: int) -> None:
        self.troubles: dict[str, str] = {}
        """By resource: why it cannot be followed at present."""
        self.last_error = ""
        """The latest trouble, over or not."""
        self._server = server
        self._wanted = wanted
        self._watched: set[str] = set()
        self._was_reachable = False
        """At any time before."""
        self._lost_at: float | None = None
        self._told: dict[str, str] = {}
        """By resource, since all were followed."""

    @property
    def reachable(self) -> bool:
        """Whether every resource is being followed."""
        return len(self._watched) == self._wanted

    @property
    def watching_any(self) -> bool:
        """Whether at least one is."""
        return bool(self._watched)

    def watching(self, resource: str) -> None:
        """A resource is followed (again)."""
        self.troubles.pop(resource, None)
        if resource in self._watched:
            return
        self._watched.add(resource)
        if not self.reachable:
            return
        if self._lost_at is None:
            log.info("following the cluster at %s", self._server)
        else:
            away = time.monotonic() - self._lost_at
            log.info("following the cluster at %s again, after %.1f s", self._server, away)
        self._lost_at, self._was_reachable = None, True
        self._told.clear()

    def failed(self, resource: str, reason: str) -> None:
        """A resource cannot be followed."""
        self._watched.discard(resource)
        self.troubles[resource] = reason
        self.last_error = f"{resource}: {reason}"
        if self._lost_at is None and self._was_reachable:
            self._lost_at = time.monotonic()
        told = reason in self._told.values()
        self._told[resource] = reason
        if not told:
            what = "lost the cluster" if self._was_reachable else "cannot follow the cluster"
            log.warning("%s at %s: %s: %s", what, self._server, resource, reason)


class WatchListSupport:
    """Whether the server streams lists: found out once, for all resources."""

    def __init__(self) -> None:
        self.usable = True

    def refused(self, why: str) -> None:
        if self.usable:
            log.info("the server does not stream lists (%s): they are read in parts", why)
            self.usable = False
