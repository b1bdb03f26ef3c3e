"""To which backend a new flow goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set

from uproxy.core.flows.affinity import Affinity, digest, rendezvous
from uproxy.core.flows.backend_counts import BackendCounts, BackendTally
from uproxy.core.flows.ejection import Ejections
from uproxy.core.route import Backend, BalancerKind, Route

_REMEMBERED = 64
"""Tuples of backends whose rotation is remembered. Every message to a worker brings tuples of its
own, so a service port has one for each of its policies and frontends."""

_ROUND_ROBIN = BalancerKind.ROUND_ROBIN
_RANDOM = BalancerKind.RANDOM


class Balancer:
    """Chooses backends for the flows of one ServicePortName in one worker, and counts what becomes
    of that for each of them.

    `offset`, in [0, 1), is where in the rotation to start. If all workers began with the first
    backend, it would get most of a few connections. `random` is uniform in [0, 1). Times are
    seconds of a monotonic clock.
    """

    __slots__ = ("_affinity", "_ejections", "_known", "_last", "_may_have_pins", "_offset",
                 "_random", "_rotations", "steered", "tallies")  # fmt: skip

    def __init__(self, *, offset: float = 0.0, random: Callable[[], float]) -> None:
        self._offset = offset
        self._random = random
        self._rotations: dict[int, _Rotation] = {}
        """Rotations by the id() of the tuple of backends, since hashing a thousand backends for
        every flow would cost more than everything else. Equal tuples share a rotation."""
        self._known: dict[int, tuple[Backend, ...]] = {}
        """The tuples by id(). While they are kept here, no other object can get the same id()."""
        self._last: _Rotation | None = None
        self.tallies: dict[Backend, BackendTally] = {}
        """Of backends that have flows, or counts that were not reported yet."""
        self._ejections = Ejections()
        self._affinity = Affinity()
        self._may_have_pins = False
        """Whether a client was pinned since `_affinity` was empty."""
        self.steered = True
        """Whether each client always comes to the same worker. If clients come to any worker, all
        of them have to choose alike: by the hash, even after a pin has expired."""

    def pick(
        self,
        route: Route,
        backends: tuple[Backend, ...],
        client: str,
        now: float,
        tried: Sequence[Backend] = (),
    ) -> Backend | None:
        """The backend for a new flow, or for its next attempt after `tried`.

        `backends` is the set that this client (an IP address) may use. A backend that was set
        aside is picked only if there is no other. None if there are no backends, or all were tried.
        """
        if not backends:
            return None
        rotation = self._rotations.get(id(backends))
        if rotation is None:
            rotation = self._enter(backends)
        self._last = rotation
        if tried or now < self._ejections.until:
            excluded = self._excluded(rotation, now, tried)
            if excluded is None:
                return None
        else:
            excluded = _NONE
        if route.affinity_timeout:
            return self._pick_by_client(route, rotation, client, now, excluded)
        if excluded or route.balancer is not _ROUND_ROBIN:
            return self._pick_by_kind(route.balancer, rotation, excluded)
        # Nearly every flow gets here. It is what `advance` does, without the call.
        place = rotation.place
        if place >= len(backends):
            place = 0
        rotation.place = place + 1
        return backends[place]

    def failed(
        self, backend: Backend, backends: tuple[Backend, ...], now: float, error: str
    ) -> None:
        """Note that an attempt has failed, which may set the backend aside. `backends` is the set
        that it was picked from, and `error` the name of the errno."""
        tally = self.tally(backend)
        tally.failed(error, now)
        # Mostly the set that was just picked from, whose members are known.
        rotation = self._rotations.get(id(backends))
        members = frozenset(backends) if rotation is None else rotation.members
        if self._ejections.failed(backend, members, now):
            tally.ejections += 1

    def succeeded(self, route: Route, backend: Backend, client: str, now: float) -> None:
        """Note that a backend has answered. It is no longer set aside, and with session affinity
        the client stays with it."""
        if backend in self._ejections.streaks:
            self._ejections.succeeded(backend)
        if route.affinity_timeout or self._may_have_pins:
            self.pin(route, backend, client, now)

    def pin(self, route: Route, backend: Backend, client: str, now: float) -> None:
        """With session affinity, let the client stay with a backend, even if it has not answered
        yet: UDP has no handshake that would show it."""
        if route.affinity_timeout:
            self._may_have_pins = True
            self._affinity.pin(client, backend, now, route.affinity_timeout)
        elif self._may_have_pins:
            self._may_have_pins = False
            self._affinity.clear()

    @property
    def pins(self) -> int:
        """The number of clients that are remembered, those with an expired pin included."""
        return len(self._affinity)

    def forget_clients(self, most: int, *, at_most: int) -> int:
        """See Affinity.trim."""
        return self._affinity.trim(most, at_most=at_most)

    def forget_expired(self, now: float, *, at_most: int) -> int:
        """See Affinity.trim_expired."""
        return self._affinity.trim_expired(now, at_most=at_most)

    def tally(self, backend: Backend) -> BackendTally:
        """What is counted of a backend."""
        found = self.tallies.get(backend)
        if found is None:
            found = self.tallies[backend] = BackendTally()
        return found

    def begin(self, backend: Backend) -> BackendTally:
        """A flow to a backend begins. When it is over, it takes itself from `active`."""
        tally = self.tallies.get(backend)
        if tally is None:
            tally = self.tallies[backend] = BackendTally()
        tally.active += 1
        return tally

    def take_counts(self, backend: Backend, clock_offset: float) -> BackendCounts | None:
        """What is to be reported of a backend that has a tally, see BackendTally.take. A tally that
        is not needed any more is dropped."""
        tally = self.tallies[backend]
        taken = tally.take(self._ejections.until_of(backend), clock_offset)
        if not tally.active:
            del self.tallies[backend]
        return taken

    def retain(self, backends: Set[Backend]) -> None:
        """Forget all other backends. If an address comes back, it is that of another pod.

        Flows are still counted until they end. If no backend is left at all, pins stay: this is an
        outage, after which clients should find their sessions again (kubernetes#25314).
        """
        for backend in self._ejections.retain(backends):
            self.tally(backend).no_longer_aside()
        # If endpoints change all the time, old sets would otherwise pile up in every worker.
        for key in [k for k, each in self._rotations.items() if not each.members <= backends]:
            del self._known[key], self._rotations[key]
        if backends:
            self._affinity.retain(backends)

    def _enter(self, backends: tuple[Backend, ...]) -> _Rotation:
        """The rotation for a tuple that was not seen before. It goes on where the last rotation
        was, so that a change of endpoints does not start over with the first backend."""
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
        """The backends not to pick: those that were tried and, unless no other is left, those that
        were set aside. None if all were tried."""
        aside = self._ejections.aside(now)
        aside.update(tried)
        if not rotation.members <= aside:
            return aside
        return None if rotation.members.issubset(tried) else tried

    def _pick_by_client(
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
        if pinned is None and self.steered and self._affinity.is_back(client):
            return self._pick_for_returning(route, rotation, client, excluded)
        candidates = rotation.digests()
        if excluded:
            candidates = [each for each in candidates if each[1] not in excluded]
        return rendezvous(digest(client), candidates)

    def _pick_for_returning(
        self, route: Route, rotation: _Rotation, client: str, excluded: Collection[Backend]
    ) -> Backend:
        chosen = self._affinity.choice(client)
        if chosen is None or chosen not in rotation.members or chosen in excluded:
            chosen = self._pick_by_kind(route.balancer, rotation, excluded)
            self._affinity.choose(client, chosen)
        return chosen

    def _pick_by_kind(
        self, kind: BalancerKind, rotation: _Rotation, excluded: Collection[Backend]
    ) -> Backend:
        if kind is _ROUND_ROBIN:
            return rotation.advance(excluded)
        if kind is not _RANDOM:
            return rotation.advance_to_least(self.tallies, excluded)
        backends: Sequence[Backend] = rotation.backends
        if excluded:
            backends = [each for each in backends if each not in excluded]
        return backends[int(self._random() * len(backends))]


_NONE: frozenset[Backend] = frozenset()
_NO_FLOWS = BackendTally()


class _Rotation:
    """A set of backends in their order, and which of them is next."""

    __slots__ = ("_digests", "backends", "members", "place")

    def __init__(self, backends: tuple[Backend, ...]) -> None:
        self.backends = backends
        self.members = frozenset(backends)
        self.place = 0
        """Index of the next backend. After the last backend it is their number."""
        self._digests: list[tuple[int, Backend]] = []

    def advance(self, excluded: Collection[Backend]) -> Backend:
        """The next backend that is not excluded. There must be one."""
        while True:
            place = self.place
            if place >= len(self.backends):
                place = 0
            self.place = place + 1
            backend = self.backends[place]
            if not excluded or backend not in excluded:
                return backend

    def advance_to_least(
        self, tallies: dict[Backend, BackendTally], excluded: Collection[Backend]
    ) -> Backend:
        """The backend with the fewest flows; of several such backends, the next one in order."""
        place = self.place
        order = self.backends[place:] + self.backends[:place]
        usable = [each for each in order if each not in excluded] if excluded else order
        backend = min(usable, key=lambda each: (tallies.get(each) or _NO_FLOWS).active)
        self.place = self.backends.index(backend) + 1
        return backend

    def place_in(self, other: _Rotation) -> int:
        """Where this rotation goes on in another set: at the first of its backends, from the next
        one on, that is in the other set too. If none is, at the same fraction of the way."""
        place = self.place
        for backend in self.backends[place:] + self.backends[:place]:
            if backend in other.members:
                return other.backends.index(backend)
        return place * len(other.backends) // len(self.backends)

    def digests(self) -> list[tuple[int, Backend]]:
        """The backends with their digests, for the rendezvous hash. Computed once."""
        if not self._digests:
            self._digests = [(digest(str(backend)), backend) for backend in self.backends]
        return self._digests
