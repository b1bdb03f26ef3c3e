"""Session affinity by client IP address (sessionAffinity: ClientIP).

The first backend of a client is the winner of a rendezvous hash. Every worker, every node and every
later process computes the same winner, without sharing state. From then on a pin keeps the client
at its backend, so that new backends do not take clients away.

As in kube-proxy a client has one pin for each service port, whichever frontend it connects to, and
each new flow extends the pin by spec.sessionAffinityConfig.clientIP.timeoutSeconds.
"""

from __future__ import annotations

# hashlib has it from here. All of hashlib would load OpenSSL too: 3 MiB in each worker.
from _blake2 import blake2b
from collections import OrderedDict
from collections.abc import Collection, Iterable

from uproxy.core.route import Backend

CAPACITY = 65536
"""The most pins of a ServicePortName in a worker, at roughly 300 bytes each. Beyond it the client
that has been away for longest is forgotten. If it comes back, it gets the winner of its hash."""

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
    monotonic clock."""

    __slots__ = ("_capacity", "_pins", "_tenures")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._pins: OrderedDict[str, tuple[_Tenure, float]] = OrderedDict()
        self._tenures: dict[Backend, _Tenure] = {}

    def __len__(self) -> int:
        return len(self._pins)

    def find(self, client: str, now: float, timeout: float) -> Backend | None:
        """The backend of a client whose last flow began less than `timeout` seconds ago, else
        None."""
        found = self._pins.get(client)
        if found is None:
            return None
        tenure, used = found
        if now - used >= timeout or not tenure.current:
            del self._pins[client]
            return None
        return tenure.backend

    def pin(self, client: str, backend: Backend, now: float, timeout: float) -> None:
        """Keep a client at a backend for `timeout` seconds from now. Forgets pins that are over."""
        tenure = self._tenures.get(backend)
        if tenure is None:
            tenure = self._tenures[backend] = _Tenure(backend)
        self._pins[client] = (tenure, now)
        self._pins.move_to_end(client)
        self._trim(now, timeout)

    def trim(self, most: int, *, at_most: int) -> int:
        """Forget the clients that were away for longest until `most` are left, but no more than
        `at_most` of them at once. Returns how many were forgotten."""
        count = min(max(len(self._pins) - most, 0), at_most)
        for _ in range(count):
            self._pins.popitem(last=False)
        return count

    def retain(self, backends: Collection[Backend]) -> None:
        """Forget the pins to all other backends. The cost does not depend on the number of pins."""
        for backend in self._tenures.keys() - backends:
            self._tenures.pop(backend).current = False

    def clear(self) -> None:
        """Forget all pins, because affinity was switched off."""
        self._pins.clear()
        self._tenures.clear()

    def _trim(self, now: float, timeout: float) -> None:
        while self._pins:
            oldest = next(iter(self._pins))
            if len(self._pins) <= self._capacity and now - self._pins[oldest][1] < timeout:
                return
            del self._pins[oldest]


class _Tenure:
    """The time for which a backend is in the set. All its pins end with it at once."""

    __slots__ = ("backend", "current")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.current = True


def _mix(number: int) -> int:
    """The finalizer of SplitMix64 (Steele et al., 2014).

    The scores must not be a linear function of both digests, as a CRC would be: three backends
    would then get a half, a quarter and a quarter of the clients.
    """
    number = ((number ^ (number >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
    return number ^ (number >> 31)
