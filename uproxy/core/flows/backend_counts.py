"""What is counted for each backend of a Service port: in each worker, and added up in the control
process.

A pod that fails is found by its own counts, not by those of its Service.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

CONNECT_BUCKETS: Final = tuple(0.001 * 2**n for n in range(13))
"""Upper bounds in seconds of the histogram of connect times, 1 ms to 4.1 s: the exponential buckets
that kube-proxy has in its histograms (pkg/proxy/metrics, ExponentialBuckets(0.001, 2, ...)), up to
the time that all attempts to dial may take."""


class BackendCounts(msgspec.Struct, array_like=True, gc=False):
    """Counts of one backend: what was added since the last report, or the sum of that. Those that
    are called absolute are as of now."""

    flows: int = 0
    """Flows that it got: TCP connections it has accepted, UDP flows that were sent to it. A UDP
    flow that moves to another backend counts at both."""
    active: int = 0
    """Absolute: flows alive now, those that are being dialed included."""
    client_bytes: int = 0
    """Bytes received from clients and given to it."""
    backend_bytes: int = 0
    """Bytes received from it and given to clients."""
    retries: int = 0
    """Attempts here after another backend had failed the same flow."""
    failures: dict[str, int] = {}
    """Attempts that failed, by the name of the errno, such as ECONNREFUSED. ETIMEDOUT: it has not
    answered in time. EADDRNOTAVAIL: this node had no port left for it."""
    connect_times: list[int] = []
    """TCP: the attempts that succeeded, by CONNECT_BUCKETS; the last one counts those above. Empty
    as long as there was none."""
    connect_seconds: float = 0.0
    """TCP: the sum of these times."""
    ejections: int = 0
    """How often it was set aside."""
    last_error: str = ""
    """The name of the errno of the last failed attempt; "": none has failed since the last
    report."""
    last_error_at: float = 0.0
    """When that was, in Unix seconds."""
    aside_until: float = 0.0
    """Absolute: until when it gets no new flow from this worker, in seconds of CLOCK_MONOTONIC,
    which all processes of a machine share; 0: it is not set aside."""


class BackendTally:
    """What a worker has counted of one backend and not reported yet.

    Once all is reported and no flow is left, it is dropped: the sums are in the control process. So
    a worker keeps no more of them than it has flows, however many backends there are.
    """

    __slots__ = ("_connect_seconds", "_connect_times", "_failures", "_last_error", "_last_error_at",
                 "_reported_active", "_reported_aside", "active", "backend_bytes", "client_bytes",
                 "ejections", "flows", "retries")  # fmt: skip

    def __init__(self) -> None:
        self.active = 0
        """Flows alive now."""
        self.flows = 0
        self.client_bytes = 0
        """It may be negative for a while, as may the other direction: a datagram counts when it is
        queued for the ring, and is taken back if the kernel refuses it later."""
        self.backend_bytes = 0
        self.retries = 0
        self.ejections = 0
        self._failures: dict[str, int] = {}
        self._last_error = ""
        self._last_error_at = 0.0
        """In monotonic seconds."""
        self._connect_times: list[int] = []
        self._connect_seconds = 0.0
        self._reported_active = 0
        self._reported_aside = 0.0

    def connected(self, seconds: float) -> None:
        """Count an attempt that has succeeded, and took so long."""
        self.flows += 1
        if not self._connect_times:
            self._connect_times = [0] * (len(CONNECT_BUCKETS) + 1)
        self._connect_times[bisect_left(CONNECT_BUCKETS, seconds)] += 1
        self._connect_seconds += seconds

    def failed(self, error: str, now: float) -> None:
        """Count an attempt that has failed. `error` is the name of an errno, and `now` is of the
        monotonic clock."""
        self._failures[error] = self._failures.get(error, 0) + 1
        self._last_error, self._last_error_at = error, now

    def no_longer_aside(self) -> None:
        """It was set aside, and comes back earlier than was reported."""
        self._reported_aside = -1.0

    def take(self, aside_until: float, clock_offset: float) -> BackendCounts | None:
        """The counts since the last report; None if nothing has changed. `clock_offset`: from
        monotonic to Unix seconds."""
        client_bytes, backend_bytes = max(self.client_bytes, 0), max(self.backend_bytes, 0)
        if not (
            client_bytes
            or backend_bytes
            or self.flows
            or self.active != self._reported_active
            or self._failures
            or self.retries
            or self.ejections
            or aside_until != self._reported_aside
        ):
            return None
        taken = BackendCounts(
            flows=self.flows,
            active=self.active,
            client_bytes=client_bytes,
            backend_bytes=backend_bytes,
            retries=self.retries,
            failures=self._failures,
            connect_times=self._connect_times,
            connect_seconds=self._connect_seconds,
            ejections=self.ejections,
            last_error=self._last_error,
            last_error_at=self._last_error_at + clock_offset if self._last_error else 0.0,
            aside_until=aside_until,
        )
        self.flows = self.retries = self.ejections = 0
        self.client_bytes -= client_bytes
        self.backend_bytes -= backend_bytes
        self._failures, self._connect_times, self._connect_seconds = {}, [], 0.0
        self._last_error, self._last_error_at = "", 0.0
        self._reported_active, self._reported_aside = self.active, aside_until
        return taken
