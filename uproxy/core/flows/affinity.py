"""ClientIP session affinity: which backend a client comes back to.

A client's first backend is the winner of a rendezvous hash, which every worker, every node and
every successor of this process computes alike without sharing state. From then on a pin holds the
client to its backend, so that backends that come later do not take it away.
"""

from __future__ import annotations

# Where hashlib has it from. All of hashlib would be OpenSSL too: 3 MiB in each worker.
from _blake2 import blake2b
from collections import OrderedDict
from collections.abc import Collection, Iterable

from uproxy.core.route import Backend

CAPACITY = 65536
"""Pins per ServicePortName and worker, at roughly 300 bytes each. Beyond it the client that has
been away for longest is forgotten, and comes back to the winner of its hash."""

_MASK = 0xFFFF_FFFF_FFFF_FFFF


def digest(text: str) -> int:
    """64 bits that are the same in every process (Python's hash() of a string is not)."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def rendezvous(client: int, candidates: Iterable[tuple[int, Backend]]) -> Backend | None:
    """The candidate with the highest score for a client; None if there is none.

    Takes the digests of the client and of each candidate. Order does not matter, and when a
    candidate leaves only its own clients move (Thaler and Ravishankar, 1998).
    """
    best: tuple[int, Backend] | None = None
    for number, backend in candidates:
        scored = (_mix(client ^ number), backend)
        if best is None or scored > best:
            best = scored
    return best[1] if best else None


def fair_share(sizes: Iterable[int], most: int) -> int:
    """How many each holder may keep, so that all together keep `most`. Those with fewer keep
    theirs."""
    ordered = sorted(sizes)
    left = most
    for index, size in enumerate(ordered):
        holders = len(ordered) - index
        if size * holders > left:
            return left // holders
        left -= size
    return most


class Affinity:
    """The pins of one ServicePortName, in order of last use."""

    __slots__ = ("_capacity", "_pins", "_tenures")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._pins: OrderedDict[str, tuple[_Tenure, float]] = OrderedDict()
        self._tenures: dict[Backend, _Tenure] = {}

    def __len__(self) -> int:
        return len(self._pins)

    def find(self, client: str, now: float, timeout: float) -> Backend | None:
        """The backend of a client that was here less than `timeout` seconds ago, else None."""
        found = self._pins.get(client)
        if found is None:
            return None
        tenure, used = found
        if now - used >= timeout or not tenure.current:
            del self._pins[client]
            return None
        return tenure.backend

    def pin(self, client: str, backend: Backend, now: float, timeout: float) -> None:
        """Hold a client to a backend for `timeout` seconds from now; forget overdue pins."""
        tenure = self._tenures.get(backend)
        if tenure is None:
            tenure = self._tenures[backend] = _Tenure(backend)
        self._pins[client] = (tenure, now)
        self._pins.move_to_end(client)
        self._trim(now, timeout)

    def trim(self, most: int, *, at_most: int) -> int:
        """Forget the clients that were away for longest until so many are left, but no more than
        `at_most` of them in one go. How many were forgotten."""
        count = min(max(len(self._pins) - most, 0), at_most)
        for _ in range(count):
            self._pins.popitem(last=False)
        return count

    def retain(self, backends: Collection[Backend]) -> None:
        """Forget the pins to all other backends. Costs nothing per pin."""
        for backend in self._tenures.keys() - backends:
            self._tenures.pop(backend).current = False

    def clear(self) -> None:
        """Forget everything: affinity was switched off."""
        self._pins.clear()
        self._tenures.clear()

    def _trim(self, now: float, timeout: float) -> None:
        while self._pins:
            oldest = next(iter(self._pins))
            if len(self._pins) <= self._capacity and now - self._pins[oldest][1] < timeout:
                return
            del self._pins[oldest]


class _Tenure:
    """A backend's stay in the set; ends for all its pins at once when the backend leaves."""

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
