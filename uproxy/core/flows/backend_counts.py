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
    """Counts of one backend that only grow, except those that are called absolute."""

    flows: int = 0
    """Flows that it got: TCP connections it has accepted, UDP flows that were sent to it."""
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
    answered in time."""
    connect_times: list[int] = []
    """TCP: the attempts that succeeded, by CONNECT_BUCKETS; the last one counts those above. Empty
    as long as there was none."""
    connect_seconds: float = 0.0
    """TCP: the sum of these times."""
    ejections: int = 0
    """How often it was set aside."""
    last_error: str = ""
    """Absolute: the name of the errno of the last failed attempt; "": there was none."""
    last_error_at: float = 0.0
    """Absolute: when that was, in Unix seconds."""
    aside_until: float = 0.0
    """Absolute: until when it gets no new flow from this worker, in seconds of CLOCK_MONOTONIC,
    which all processes of a machine share; 0: it is not set aside."""

    def connected(self, seconds: float) -> None:
        """Count an attempt that took so long."""
        if not self.connect_times:
            self.connect_times = [0] * (len(CONNECT_BUCKETS) + 1)
        self.connect_times[bisect_left(CONNECT_BUCKETS, seconds)] += 1
        self.connect_seconds += seconds
