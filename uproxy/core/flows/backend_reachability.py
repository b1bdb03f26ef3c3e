"""Backends that do not answer, by the attempts that workers report.

A ready endpoint may still serve no client: because of a wrong targetPort, a pod that listens on
localhost only, or a NetworkPolicy. Its Service port is open, but some or all of its clients have to
wait for another attempt, or get nothing, so its state is "degraded" and not "serving".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.protocols import TRANSPORTS
from uproxy.core.route import Backend, ServicePortName

LEAST: Final = 3
"""The fewest failed attempts. A lost SYN or two are no outage."""
WINDOW: Final = 10.0
"""The shortest time in seconds from the first failed attempt to the last, without a success in
between."""
QUIET: Final = 300.0
"""Seconds without an attempt after which nothing is known any more."""
_SHOWN: Final = 5
"""How many backends a reason names."""
_OUT_OF_PORTS: Final = ("EADDRNOTAVAIL", "EAGAIN")
"""What an attempt fails with if this node has no port left for it."""

_NO_PODS: Final[Mapping[str, str]] = {}


class Failing(NamedTuple):
    """Backends of a Service port that do not answer."""

    backends: tuple[Backend, ...]
    total: int
    """How many backends the port has."""
    none_answers: bool
    """Whether every attempt has failed for a while, at whatever backend it was."""
    pods: Mapping[str, str] = _NO_PODS
    """The names of the pods that have the addresses of backends, as far as they are known."""

    @property
    def reason(self) -> str:
        """What is wrong, as a clause for users."""
        shown = ", ".join(map(self._named, self.backends[:_SHOWN]))
        more = len(self.backends) - _SHOWN
        named = shown + (f" and {more:,} more" if more > 0 else "")
        if self.none_answers:
            return f"no backend answers: {named}"
        verb = "does" if len(self.backends) == 1 else "do"
        return f"{len(self.backends):,} of {self.total:,} backends {verb} not answer: {named}"

    def _named(self, backend: Backend) -> str:
        pod = self.pods.get(backend.address)
        return f"{pod} ({backend})" if pod else str(backend)


class Changes(NamedTuple):
    """What is to be told."""

    degraded: Mapping[ServicePortName, Failing]
    """Ports at which further backends fail, or one of all answers again."""
    recovered: Collection[ServicePortName]
    """Ports at which none fails any more."""

    def __bool__(self) -> bool:
        return bool(self.degraded or self.recovered)


class _Attempts:
    """Attempts that have failed since the last success."""

    __slots__ = ("failures", "last", "since", "taken_since")

    def __init__(self, now: float) -> None:
        self.since = self.last = now
        self.failures = 0
        self.taken_since: float | None = None
        """UDP: when bytes were first sent after the last failure, and were not refused."""

    def failed(self, failures: int, now: float) -> None:
        self.failures += failures
        self.last = now
        self.taken_since = None

    @property
    def enough(self) -> bool:
        """Whether they show that something is wrong."""
        return self.failures >= LEAST and self.last - self.since >= WINDOW


class _Port:
    """The attempts at one port: at all of its backends, and at each of them."""

    __slots__ = ("all", "backends", "failing")

    def __init__(self) -> None:
        self.all: _Attempts | None = None
        """None: the last one has succeeded."""
        self.backends: dict[Backend, _Attempts] = {}
        self.failing: Failing | None = None

    def failed(self, backend: Backend, failures: int, now: float) -> None:
        if self.all is None:
            self.all = _Attempts(now)
        for each in (self.all, self.backends.setdefault(backend, _Attempts(now))):
            each.failed(failures, now)

    def succeeded(self, backend: Backend) -> None:
        self.all = None
        self.backends.pop(backend, None)

    def taken(self, backend: Backend, now: float) -> None:
        """Bytes were sent over UDP, and were not refused. After a while this shows that a backend
        is back: with protocols without replies, such as syslog and statsd, nothing else shows it.
        """
        attempts = self.backends.get(backend)
        if attempts is None:
            return
        if attempts.taken_since is None:
            attempts.taken_since = now
        elif now - attempts.taken_since >= WINDOW:
            self.succeeded(backend)

    def forget(self, left: Collection[Backend], now: float) -> None:
        self.backends = {
            backend: each
            for backend, each in self.backends.items()
            if backend in left and now - each.last < QUIET
        }

    def judged(self, total: int) -> Failing | None:
        none_answers = self.all is not None and self.all.enough
        found = tuple(
            backend for backend, each in self.backends.items() if none_answers or each.enough
        )
        return Failing(found, total, none_answers) if found else None


class Reachability:
    """The ports with failed attempts. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._ports: dict[ServicePortName, _Port] = {}

    @property
    def degraded(self) -> dict[ServicePortName, Failing]:
        """Ports with backends that have not answered for a while."""
        found = ((name, port.failing) for name, port in self._ports.items())
        return {name: failing for name, failing in found if failing is not None}

    @property
    def ports(self) -> Collection[ServicePortName]:
        """Ports of which something is remembered."""
        return self._ports.keys()

    def record(
        self, reports: Iterable[tuple[ServicePortName, Backend, BackendCounts]], now: float
    ) -> None:
        """Take in the report of a worker."""
        for name, backend, counts in reports:
            port = self._ports.get(name)
            if _succeeded(name, counts):
                if port is not None:
                    port.succeeded(backend)
            elif failures := _failures(counts):
                if port is None:
                    port = self._ports[name] = _Port()
                port.failed(backend, failures, now)
            elif port is not None and _taken(name, counts):
                port.taken(backend, now)

    def check(
        self,
        ports: Iterable[ServicePortName],
        backends: Callable[[ServicePortName], Collection[Backend]],
        now: float,
        pods: Callable[[ServicePortName], Mapping[str, str]] = lambda _: _NO_PODS,
    ) -> Changes:
        """What has changed at some ports since the last call. `backends` gives the backends that a
        port has now: failures of former backends say nothing about it. `pods` gives the names of
        its pods by their addresses."""
        degraded: dict[ServicePortName, Failing] = {}
        recovered: list[ServicePortName] = []
        for name in ports:
            port, left = self._ports[name], backends(name)
            port.forget(left, now)
            before, failing = port.failing, port.judged(len(left))
            if failing is None:
                port.failing = None
                if before is not None:
                    recovered.append(name)
                if not port.backends:
                    del self._ports[name]
            elif before is None or failing != before._replace(pods=_NO_PODS):
                port.failing = failing._replace(pods=pods(name))
                if before is None or _is_news(failing, before):
                    degraded[name] = port.failing
        return Changes(degraded, recovered)


def _is_news(now: Failing, before: Failing) -> bool:
    further = not set(now.backends) <= set(before.backends)
    return further or now.none_answers != before.none_answers


def _failures(counts: BackendCounts) -> int:
    """The failures that say something about the backend, and not about this node."""
    return sum(number for error, number in counts.failures.items() if error not in _OUT_OF_PORTS)


def _succeeded(name: ServicePortName, counts: BackendCounts) -> bool:
    """Whether a backend has answered. Bytes of a TCP flow do not show it: the backend may have
    accepted the connection long ago."""
    if TRANSPORTS[name.protocol].has_handshake:
        return bool(counts.connect_times)
    return counts.backend_bytes > 0


def _taken(name: ServicePortName, counts: BackendCounts) -> bool:
    return counts.client_bytes > 0 and not TRANSPORTS[name.protocol].has_handshake
