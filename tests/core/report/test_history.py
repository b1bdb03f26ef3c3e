"""The last five minutes of the traffic."""

from __future__ import annotations

import pytest

from tests.http.statuses import DNS, KUBIA
from uproxy.core.flows.counters import Counters
from uproxy.core.report.history import KEPT, PERIOD, History, Sample, failures, parse_after


def test_five_minutes_are_kept() -> None:
    assert KEPT * PERIOD == 300


def test_a_sample_has_rates_of_all_ports_together() -> None:
    history = History()
    history.add({KUBIA: Counters(flows=100, client_bytes=1000)}, now=10.0, wall=1000.0)
    assert history.after(0) == []
    grown = Counters(flows=110, active=3, client_bytes=3000, backend_bytes=50, dial_failures=1)
    history.add({KUBIA: grown, DNS: Counters(flows=5, active=1)}, now=12.0, wall=1002.0)
    assert history.after(0) == [Sample(1002.0, 7.5, 4, 1000.0, 25.0, 0.5)]


def test_the_time_between_samples_is_measured() -> None:
    history = History()
    history.add({}, now=0.0, wall=0.0)
    history.add({KUBIA: Counters(flows=100)}, now=20.0, wall=20.0)
    assert history.samples[-1].flows == 5.0


def test_counts_that_were_forgotten_with_their_service_are_no_negative_rate() -> None:
    history = History()
    history.add({KUBIA: Counters(flows=100, active=2)}, now=0.0, wall=0.0)
    history.add({}, now=2.0, wall=2.0)
    assert history.after(0) == [Sample(2.0, 0.0, 0, 0.0, 0.0, 0.0)]


def test_counts_that_were_forgotten_hide_nothing_of_other_services() -> None:
    history = History()
    long_ago = Counters(flows=10_000, client_bytes=10**9, dropped={"capacity": 5000})
    history.add({KUBIA: long_ago, DNS: Counters(flows=10)}, now=0.0, wall=0.0)
    history.add({DNS: Counters(flows=30, client_bytes=4, dial_failures=6)}, now=2.0, wall=2.0)
    assert history.after(0) == [Sample(2.0, 10.0, 0, 2.0, 0.0, 3.0)]


def test_the_oldest_samples_go() -> None:
    history = History()
    for second in range(KEPT + 10):
        history.add({}, now=float(second), wall=float(second))
    times = [each.time for each in history.after(0)]
    assert times == [float(second) for second in range(10, KEPT + 10)]


def test_only_samples_after_a_time_are_wanted() -> None:
    history = History()
    for second in range(4):
        history.add({}, now=float(second), wall=float(second))
    assert [each.time for each in history.after(1.0)] == [2.0, 3.0]


def test_a_clock_that_was_set_back_hides_no_sample() -> None:
    """Whoever has samples of the future asks for later ones: it gets those that there are."""
    history = History()
    for second in (100.0, 102.0, 104.0, 50.0, 52.0):
        history.add({}, now=second, wall=second)
    assert [each.time for each in history.after(104.0)] == [50.0, 52.0]
    assert [each.time for each in history.after(50.0)] == [52.0]
    assert history.after(52.0) == []


def test_a_failed_dial_is_counted_once_though_it_also_dropped_a_flow() -> None:
    assert failures(4, {"dial_failed": 1, "capacity": 2}) == 6
    assert failures(0, {}) == 0


def test_after() -> None:
    assert parse_after({}) == 0
    assert parse_after({"after": "12.5"}) == 12.5


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"since": "1"}, "unknown parameter 'since': use after"),
        ({"after": "noon"}, "after='noon' is not a Unix time in seconds"),
    ],
)
def test_wrong_parameters(query: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match="^" + reason.replace("'", ".") + "$"):
        parse_after(query)
