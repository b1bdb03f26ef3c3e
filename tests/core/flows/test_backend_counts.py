"""Histograms of connect times."""

from __future__ import annotations

import pytest

from uproxy.core.flows.backend_counts import CONNECT_BUCKETS, BackendCounts, BackendTally


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        pytest.param(0.0, 0, id="at once"),
        pytest.param(0.001, 0, id="at the bound of the first bucket, which is in it"),
        pytest.param(0.0011, 1, id="above it"),
        pytest.param(4.0, len(CONNECT_BUCKETS) - 1, id="in the last bucket with a bound"),
        pytest.param(60.0, len(CONNECT_BUCKETS), id="above all bounds"),
    ],
)
def test_connect_times_are_in_buckets(seconds: float, bucket: int) -> None:
    tally = BackendTally()
    tally.connected(seconds)
    counts = tally.take(0.0, 0.0)
    assert counts is not None
    assert counts.connect_times == [
        int(number == bucket) for number in range(len(CONNECT_BUCKETS) + 1)
    ]
    assert counts.connect_seconds == seconds


def test_no_attempt_takes_no_room() -> None:
    assert BackendCounts().connect_times == []
