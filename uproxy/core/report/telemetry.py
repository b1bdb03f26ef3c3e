"""What the control loop measures, in kube-proxy's terms. http/telemetry_metrics.py gives the
metrics' names."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

from uproxy.core.ip import Family

SYNC_BUCKETS = tuple(0.001 * 2**power for power in range(15))
"""Seconds, 1 ms to 16.384 s."""

PROGRAMMING_BUCKETS = (
    # kube-proxy merges its ranges onto a list that begins with one zero, so it has this bucket as
    # well. Only times that clock skew between nodes makes negative end up in it, and there they
    # show.
    0.0,
    0.25,
    0.5,
    *(float(second) for second in range(1, 60)),
    *(float(second) for second in range(60, 120, 5)),
    *(float(second) for second in range(120, 301, 30)),
)
"""Seconds, up to 5 minutes."""

REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds, as in client-go."""

_MOST_HOSTS = 64
"""API servers whose requests are counted. A control plane has a handful at a time, but in some
clusters their addresses change with each upgrade, and each has about 40 time series."""

Policy = Literal["internal", "external"]
Probe = Literal["healthz", "livez"]


class Histogram:
    """Observed values, counted in buckets."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        """The inclusive upper bounds of the buckets, in rising order. One more bucket has no
        bound."""
        self.counts = [0] * (len(bounds) + 1)
        """Number of values in each bucket, not cumulative."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """Number of values up to each bound. The last item is the number of all values."""
        return list(accumulate(self.counts))


class FamilyTelemetry:
    """One IP family's syncs."""

    __slots__ = (
        "full_syncs",
        "last_queued",
        "last_synced",
        "no_local_endpoints",
        "partial_syncs",
        "programming",
        "syncs",
    )

    def __init__(self) -> None:
        self.syncs = Histogram(SYNC_BUCKETS)
        """Seconds that each sync took. Every sync is also in one of the next two."""
        self.full_syncs = Histogram(SYNC_BUCKETS)
        self.partial_syncs = Histogram(SYNC_BUCKETS)
        self.programming = Histogram(PROGRAMMING_BUCKETS)
        """Seconds between a change in the cluster and the end of the sync that served it."""
        self.last_synced = 0.0
        """Seconds since the Unix epoch; 0: never."""
        self.last_queued = 0.0
        """Seconds since the Unix epoch; 0: never."""
        self.no_local_endpoints: dict[Policy, int] = {"internal": 0, "external": 0}
        """Service ports with policy Local that have endpoints, but none on this node."""


class RequestTelemetry:
    """Requests to the API server, in client-go's terms."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, str]] = Counter()
        """How many answers came, by status code, method and host. The code of a request without
        an answer is "<error>", as in client-go."""
        self.durations: dict[tuple[str, str], Histogram] = {}
        """Seconds until an answer began, by method and host."""
        self._hosts: dict[str, None] = {}
        """All hosts in the above, in the order of their last use."""

    def answered(self, method: str, host: str, code: int, seconds: float) -> None:
        """An answer has begun, `seconds` after its request was sent."""
        self._used(host)
        self.answers[str(code), method, host] += 1
        self._duration(method, host).observe(seconds)

    def failed(self, method: str, host: str) -> None:
        """There was no answer to a request."""
        self._used(host)
        self.answers["<error>", method, host] += 1

    def _used(self, host: str) -> None:
        self._hosts.pop(host, None)
        self._hosts[host] = None
        if len(self._hosts) > _MOST_HOSTS:
            oldest = next(iter(self._hosts))
            del self._hosts[oldest]
            for answers in [key for key in self.answers if key[2] == oldest]:
                del self.answers[answers]
            for durations in [key for key in self.durations if key[1] == oldest]:
                del self.durations[durations]

    def _duration(self, method: str, host: str) -> Histogram:
        if (method, host) not in self.durations:
            self.durations[method, host] = Histogram(REQUEST_BUCKETS)
        return self.durations[method, host]


class Telemetry:
    """Filled by the control loop and the health endpoints, read by /metrics."""

    def __init__(self, requests: RequestTelemetry | None = None) -> None:
        self.requests = requests or RequestTelemetry()
        """Filled by the client of the API server."""
        self.families: dict[Family, FamilyTelemetry] = {}
        self.service_changes = 0
        self.service_changes_pending = 0
        self.endpoint_changes = 0
        self.endpoint_changes_pending = 0
        self.probes: Counter[tuple[Probe, int]] = Counter()
        """Answers of /healthz and /livez by status code."""

    def service_changed(self) -> None:
        """A Service was added, changed or removed."""
        self.service_changes += 1
        self.service_changes_pending += 1

    def endpoints_changed(self) -> None:
        """An EndpointSlice or Endpoints object was added, changed or removed."""
        self.endpoint_changes += 1
        self.endpoint_changes_pending += 1

    def changes_taken(self) -> None:
        """A sync begins, which has all changes that are pending now, and none that come later."""
        self.service_changes_pending = 0
        self.endpoint_changes_pending = 0

    def sync_queued(self, family: Family, now_wall: float) -> None:
        """A sync was requested, because of a change."""
        self._family(family).last_queued = now_wall

    def sync_done(self, family: Family, seconds: float, now_wall: float, *, full: bool) -> None:
        """A sync has succeeded. `full` says whether it was about every Service."""
        counts = self._family(family)
        counts.syncs.observe(seconds)
        (counts.full_syncs if full else counts.partial_syncs).observe(seconds)
        counts.last_synced = now_wall

    def network_programmed(self, seconds: float, family: Family) -> None:
        """A change of endpoints is served, `seconds` after it happened in the cluster."""
        self._family(family).programming.observe(seconds)

    def without_local_endpoints(self, family: Family, *, internal: int, external: int) -> None:
        """How many service ports with policy Local have endpoints on other nodes only, by
        policy."""
        self._family(family).no_local_endpoints = {"internal": internal, "external": external}

    def probe_answered(self, probe: Probe, status: int) -> None:
        """Count an answer of a health endpoint by its HTTP status code."""
        self.probes[probe, status] += 1

    def _family(self, family: Family) -> FamilyTelemetry:
        if family not in self.families:
            self.families[family] = FamilyTelemetry()
        return self.families[family]
