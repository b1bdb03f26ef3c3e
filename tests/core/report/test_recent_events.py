"""What happened lately."""

from __future__ import annotations

from uproxy.core.report.problems import Event, Problem, Reference, starting
from uproxy.core.report.recent_events import KEPT, EventView, RecentEvents

WEB = Reference("Service", "shop", "web")
FAILED = Event(WEB, "Warning", "FailedToListen", "Listen", "node n: port 80 is taken")
PROBLEMS = {Problem(WEB, "FailedToListen"): FAILED}


def test_an_event() -> None:
    events = RecentEvents("n")
    events.add([starting("n", "1.2")], wall=5.0)
    assert events.newest_first() == [
        EventView(5.0, "Normal", "Starting", "Node n", "uproxy 1.2 is starting")
    ]


def test_a_problem_is_told_once_and_so_is_its_end() -> None:
    events = RecentEvents("n")
    for wall in (1.0, 2.0):
        events.compare(PROBLEMS, exists=lambda _: True, wall=wall)
    for wall in (3.0, 4.0):
        events.compare({}, exists=lambda _: True, wall=wall)
    assert events.newest_first() == [
        EventView(
            3.0,
            "Normal",
            "Recovered",
            "Service shop/web",
            "node n: FailedToListen has been resolved",
        ),
        EventView(1.0, "Warning", "FailedToListen", "Service shop/web", FAILED.note),
    ]


def test_nothing_recovers_that_is_gone() -> None:
    events = RecentEvents("n")
    events.compare(PROBLEMS, exists=lambda _: True, wall=1.0)
    events.compare({}, exists=lambda _: False, wall=2.0)
    assert [each.reason for each in events.newest_first()] == ["FailedToListen"]


def test_the_oldest_go() -> None:
    events = RecentEvents("n")
    for second in range(KEPT + 3):
        events.add([FAILED], wall=float(second))
    times = [each.time for each in events.newest_first()]
    assert times == [float(second) for second in range(KEPT + 2, 2, -1)]
