"""Recognises another controller that keeps removing what uproxy writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from uproxy.core.cluster.load_balancer import is_ours, recorded_addresses, status_addresses
from uproxy.core.cluster.objects import ObjectName, Service

MOST: Final = 3
"""Rewrites after which a status is left alone. One may be a person who tries something out."""
WINDOW: Final = 600.0
"""Seconds within which they count, and for which the status is left alone after the last one."""


class _Rewritten(NamedTuple):
    times: int
    last: float


class Rewrites:
    """Counts, by Service, how often a status was changed that said what uproxy had decided."""

    def __init__(self) -> None:
        self.total = 0
        """All of them, of all Services."""
        self._as_written: dict[ObjectName, tuple[str, ...]] = {}
        """The addresses of statuses that say what uproxy has recorded."""
        self._rewritten: dict[ObjectName, _Rewritten] = {}

    def seen(self, service: Service, now: float) -> None:
        """Take note of a Service, as it is in the cluster now."""
        name, found = service.key, status_addresses(service)
        recorded = recorded_addresses(service)
        before = self._as_written.pop(name, ())
        if not is_ours(service) or not recorded:
            return  # uproxy itself takes away the addresses and the annotation together.
        if found == recorded:
            self._as_written[name] = found
        elif before == recorded:
            earlier = self._rewritten.get(name, _Rewritten(0, now))
            times = earlier.times if now - earlier.last <= WINDOW else 0
            self._rewritten[name] = _Rewritten(times + 1, now)
            self.total += 1

    def gone(self, name: ObjectName) -> None:
        """A Service has been deleted."""
        self._as_written.pop(name, None)
        self._rewritten.pop(name, None)

    def keep(self, names: Iterable[ObjectName]) -> None:
        """Forget all other Services."""
        for name in {*self._as_written, *self._rewritten}.difference(names):
            self.gone(name)

    def reason(self, name: ObjectName, now: float) -> str:
        """Why the status of a Service is left alone; "": it is not."""
        found = self._rewritten.get(name)
        if found is None or found.times < MOST or now - found.last > WINDOW:
            return ""
        return (
            f"another controller has taken its addresses out of the status {found.times} times; "
            f"give one of the two a loadBalancerClass of its own"
        )

    def over(self, name: ObjectName) -> float | None:
        """The time at which the reason ends; None: there is none."""
        found = self._rewritten.get(name)
        return found.last + WINDOW if found is not None and found.times >= MOST else None
