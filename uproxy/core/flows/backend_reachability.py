"""Service ports of which no backend answers, judged by the attempts that workers report.

A port with ready endpoints may still serve no client: a wrong targetPort, a pod that listens on
localhost only, a NetworkPolicy in the way. Its listener is open and its clients get nothing, so
"serving" is not the word.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from uproxy.core.flows.counters import Counters
from uproxy.core.protocols import TRANSPORTS
from uproxy.core.route import Backend, ServicePortName

LEAST: Final = 3
"""Attempts that must have failed: one lost pod is not an outage."""
WINDOW: Final = 10.0
"""Seconds from the first of them to the last, without a success in between."""
QUIET: Final = 300.0
"""Seconds without an attempt, after which the state is unknown."""
_SHOWN: Final = 5
"""Backends that are named in one line."""


class Attempts(NamedTuple):
    """What one worker has seen of one port since its last report."""

    port: ServicePortName
    counters: Counters
    failing: Collection[Backend] = ()
    """Some backends that have failed and not answered since."""


class FailedAttempts:
    """Attempts at one port since the last that succeeded."""

    def __init__(self, now: float) -> None:
        self.since = self.last = now
        self.failures = 0
        self.backends: dict[Backend, None] = {}
        self.told = False
        """Whether it counts as degraded."""

    @property
    def reason(self) -> str:
        """For people, as a clause."""
        shown = ", ".join(str(each) for each in list(self.backends)[:_SHOWN])
        more = len(self.backends) - _SHOWN
        return f"no backend answers: {shown}" + (f" and {more:,} more" if more > 0 else "")


class Changes(NamedTuple):
    degraded: Mapping[ServicePortName, FailedAttempts]
    recovered: Collection[ServicePortName]

    def __bool__(self) -> bool:
        return bool(self.degraded or self.recovered)


class Reachability:
    """Remembers only ports with attempts that failed. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._ports: dict[ServicePortName, FailedAttempts] = {}
        self._recovered: set[ServicePortName] = set()

    @property
    def degraded(self) -> dict[ServicePortName, FailedAttempts]:
        """Ports whose every attempt has failed for a while."""
        return {name: port for name, port in self._ports.items() if port.told}

    def note(self, attempts: Iterable[Attempts], now: float) -> None:
        """A worker has reported."""
        for name, counters, failing in attempts:
            if _succeeded(name, counters):
                self._forget(name)
            elif counters.dial_failures:
                port = self._ports.setdefault(name, FailedAttempts(now))
                port.last = now
                port.failures += counters.dial_failures
                port.backends.update(dict.fromkeys(failing))

    def look(
        self, backends: Callable[[ServicePortName], Collection[Backend]], now: float
    ) -> Changes:
        """What has changed since the last look. `backends`: those that a port has now; failures of
        others say nothing about it."""
        degraded: dict[ServicePortName, FailedAttempts] = {}
        for name, port in list(self._ports.items()):
            left = backends(name)
            port.backends = {each: None for each in port.backends if each in left}
            if not port.backends or now - port.last >= QUIET:
                self._forget(name)
            elif not port.told and port.failures >= LEAST and port.last - port.since >= WINDOW:
                port.told = True
                degraded[name] = port
        recovered, self._recovered = self._recovered, set()
        return Changes(degraded, recovered)

    def _forget(self, name: ServicePortName) -> None:
        port = self._ports.pop(name, None)
        if port is not None and port.told:
            self._recovered.add(name)


def _succeeded(name: ServicePortName, counters: Counters) -> bool:
    """Whether a backend has answered. Bytes of a TCP flow may be those of a dial long ago."""
    if TRANSPORTS[name.protocol].has_handshake:
        return counters.dials > 0
    return counters.backend_datagrams > 0
