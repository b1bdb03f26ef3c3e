"""Which backend a new flow goes to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set

from uproxy.core.backoff import Backoff
from uproxy.core.flows.affinity import Affinity, digest, rendezvous
from uproxy.core.route import Backend, BalancerKind, Route

SET_ASIDE = Backoff(initial=1.0, maximum=30.0)
"""How long a backend that failed gets no new flows: long enough that a dead pod does not cost
each client a dial, short enough that one lost SYN hardly matters."""

_REMEMBERED = 64
"""Sets of backends whose place in the rotation is kept. A ServicePort has as many as it has
policies, times its frontends, as every message to a worker brings tuples of its own."""

_TOLD = 8
"""Backends that are named where more have failed."""

_ROUND_ROBIN = BalancerKind.ROUND_ROBIN
_RANDOM = BalancerKind.RANDOM


class Balancer:
    """What one worker remembers about the backends of one ServicePortName.

    `offset`, in [0, 1), is where in the rotation to start: workers that all began with the first
    backend would give it most of a trickle of connections. `random` is uniform in [0, 1).
    """

    __slots__ = ("_affinity", "_aside", "_aside_until", "_flows", "_known", "_last", "_offset",
                 "_random", "_rotations")  # fmt: skip

    def __init__(self, *, offset: float = 0.0, random: Callable[[], float]) -> None:
        self._offset = offset
        self._random = random
        self._rotations: dict[int, _Rotation] = {}
        """By id() of the tuple: hashing a thousand backends for every flow would cost more than
        all the rest. Equal tuples share one."""
        self._known: dict[int, tuple[Backend, ...]] = {}
        """Those tuples: while they are here, no other object gets their id()."""
        self._last: _Rotation | None = None
        self._flows: dict[Backend, int] = {}
        self._aside: dict[Backend, tuple[int, float]] = {}
        """Failures in a row, and until when that keeps a backend from new flows."""
        self._aside_until = float("-inf")
        """When the last of them is over."""
        self._affinity = Affinity()

    def pick(
        self,
        route: Route,
        backends: tuple[Backend, ...],
        client: str,
        now: float,
        tried: Sequence[Backend] = (),
    ) -> Backend | None:
        """The backend for a new flow, or for its next attempt after `tried`.

        `backends` is the set that this client (an IP address) may use. Backends that were set
        aside are picked only when there are no others. None if all were tried, or there are none.
        """
        if not backends:
            return None
        rotation = self._rotations.get(id(backends))
        if rotation is None:
            rotation = self._enter(backends)
        self._last = rotation
        if tried or now < self._aside_until:
            excluded = self._excluded(rotation, now, tried)
            if excluded is None:
                return None
        else:
            excluded = _NOBODY
        if route.affinity_timeout:
            return self._by_client(route, rotation, client, now, excluded)
        if route.balancer is _ROUND_ROBIN:
            return rotation.advance(excluded)
        if route.balancer is _RANDOM:
            return self._by_chance(rotation, excluded)
        return rotation.advance_to_least(self._flows, excluded)

    def failed(self, backend: Backend, now: float) -> None:
        """Set a backend aside, for longer each time. Failures while it is aside do not add up:
        they are of flows that had started before."""
        failures, until = self._aside.get(backend, (0, now))
        if now < until:
            return
        until = now + SET_ASIDE.delay(failures + 1)
        self._aside[backend] = (failures + 1, until)
        self._aside_until = max(self._aside_until, until)

    def failing(self) -> tuple[Backend, ...]:
        """Some that have failed and not answered since."""
        return tuple(self._aside)[-_TOLD:]

    def succeeded(self, route: Route, backend: Backend, client: str, now: float) -> None:
        """A backend answered: it is no longer set aside, and the client stays with it."""
        if backend in self._aside:
            del self._aside[backend]
            ends = (until for _, until in self._aside.values())
            self._aside_until = max(ends, default=float("-inf"))
        self.pin(route, backend, client, now)

    def pin(self, route: Route, backend: Backend, client: str, now: float) -> None:
        """Let the client stay with a backend of which nothing is known yet (UDP has no dial)."""
        if route.affinity_timeout:
            self._affinity.pin(client, backend, now, route.affinity_timeout)
        elif self._affinity:
            self._affinity.clear()

    @property
    def pins(self) -> int:
        """Clients that stay with their backend."""
        return len(self._affinity)

    def forget_clients(self, most: int, *, at_most: int) -> int:
        """See Affinity.trim."""
        return self._affinity.trim(most, at_most=at_most)

    def begin(self, backend: Backend) -> None:
        """A flow to a backend begins."""
        self._flows[backend] = self._flows.get(backend, 0) + 1

    def end(self, backend: Backend) -> None:
        """A flow to a backend is over."""
        left = self._flows.get(backend, 0) - 1
        if left > 0:
            self._flows[backend] = left
        else:
            self._flows.pop(backend, None)

    def retain(self, backends: Set[Backend]) -> None:
        """Forget what concerns backends that have left; one that comes back is another pod.

        Flows are counted until they end. When nothing at all is left, pins stay: that is an
        outage, after which clients should find their sessions (kubernetes#25314).
        """
        for backend in self._aside.keys() - backends:
            del self._aside[backend]
        # Under steady change, old sets would otherwise pile up in every worker.
        for key in [k for k, each in self._rotations.items() if not each.members <= backends]:
            del self._known[key], self._rotations[key]
        if backends:
            self._affinity.retain(backends)

    def _enter(self, backends: tuple[Backend, ...]) -> _Rotation:
        """The rotation over a tuple that was not seen before."""
        rotation = next((r for r in self._rotations.values() if r.backends == backends), None)
        if rotation is None:
            rotation = _Rotation(backends)
            if self._last is None:
                rotation.place = int(self._offset * len(backends))
            else:
                rotation.place = self._last.place_in(rotation)
        if len(self._known) >= _REMEMBERED:
            oldest = next(iter(self._known))
            del self._known[oldest], self._rotations[oldest]
        self._known[id(backends)] = backends
        self._rotations[id(backends)] = rotation
        return rotation

    def _excluded(
        self, rotation: _Rotation, now: float, tried: Sequence[Backend]
    ) -> Collection[Backend] | None:
        """Whom not to pick: all that was tried and, unless nobody else is left, what was set
        aside. None if everything was tried."""
        aside = {backend for backend, (_, until) in self._aside.items() if now < until}
        aside.update(tried)
        if not rotation.members <= aside:
            return aside
        return None if rotation.members.issubset(tried) else tried

    def _by_client(
        self,
        route: Route,
        rotation: _Rotation,
        client: str,
        now: float,
        excluded: Collection[Backend],
    ) -> Backend | None:
        pinned = self._affinity.find(client, now, route.affinity_timeout)
        if pinned is not None and pinned in rotation.members and pinned not in excluded:
            self._affinity.pin(client, pinned, now, route.affinity_timeout)
            return pinned
        candidates = rotation.digests()
        if excluded:
            candidates = [each for each in candidates if each[1] not in excluded]
        return rendezvous(digest(client), candidates)

    def _by_chance(self, rotation: _Rotation, excluded: Collection[Backend]) -> Backend:
        backends: Sequence[Backend] = rotation.backends
        if excluded:
            backends = [each for each in backends if each not in excluded]
        return backends[int(self._random() * len(backends))]


_NOBODY: frozenset[Backend] = frozenset()


class _Rotation:
    """A set of backends, and whose turn it is."""

    __slots__ = ("_digests", "backends", "members", "place")

    def __init__(self, backends: tuple[Backend, ...]) -> None:
        self.backends = backends
        self.members = frozenset(backends)
        self.place = 0
        """Index of the next backend; the number of backends after the last one."""
        self._digests: list[tuple[int, Backend]] = []

    def advance(self, excluded: Collection[Backend]) -> Backend:
        """The next backend; one at least must not be excluded."""
        while True:
            place = self.place
            if place >= len(self.backends):
                place = 0
            self.place = place + 1
            backend = self.backends[place]
            if not excluded or backend not in excluded:
                return backend

    def advance_to_least(self, flows: dict[Backend, int], excluded: Collection[Backend]) -> Backend:
        """The backend with the fewest flows, the next one of several."""
        place = self.place
        turn = self.backends[place:] + self.backends[:place]
        usable = [each for each in turn if each not in excluded] if excluded else turn
        backend = min(usable, key=lambda each: flows.get(each, 0))
        self.place = self.backends.index(backend) + 1
        return backend

    def place_in(self, other: _Rotation) -> int:
        """Whose turn it is after a change: the first that is still there, beginning with whose
        turn it was; or the same share of the way, if nobody is."""
        place = self.place
        for backend in self.backends[place:] + self.backends[:place]:
            if backend in other.members:
                return other.backends.index(backend)
        return place * len(other.backends) // len(self.backends)

    def digests(self) -> list[tuple[int, Backend]]:
        """What the rendezvous hash needs."""
        if not self._digests:
            self._digests = [(digest(str(backend)), backend) for backend in self.backends]
        return self._digests
