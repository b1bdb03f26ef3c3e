"""Counts of backends over all workers, and of backends that are gone."""

from __future__ import annotations

from typing import Any

import pytest

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.backend_totals import BackendTotals, Exclusion
from uproxy.core.flows.counter_totals import KEPT, MOST_KEPT
from uproxy.core.route import Backend, ServicePortName

WEB = ServicePortName("default", "web", "http", "TCP")
DNS = ServicePortName("default", "dns", "", "UDP")
A, B = Backend("10.0.0.1", 80), Backend("10.0.0.2", 80)


def reported(**counts: Any) -> BackendTotals:
    totals = BackendTotals()
    totals.add(0, [(WEB, A, BackendCounts(**counts))])
    return totals


def test_reports_are_added_up_and_levels_are_as_last_reported() -> None:
    totals = reported(flows=3, active=3)
    totals.add(
        1,
        [
            (
                WEB,
                A,
                BackendCounts(
                    flows=2,
                    active=2,
                    client_bytes=10,
                    backend_bytes=20,
                    retries=1,
                    failures={"ETIMEDOUT": 2},
                    connect_times=[0, 2],
                    connect_seconds=0.5,
                    ejections=1,
                    last_error="ETIMEDOUT",
                    last_error_at=50.0,
                ),
            ),
            (DNS, B, BackendCounts(flows=7)),
        ],
    )
    totals.add(
        0,
        [
            (
                WEB,
                A,
                BackendCounts(
                    active=1,
                    client_bytes=1,
                    failures={"ETIMEDOUT": 1, "ECONNREFUSED": 1},
                    connect_times=[1, 0],
                    connect_seconds=0.25,
                    last_error="ECONNREFUSED",
                    last_error_at=40.0,
                ),
            )
        ],
    )
    assert totals.of(WEB) == {
        A: BackendCounts(
            flows=5,
            active=3,
            client_bytes=11,
            backend_bytes=20,
            retries=1,
            failures={"ETIMEDOUT": 3, "ECONNREFUSED": 1},
            connect_times=[1, 2],
            connect_seconds=0.75,
            ejections=1,
            last_error="ETIMEDOUT",
            last_error_at=50.0,
        )
    }
    assert list(totals.ports) == [WEB, DNS]


def test_a_report_without_an_error_leaves_the_last_one() -> None:
    totals = BackendTotals()
    totals.add(0, [(WEB, A, BackendCounts(last_error="EIO", last_error_at=5.0))])
    totals.add(0, [(WEB, A, BackendCounts(flows=1))])
    assert (totals.of(WEB)[A].last_error, totals.of(WEB)[A].last_error_at) == ("EIO", 5.0)


def test_the_flows_of_a_worker_end_with_it_and_its_counts_stay() -> None:
    totals = reported(flows=3, active=3)
    totals.add(1, [(WEB, A, BackendCounts(flows=1, active=1))])
    totals.ended(0)
    totals.ended(7)
    assert totals.of(WEB)[A] == BackendCounts(flows=4, active=1)
    totals.add(0, [(WEB, A, BackendCounts(flows=1, active=1))])
    assert totals.of(WEB)[A] == BackendCounts(flows=5, active=2)


def test_workers_set_backends_aside_each_for_itself() -> None:
    totals = BackendTotals()
    for worker, until in ((0, 110.0), (1, 130.0), (2, 100.0)):
        totals.add(worker, [(WEB, A, BackendCounts(ejections=1, aside_until=until))])
    assert totals.exclusions(WEB, 105.0) == {A: Exclusion(130.0, 2)}
    totals.add(1, [(WEB, A, BackendCounts(flows=1))])
    assert totals.exclusions(WEB, 105.0) == {A: Exclusion(110.0, 1)}
    totals.ended(0)
    assert totals.exclusions(WEB, 105.0) == {}
    assert totals.of(WEB)[A].ejections == 3


def test_counts_of_another_pod_with_the_same_address_begin_anew() -> None:
    totals = reported(flows=3, active=1)
    totals.look_at(WEB, {A: "web-1"}, 0.0)
    assert totals.of(WEB)[A].flows == 3
    totals.look_at(WEB, {A: "web-2"}, 30.0)
    assert totals.of(WEB)[A] == BackendCounts(active=1)
    totals.add(0, [(WEB, A, BackendCounts(flows=1))])
    totals.look_at(WEB, {A: "web-2"}, 60.0)
    assert totals.of(WEB)[A] == BackendCounts(flows=1)


@pytest.mark.parametrize("looks", [1, 5])
def test_a_backend_that_is_gone_is_forgotten_after_a_while(looks: int) -> None:
    totals = reported(flows=3)
    totals.add(0, [(WEB, B, BackendCounts(flows=1))])
    for now in range(looks):
        totals.look_at(WEB, {B: ""}, float(now))
    totals.forget(KEPT - 0.1)
    assert set(totals.of(WEB)) == {A, B}
    totals.forget(KEPT)
    assert set(totals.of(WEB)) == {B}
    totals.look_at(WEB, {}, KEPT)
    totals.forget(2 * KEPT)
    assert not totals.ports


def test_a_flow_keeps_the_counts_of_a_backend_that_is_gone() -> None:
    totals = reported(flows=1, active=1)
    totals.look_at(WEB, {}, 0.0)
    totals.forget(2 * KEPT)
    assert totals.of(WEB)[A].flows == 1
    totals.add(0, [(WEB, A, BackendCounts())])
    totals.look_at(WEB, {}, 3 * KEPT)
    totals.add(0, [(WEB, A, BackendCounts(flows=1, active=1))])
    totals.forget(4 * KEPT)
    assert totals.of(WEB)[A] == BackendCounts(flows=2, active=1)


def test_a_backend_that_comes_back_in_time_goes_on_counting() -> None:
    totals = reported(flows=1)
    totals.look_at(WEB, {}, 0.0)
    totals.look_at(WEB, {A: ""}, KEPT - 1)
    totals.forget(KEPT + 1)
    assert totals.of(WEB)[A].flows == 1


def test_no_more_than_so_many_gone_backends_are_kept_and_the_oldest_go_first() -> None:
    many = [Backend(f"10.0.{high}.{low}", 80) for high in range(5) for low in range(250)]
    totals = BackendTotals()
    totals.add(0, [(WEB, each, BackendCounts(flows=1)) for each in many])
    totals.look_at(WEB, {}, 0.0)
    totals.forget(1.0)
    assert list(totals.of(WEB)) == many[-MOST_KEPT:]
