"""Frontends that a worker was told to serve, and cannot."""

from __future__ import annotations

from uproxy.core.route import Frontend

_LONGEST = 16
"""Reports between two times of asking for the same."""


class Lack:
    """Their sockets got lost on the way; the control process is asked for them, at first with each
    report, then less often."""

    def __init__(self) -> None:
        self._frontends: set[Frontend] = set()
        self._asked: set[Frontend] = set()
        self._pause = 1
        self._wait = 0

    def __bool__(self) -> bool:
        return bool(self._frontends)

    def add(self, frontend: Frontend) -> None:
        self._frontends.add(frontend)

    def discard(self, frontend: Frontend) -> None:
        """It is served, or no longer to be served."""
        self._frontends.discard(frontend)

    def to_ask(self) -> list[Frontend] | None:
        """What to ask for with this report; None if nothing is to be said."""
        self._wait -= 1
        if self._frontends == self._asked:
            if not self._frontends or self._wait > 0:
                return None
            self._pause = min(2 * self._pause, _LONGEST)
        else:
            self._pause = 1
        self._asked = set(self._frontends)
        self._wait = self._pause
        return sorted(self._frontends)
