"""What a worker reports of its counters."""

from __future__ import annotations

from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.route import ServicePortName
from uproxy.dataplane.count_reports import CountReports
from uproxy.dataplane.ports import Ports

NAME = ServicePortName("default", "dns", "dns", "UDP")


def test_a_datagram_that_is_refused_after_it_was_reported_makes_no_sum_fall() -> None:
    ports = Ports(lambda: 0.5)
    reports = CountReports(ports)
    counters = ports.get(NAME).counters
    counters.flows = counters.active = 1
    counters.client_datagrams, counters.client_bytes = 3, 300
    reported = Counters(dropped={})
    reported.add(reports.changes({NAME})[0][1])
    # The last datagram was not decided yet: the kernel refuses it.
    counters.client_datagrams, counters.client_bytes = 2, 200
    counters.drop(DropReason.BUFFER_FULL)
    ((_, added),) = reports.changes({NAME})
    assert added == Counters(active=1, dropped={"buffer_full": 1})
    reported.add(added)
    assert not reports.changes({NAME})
    counters.client_datagrams, counters.client_bytes = 4, 500
    reported.add(reports.changes({NAME})[0][1])
    assert (reported.client_datagrams, reported.client_bytes) == (4, 500)


def test_a_port_of_which_too_much_was_reported_is_forgotten_as_well() -> None:
    ports = Ports(lambda: 0.5)
    reports = CountReports(ports)
    counters = ports.get(NAME).counters
    counters.client_datagrams = 3
    assert reports.changes({NAME})
    counters.client_datagrams = 2
    assert not reports.changes(())
    assert not ports.all


def test_every_field_is_reported_and_added_up() -> None:
    """`Counters.add` and the reports list the fields by name, and could forget a new one."""
    ports = Ports(lambda: 0.5)
    counters = ports.get(NAME).counters
    for number, field in enumerate(Counters.__struct_fields__, 1):
        setattr(counters, field, {"idle": number} if field == "dropped" else number)
    ((_, report),) = CountReports(ports).changes({NAME})
    assert report == counters
    counted = Counters(dropped={})
    counted.add(report)
    assert counted == counters
