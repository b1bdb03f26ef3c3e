"""What an announcer counts."""

from __future__ import annotations

from uproxy.control.load_balancer.tally import Tally
from uproxy.core.report.load_balancer import AnnouncingCounts

VIP, VIP6 = "192.0.2.10", "2001:db8::10"


def test_each_address_that_comes_or_goes_is_a_transition() -> None:
    tally, held = Tally(), {VIP}
    tally.holds(held)
    tally.holds(held)
    held.add(VIP6)  # What is held changes in place.
    tally.holds(held)
    tally.holds({VIP6})
    tally.holds(set())
    assert tally.counts == AnnouncingCounts(transitions=4)


def test_frames_are_counted() -> None:
    tally = Tally()
    tally.announced(VIP)
    tally.announced(VIP6)
    assert tally.counts == AnnouncingCounts(gratuitous=3)


def test_only_what_this_node_announces_can_be_contradicted() -> None:
    tally = Tally()
    tally.heard(VIP)
    tally.holds({VIP})
    tally.heard(VIP)
    tally.heard(VIP6)
    assert tally.counts == AnnouncingCounts(transitions=1, contradictions=1)


def test_writes_that_fail() -> None:
    tally = Tally()
    tally.write_failed()
    tally.write_failed()
    assert tally.counts == AnnouncingCounts(failed_renewals=2)
