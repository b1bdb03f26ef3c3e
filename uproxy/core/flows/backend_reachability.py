"""Service ports none of whose backends answers, by the attempts that workers report.

A port with ready endpoints may still serve no client: because of a wrong targetPort, a pod that
listens on localhost only, or a NetworkPolicy. Its listener is open, but its clients get nothing, so
its state is "degraded" and not "serving".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from uproxy.core.flows.counters import Counters
from uproxy.core.protocols import TRANSPORTS
from uproxy.core.route import Backend, ServicePortName

LEAST: Final = 3
"""The fewest failed attempts. One lost pod is not an outage."""
WINDOW: Final = 10.0
"""The shortest time in seconds from the first failed attempt to the last, without a success in
between."""
QUIET: Final = 300.0
"""Seconds without an attempt after which nothing is known any more."""
_SHOWN: Final = 5
"""How many backends a reason names."""


class Attempts(NamedTuple):
    """What one worker has counted for one port since its last report."""

    port: ServicePortName
    counters: Counters
    failing: Collection[Backend] = ()
    """Some of the backends that have failed and not answered since."""


class FailedAttempts:
    """The attempts at one port that have failed since the last success."""

    def __init__(self, now: float) -> None:
        self.since = self.last = now
        self.failures = 0
        self.backends: dict[Backend, None] = {}
        self.degraded = False
        """Whether they are enough to call the port degraded."""

    @property
    def reason(self) -> str:
        """What is wrong, as a clause for users."""
        shown = ", ".join(str(each) for each in list(self.backends)[:_SHOWN])
        more = len(self.backends) - _SHOWN
        return f"no backend answers: {shown}" + (f" and {more:,} more" if more > 0 else "")


class Changes(NamedTuple):
    """Ports that have become degraded, and ports that no longer are."""

    degraded: Mapping[ServicePortName, FailedAttempts]
    recovered: Collection[ServicePortName]

    def __bool__(self) -> bool:
        return bool(self.degraded or self.recovered)


class Reachability:
    """The ports with failed attempts. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._ports: dict[ServicePortName, FailedAttempts] = {}
        self._recovered: set[ServicePortName] = set()

    @property
    def degraded(self) -> dict[ServicePortName, FailedAttempts]:
        """Ports at which every attempt has failed for a while."""
        return {name: port for name, port in self._ports.items() if port.degraded}

    def record(self, attempts: Iterable[Attempts], now: float) -> None:
        """Take in the report of a worker."""
        for name, counters, failing in attempts:
            if _succeeded(name, counters):
                self._forget(name)
            elif counters.dial_failures:
                port = self._ports.setdefault(name, FailedAttempts(now))
                port.last = now
                port.failures += counters.dial_failures
                port.backends.update(dict.fromkeys(failing))

    def check(
        self, backends: Callable[[ServicePortName], Collection[Backend]], now: float
    ) -> Changes:
        """What has changed since the last call. `backends` gives the backends that a port has now:
        failures of former backends say nothing about it."""
        degraded: dict[ServicePortName, FailedAttempts] = {}
        for name, port in list(self._ports.items()):
            left = backends(name)
            port.backends = {each: None for each in port.backends if each in left}
            if not port.backends or now - port.last >= QUIET:
                self._forget(name)
            elif not port.degraded and port.failures >= LEAST and port.last - port.since >= WINDOW:
                port.degraded = True
                degraded[name] = port
        recovered, self._recovered = self._recovered, set()
        return Changes(degraded, recovered)

    def _forget(self, name: ServicePortName) -> None:
        port = self._ports.pop(name, None)
        if port is not None and port.degraded:
            self._recovered.add(name)


def _succeeded(name: ServicePortName, counters: Counters) -> bool:
    """Whether a backend has answered. Bytes of a TCP flow do not show it: the backend may have
    accepted the connection long ago."""
    if TRANSPORTS[name.protocol].has_handshake:
        return counters.dials > 0
    return counters.backend_datagrams > 0
