"""Service ports whose replies to pods' addresses have not come back, as workers report them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from uproxy.core.route import ServicePortName

log = logging.getLogger(__name__)

_KEEP: Final = 3600.0
"""Seconds after which clients' addresses are tried again: what swallowed the replies may be
gone, and trying it costs few flows a delay."""


class AstrayPorts:
    """Remembers them until something has changed, or for an hour."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when `ports` has changed."""
        self._changed = changed
        self._until: dict[ServicePortName, float] = {}

    @property
    def ports(self) -> frozenset[ServicePortName]:
        return frozenset(self._until)

    def reported(self, ports: Iterable[ServicePortName], now: float) -> None:
        """A worker has found these."""
        new = set(ports) - self._until.keys()
        for port in sorted(new):
            log.warning(
                "%s: replies to the address of the calling pod do not come back; pods see this "
                "node's address for an hour",
                port,
            )
            self._until[port] = now + _KEEP
        if new:
            self._changed()

    def lift(self) -> None:
        """What replies depend on has changed, so all of them may be well."""
        if self._until:
            self._until.clear()
            self._changed()

    def expire(self, now: float) -> None:
        """Lift those that have been here for an hour."""
        due = [port for port, until in self._until.items() if until <= now]
        for port in due:
            del self._until[port]
        if due:
            self._changed()
