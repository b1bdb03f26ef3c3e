"""UDP loops: backends that lead back to a frontend of uproxy (tcp/loops.py is about TCP).

Each time a datagram comes back it begins another flow, from another port, and nothing ends that:
one datagram would go round for ever. So the socket of every 64th flow to a backend on this node is
a bait: a client that has the same address and port is uproxy itself. A loop through other nodes,
or one that comes back with another address, is not found. It takes no more than the room of new
flows (docs/decisions/0010-what-goes-round.md).

Two frontends must not take each other for clients, either. An attacker could start that by sending
a datagram to one of them with the address of the other as its source. If both backends answer
everything, as two echo servers do, nothing would end it.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from uproxy.core.route import Backend
from uproxy.dataplane.context import Context

EVERY: Final = 64
"""Flows from one bait to the next: getsockname() takes 1 us, and a new flow 50."""

PROOF: Final = 3
"""Baits of one backend that have to come back before it counts as a loop. One may do so by chance:
a pod that is masqueraded behind this node's address may have the same port."""

_PATIENCE: Final = 10.0
"""Seconds in which they have to come back."""

_NONE: Final = -1

_AVOIDED: Final = 60.0
"""Seconds for which nothing is sent to a backend that leads back. Then it is tried again, since the
address may belong to another machine by now."""

logger = logging.getLogger(__name__)


class BaitFlow(Protocol):
    """What is needed of a flow here."""

    backend: Backend
    number: int

    def source(self) -> tuple[str, int]:
        """Address and port of its socket towards the backend."""


class LoopDetector:
    """Finds the backends of a worker that lead back to it."""

    def __init__(self, context: Context) -> None:
        self.port = _NONE
        """The port of the bait. Listeners compare it with that of a new client before they call
        anything."""
        self.bait = 0
        """The number of the flow whose socket is the bait."""
        self.next_bait = 0
        """The first flow with this number, or a higher one, is the next bait."""
        self.found: dict[Backend, float] = {}
        """Backends that lead back, and until when they are avoided."""
        self.frontends: dict[int, list[str]] = {}
        """Addresses of our frontends, by port."""
        self._context = context
        self._returned: dict[Backend, tuple[int, float]] = {}
        """How many baits of a backend have come back, and until when that counts."""

    def opened(self, address: str, port: int) -> None:
        """A listener serves a frontend from now on."""
        self.frontends.setdefault(port, []).append(address)

    def closed(self, address: str, port: int) -> None:
        """A listener is closed."""
        self.frontends[port].remove(address)
        if not self.frontends[port]:
            del self.frontends[port]

    def is_frontend(self, client: tuple[str, int]) -> bool:
        """Whether a client is one of our frontends."""
        addresses = self.frontends.get(client[1], ())
        wildcard = "::" if ":" in client[0] else "0.0.0.0"
        return client[0] in addresses or (
            wildcard in addresses and self._context.locality.is_here(client[0])
        )

    def set_bait(self, flow: BaitFlow) -> None:
        """Make the socket of a flow the bait, before it sends anything."""
        self.bait = flow.number
        # While a backend is suspected, each flow is the next bait: some of a loop's datagrams reach
        # other workers, which do not know this worker's bait.
        self.next_bait = flow.number + (1 if self._suspects() else EVERY)
        source, backend = flow.source(), flow.backend
        # This machine sends from the very address that it sends to if that is its own, which no
        # interface need have.
        here = source[0] == backend.address or self._context.locality.is_here(backend.address)
        self.port = source[1] if here else _NONE

    def proven_by(self, bait: BaitFlow | None, client: tuple[str, int]) -> Backend | None:
        """The backend that is proven to lead back by a client with the bait's port. `bait` is the
        flow whose socket it is, unless that is over."""
        # Each bait is looked at once, however often what it has sent comes back.
        self.port = _NONE
        if bait is None or bait.source() != client:
            return None
        self.next_bait = 0
        backend, now = bait.backend, self._context.reactor.now
        times = self._suspects().get(backend, (0, now))[0] + 1
        self._returned[backend] = times, now + _PATIENCE
        if times < PROOF:
            return None
        logger.warning(
            "backend %s leads back to uproxy itself; sending it no datagrams for %g s",
            backend,
            _AVOIDED,
        )
        self._returned.clear()
        self.found[backend] = now + _AVOIDED
        return backend

    def _suspects(self) -> dict[Backend, tuple[int, float]]:
        """Backends of which a bait has come back within _PATIENCE seconds."""
        if self._returned:
            now = self._context.reactor.now
            self._returned = {each: seen for each, seen in self._returned.items() if now < seen[1]}
        return self._returned

    def avoided(self) -> list[Backend]:
        """The backends that nothing is sent to for now."""
        now = self._context.reactor.now
        self.found = {each: end for each, end in self.found.items() if now < end}
        return list(self.found)
