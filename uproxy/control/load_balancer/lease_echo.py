"""Notices when the watch of Leases brings nothing any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from uproxy.core.announcing.leases import AnnouncerLease

_PATIENCE: Final = 2.0
"""Seconds. An event takes a few milliseconds."""


class LeaseEcho:
    """Waits for what this node has written itself to come back by the watch.

    A watch whose connection was cut off without a word looks just like one of a cluster in which
    nothing changes, and the keepalives of TCP take a minute.
    """

    def __init__(self, node: str, watch_anew: Callable[[], None]) -> None:
        """`watch_anew` begins the watch of Leases again."""
        self._node = node
        self._watch_anew = watch_anew
        self._seen = ""
        self._missing_since: float | None = None

    def wrote(self, version: str, now: float) -> None:
        """The Lease of this node was written, and has this resourceVersion."""
        if version != self._seen and self._missing_since is None:
            self._missing_since = now

    def saw(self, lease: AnnouncerLease) -> None:
        """A Lease has come. The watch may be quicker than the answer to the request."""
        if lease.node == self._node:
            self._seen = lease.version
            self._missing_since = None

    def check(self, now: float) -> None:
        """To be called now and then."""
        if self._missing_since is not None and now - self._missing_since > _PATIENCE:
            self._missing_since = None
            self._watch_anew()
