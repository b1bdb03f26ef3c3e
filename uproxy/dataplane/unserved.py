"""Frontends that a worker was told to serve, but cannot serve."""

from __future__ import annotations

from typing import Final

from uproxy.core.route import Frontend

_LONGEST_PAUSE: Final = 16
"""Reports between two requests for the same frontends."""


class UnservedFrontends:
    """Frontends whose `Open` came without its socket, or failed.

    A worker with no free descriptor loses those that are passed to it for good (unix(7):
    MSG_CTRUNC). So it asks the control process to send them again: at first with each report, then
    less often, because whatever is short may stay so.
    """

    def __init__(self) -> None:
        self._frontends: set[Frontend] = set()
        self._requested: set[Frontend] = set()
        """As of the last request."""
        self._pause = 1
        self._wait = 0
        """Reports until the next request for the same."""

    def __bool__(self) -> bool:
        return bool(self._frontends)

    def add(self, frontend: Frontend) -> None:
        """It could not be served."""
        self._frontends.add(frontend)

    def discard(self, frontend: Frontend) -> None:
        """It is served, or no longer to be served."""
        self._frontends.discard(frontend)

    def next_request(self) -> list[Frontend] | None:
        """What to request along with the present report; None: nothing is to be said. An empty list
        says, once, that all are served."""
        self._wait -= 1
        if self._frontends == self._requested:
            if not self._frontends or self._wait > 0:
                return None
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            # Others than before are requested now, and again with the next report
            # (test_it_is_requested_at_once_when_the_unserved_frontends_change).
            self._pause = 1
        self._requested = set(self._frontends)
        self._wait = self._pause
        return sorted(self._frontends)
