"""Session affinity by client IP address (sessionAffinity: ClientIP).

The first backend of a client is the winner of a rendezvous hash. Every worker, every node and every
later process computes the same winner, without sharing state. From then on a pin keeps the client
at its backend, so that new backends do not take clients away.

As in kube-proxy a client has one pin for each service port, whichever frontend it connects to, and
each new flow extends the pin by spec.sessionAffinityConfig.clientIP.timeoutSeconds. A pin that has
expired is remembered: its client is balanced like any other when it comes back, as the hash would
send it to the same backend for ever (docs/decisions/0014-after-affinity-expires.md).
"""

from __future__ import annotations

# hashlib has it from here. All of hashlib would load OpenSSL too: 3 MiB in each worker.
from _blake2 import blake2b
from collections import OrderedDict
from collections.abc import Collection, Iterable
from itertools import islice

from uproxy.core.route import Backend

CAPACITY = 65536
"""The most pins of a ServicePortName in a worker, at roughly 300 bytes each, expired ones included.
Beyond it the client that has been away for longest is forgotten. If it comes back, it gets the
winner of its hash."""

REMEMBERED = 86400.0
"""Seconds for which an expired pin is remembered, if there is room. A Service that had many clients
once has its memory back after a day, which is also the longest timeout that the API allows."""

_MASK = 0xFFFF_FFFF_FFFF_FFFF


def digest(text: str) -> int:
    """A 64-bit hash that is the same in every process, unlike Python's hash() of a string."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def rendezvous(client: int, candidates: Iterable[tuple[int, Backend]]) -> Backend | None:
    """The candidate with the highest score for a client; None if there are no candidates.

    It takes the digest of the client, and each candidate with its digest. Their order does not
    matter, and if a candidate leaves, only its own clients move (Thaler and Ravishankar, 1998).
    """
    best: tuple[int, Backend] | None = None
    for number, backend in candidates:
        scored = (_mix(client ^ number), backend)
        if best is None or scored > best:
            best = scored
    return best[1] if best else None


def fair_share(sizes: Iterable[int], most: int) -> int:
    """The size to which each of several collections has to shrink, so that together they have no
    more than `most` items. Smaller ones stay as they are."""
    ordered = sorted(sizes)
    left = most
    for index, size in enumerate(ordered):
        holders = len(ordered) - index
        if size * holders > left:
            return left // holders
        left -= size
    return most


class Affinity:
    """The pins of one ServicePortName, in the order of their last use. Times are seconds of a
    monotonic clock.

    | a client is | its pin                               | is sent to                            |
    |-------------|---------------------------------------|---------------------------------------|
    | new         | none, or its backend has left         | the winner of its hash                |
    | pinned      | was used less than `timeout` ago      | the backend of the pin                |
    | back        | was used longer ago                   | the balancer's choice, which is       |
    |             |                                       | stored until a flow there succeeds    |
    """

    __slots__ = ("_capacity", "_pins", "_tenures", "_timeout")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._pins: OrderedDict[str, tuple[_Tenure, float]] = OrderedDict()
        """Also those that have expired, which are at the front as long as the timeout is the
        same."""
        self._tenures: dict[Backend, _Tenure] = {}
        self._timeout = 0.0
        """The timeout that held when the last client was pinned."""

    def __len__(self) -> int:
        return len(self._pins)

    def find(self, client: str, now: float, timeout: float) -> Backend | None:
        """The backend of a client whose last flow began less than `timeout` seconds ago, else
        None."""
        found = self._pins.get(client)
        if found is None:
            return None
        tenure, used = found
        if not tenure.current:
            del self._pins[client]
            return None
        return tenure.backend if now - used < timeout else None

    def is_back(self, client: str) -> bool:
        """Whether the pin of a client, for which `find` has just returned None, has expired."""
        return client in self._pins

    def choice(self, client: str) -> Backend | None:
        """The backend that was chosen for a client that is back; None if there was no choice
        yet."""
        tenure, _ = self._pins[client]
        return tenure.backend if isinstance(tenure, _Choice) else None

    def choose(self, client: str, backend: Backend) -> None:
        """Store the choice for a client that is back, so that the flows that it begins before the
        first has succeeded go to the same backend. It does not extend the pin: the backend may
        refuse."""
        _, used = self._pins[client]
        self._pins[client] = (_Choice(backend), used)

    def pin(self, client: str, backend: Backend, now: float, timeout: float) -> None:
        """Keep a client at a backend for `timeout` seconds from now. Forgets the pins that expired
        long ago."""
        tenure = self._tenures.get(backend)
        if tenure is None:
            tenure = self._tenures[backend] = _Tenure(backend)
        self._timeout = timeout
        pins = self._pins
        pins[client] = (tenure, now)
        pins.move_to_end(client)
        since = now - timeout - REMEMBERED
        # It ends at this client's own pin, if not before.
        while len(pins) > self._capacity or next(iter(pins.values()))[1] <= since:
            pins.popitem(last=False)

    def trim(self, most: int, *, at_most: int) -> int:
        """Forget the clients that were away for longest until `most` are left, but no more than
        `at_most` of them at once. Returns how many were forgotten."""
        count = min(max(len(self._pins) - most, 0), at_most)
        for _ in range(count):
            self._pins.popitem(last=False)
        return count

    def trim_expired(self, now: float, *, at_most: int) -> int:
        """Forget clients whose pins have expired, those that were away for longest first, but no
        more than `at_most` of them at once. Returns how many were forgotten."""
        count = 0
        for _, used in islice(self._pins.values(), at_most):
            if now - used < self._timeout:
                break
            count += 1
        return self.trim(len(self._pins) - count, at_most=at_most)

    def retain(self, backends: Collection[Backend]) -> None:
        """Forget the pins to all other backends. The cost does not depend on the number of pins."""
        for backend in self._tenures.keys() - backends:
            self._tenures.pop(backend).current = False

    def clear(self) -> None:
        """Forget all pins, because affinity was switched off."""
        self._pins.clear()
        self._tenures.clear()


class _Tenure:
    """The time for which a backend is in the set. All its pins end with it at once."""

    __slots__ = ("backend", "current")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.current = True


class _Choice(_Tenure):
    """Stands in an expired pin for the backend that was chosen anew. It does not end when that
    backend leaves, because the caller compares it with the present backends."""

    __slots__ = ()


def _mix(number: int) -> int:
    """The finalizer of SplitMix64 (Steele et al., 2014).

    The scores must not be a linear function of both digests, as a CRC would be: three backends
    would then get a half, a quarter and a quarter of the clients.
    """
    number = ((number ^ (number >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
    return number ^ (number >> 31)
