"""Counts of all workers, and of ports that are gone."""

from __future__ import annotations

from uproxy.core.flows.counter_totals import KEPT, MOST_KEPT, CounterTotals
from uproxy.core.flows.counters import Counters
from uproxy.core.route import ServicePortName

WEB = ServicePortName("default", "web", "http", "TCP")
DNS = ServicePortName("default", "dns", "", "UDP")


def everything(_: ServicePortName) -> bool:
    return True


def nothing(_: ServicePortName) -> bool:
    return False


def totals(**active: int) -> CounterTotals:
    """One worker has had a flow of both ports."""
    made = CounterTotals()
    made.add(
        0,
        [
            (WEB, Counters(flows=1, active=active.get("web", 0))),
            (DNS, Counters(flows=1, active=active.get("dns", 0))),
        ],
    )
    return made


def test_what_is_counted_is_added_up_and_flows_are_as_last_reported() -> None:
    made = totals(web=3)
    made.add(1, [(WEB, Counters(flows=5, active=2, dropped={"idle": 1}))])
    made.add(0, [(WEB, Counters(flows=1, active=1, dropped={"idle": 2}))])
    assert made.totals[WEB] == Counters(flows=7, active=3, dropped={"idle": 3})


def test_the_flows_of_a_worker_end_with_it_and_its_counts_stay() -> None:
    made = totals(web=3)
    made.add(1, [(WEB, Counters(flows=5, active=2))])
    made.ended(0)
    made.ended(7)
    assert made.totals[WEB] == Counters(flows=6, active=2)


def test_counts_of_a_port_that_is_gone_are_forgotten_after_a_while() -> None:
    made = totals()
    made.forget(lambda name: name == DNS, now=10.0)
    made.forget(lambda name: name == DNS, now=9.9 + KEPT)
    assert set(made.totals) == {WEB, DNS}
    made.forget(lambda name: name == DNS, now=10.0 + KEPT)
    assert set(made.totals) == {DNS}


def test_a_flow_keeps_the_counts_of_a_port_that_is_gone() -> None:
    made = totals(web=1)
    made.forget(nothing, now=0.0)
    made.forget(nothing, now=2 * KEPT)
    assert set(made.totals) == {WEB}
    made.add(0, [(WEB, Counters(client_bytes=7))])
    assert made.totals[WEB] == Counters(flows=1, client_bytes=7)
    made.forget(nothing, now=2 * KEPT)
    made.forget(nothing, now=2.5 * KEPT)
    assert set(made.totals) == {WEB}
    made.forget(nothing, now=3 * KEPT)
    assert set(made.totals) == set()


def test_a_port_that_comes_back_in_time_goes_on_counting() -> None:
    made = totals()
    made.forget(nothing, now=0.0)
    made.forget(everything, now=KEPT - 1)
    made.forget(nothing, now=KEPT + 1)
    made.add(0, [(WEB, Counters(flows=1))])
    assert made.totals[WEB].flows == 2


def test_of_very_many_ports_that_are_gone_the_first_to_go_are_forgotten_at_once() -> None:
    made = totals()
    made.forget(lambda name: name == WEB, now=0.0)
    for number in range(MOST_KEPT):
        made.add(0, [(ServicePortName("default", f"s{number}", "", "TCP"), Counters(flows=1))])
    made.forget(lambda name: name == WEB, now=1.0)
    assert len(made.totals) == MOST_KEPT + 1
    assert WEB in made.totals
    assert DNS not in made.totals
