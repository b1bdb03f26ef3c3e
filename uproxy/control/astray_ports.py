"""Whether replies to pods' addresses come back, as workers report it: Service ports of which they
have not, and for each path one witness that they have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from uproxy.core.route import ServicePortName
from uproxy.net.messages import Astray, Witness

log = logging.getLogger(__name__)

_KEEP: Final = 3600.0
"""Seconds after which clients' addresses are tried again: what swallowed the replies may be
gone, and trying it costs few flows a delay."""


class AstrayPorts:
    """Remembers them until something has changed, or for an hour."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when `ports` or `witnesses` has changed."""
        self._changed = changed
        self._until: dict[ServicePortName, float] = {}
        self._paths: dict[ServicePortName, str] = {}
        """On which each of them was found."""
        self._witnesses: dict[str, Witness] = {}
        """By path."""
        self._vouched: dict[str, float] = {}
        """Paths whose first witness has lifted what was found before, and until when none does that
        again."""

    @property
    def ports(self) -> frozenset[ServicePortName]:
        return frozenset(self._until)

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """One for each path that has any. All workers have to know them."""
        return tuple(each for _, each in sorted(self._witnesses.items()))

    def reported(
        self,
        astray: Iterable[Astray],
        now: float,
        *,
        witnesses: Iterable[Witness] = (),
        lost: Iterable[Witness] = (),
    ) -> None:
        """A worker has found these."""
        before = self.ports, self.witnesses
        # The order matters: a path that is broken has lost its witnesses just before its ports are
        # found astray. And what is found without a witness may be the work of a NetworkPolicy.
        for each in lost:
            if self._witnesses.get(each.path) == each:
                del self._witnesses[each.path]
        self._remember(astray, now)
        for witness in witnesses:
            if witness.path not in self._witnesses:
                self._witnesses[witness.path] = witness
                log.info("replies to pods of this node come back on the path %s", witness.path)
                self._vouch(witness.path, now)
        if (self.ports, self.witnesses) != before:
            self._changed()

    def lift(self) -> None:
        """What replies depend on has changed, so all of them may be well."""
        self._vouched.clear()
        self._lift(list(self._until))

    def forget_witnesses(self) -> None:
        """The network has changed, so workers forget theirs, too."""
        if self._witnesses:
            self._witnesses.clear()
            self._changed()

    def expire(self, now: float) -> None:
        """Lift those that have been here for an hour."""
        self._lift([port for port, until in self._until.items() if until <= now])

    def _remember(self, astray: Iterable[Astray], now: float) -> None:
        for port, path in sorted(set(astray)):
            # A worker that has not heard of the witness yet lifts it when it does.
            if port in self._until or path in self._witnesses:
                continue
            log.warning(
                "%s: replies to the address of the calling pod do not come back; backends see this "
                "node's address instead, for an hour at most",
                port,
            )
            self._until[port] = now + _KEEP
            self._paths[port] = path

    def _vouch(self, path: str, now: float) -> None:
        """Only once an hour, or until the network changes: replies of some backends may come back
        on a path, and those of others not."""
        ports = [each for each, of in self._paths.items() if of == path]
        if ports and now >= self._vouched.get(path, now):
            self._vouched[path] = now + _KEEP
            for port in ports:
                del self._until[port], self._paths[port]

    def _lift(self, ports: Collection[ServicePortName]) -> None:
        for port in ports:
            del self._until[port], self._paths[port]
        if ports:
            self._changed()
