"""Events as requests: one object for repetitions, and a limit for floods."""

from __future__ import annotations

import pytest

from tests.nasty import NASTY
from uproxy.core.printable import printable
from uproxy.core.report.event_log import BURST, REFILL, SERIES_TIME, EventLog, EventRequest
from uproxy.core.report.problems import Event, Reference, starting

SERVICE = Reference("Service", "shop", "web")
TAKEN = Event(SERVICE, "Warning", "FailedToListen", "Listen", "port 80 is taken")
WALL = 1767225600.25
"""2026-01-01T00:00:00.25Z"""
COLLECTION = "/apis/events.k8s.io/v1/namespaces/shop/events"


def asked(log: EventLog, event: Event = TAKEN, at: float = 0.0) -> EventRequest:
    request = log.request(event, uid="u-1", now=at, wall=WALL + at)
    assert request is not None
    return request


def test_the_first_one_is_created() -> None:
    request = asked(EventLog("n1"))
    name = f"web.{int(WALL * 1e9):x}"
    assert request == EventRequest(
        "POST",
        COLLECTION,
        "application/json",
        {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "shop"},
            "eventTime": "2026-01-01T00:00:00.250000Z",
            "reportingController": "uproxy",
            "reportingInstance": "uproxy-n1",
            "action": "Listen",
            "reason": "FailedToListen",
            "regarding": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": "shop",
                "name": "web",
                "uid": "u-1",
            },
            "note": "port 80 is taken",
            "type": "Warning",
        },
        TAKEN,
        "u-1",
    )


def test_repetitions_are_counted_in_the_first_one() -> None:
    log = EventLog("n1")
    name = asked(log).body["metadata"]["name"]
    for count, at in ((2, 1.0), (3, 1.0 + SERIES_TIME)):
        request = asked(log, at=at)
        assert (request.method, request.path) == ("PATCH", f"{COLLECTION}/{name}")
        assert request.content_type == "application/merge-patch+json"
        assert request.body["series"]["count"] == count
    assert request.body["series"]["lastObservedTime"] == "2026-01-01T00:06:01.250000Z"


@pytest.mark.parametrize(
    ("second", "at"),
    [
        pytest.param(TAKEN, SERIES_TIME + 1, id="long after"),
        pytest.param(TAKEN._replace(note="other"), 1.0, id="with another note"),
        pytest.param(TAKEN._replace(reason="Other"), 1.0, id="with another reason"),
        pytest.param(
            TAKEN._replace(regarding=SERVICE._replace(name="x")), 1.0, id="about another object"
        ),
    ],
)
def test_what_is_no_repetition(second: Event, at: float) -> None:
    log = EventLog("n1")
    asked(log)
    assert asked(log, second, at).method == "POST"


def test_a_lost_one_is_created_anew() -> None:
    log = EventLog("n1")
    request = asked(log)
    log.forget(request)
    log.forget(request)
    assert asked(log, at=1.0).method == "POST"


def test_each_object_has_a_budget() -> None:
    log = EventLog("n1")
    for number in range(BURST):
        asked(log, TAKEN._replace(note=str(number)))
    assert log.request(TAKEN, uid="u-1", now=1.0, wall=WALL) is None
    asked(log, TAKEN._replace(regarding=SERVICE._replace(name="other")), at=1.0)
    assert log.request(TAKEN, uid="u-1", now=REFILL - 1, wall=WALL) is None
    asked(log, at=REFILL + 1)
    assert log.request(TAKEN, uid="u-1", now=REFILL + 2, wall=WALL) is None
    for number in range(BURST):
        asked(log, TAKEN._replace(note=str(number)), at=1000 * REFILL)
    assert log.request(TAKEN, uid="u-1", now=1000 * REFILL, wall=WALL) is None


def test_an_object_that_was_created_again_is_another_object() -> None:
    """kubectl describe shows only Events with the uid that the object has now."""
    log = EventLog("n1")
    for _ in range(BURST):
        asked(log)
    assert log.request(TAKEN, uid="u-1", now=1.0, wall=WALL) is None
    again = log.request(TAKEN, uid="u-2", now=1.0, wall=WALL)
    assert again is not None
    assert (again.method, again.body["regarding"]["uid"]) == ("POST", "u-2")


def test_what_is_remembered_is_bounded() -> None:
    log = EventLog("n1")
    asked(log)
    for number in range(5000):
        asked(log, TAKEN._replace(regarding=SERVICE._replace(name=str(number))))
    assert asked(log, at=1.0).method == "POST"


def test_events_about_the_node_are_in_the_default_namespace() -> None:
    request = asked(EventLog("n1"), starting("n1", "1.2.3"))
    assert request.path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert request.body["metadata"]["namespace"] == "default"
    assert request.body["regarding"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "n1",
        "uid": "u-1",
    }
    assert (request.body["type"], request.body["reason"]) == ("Normal", "Starting")


@pytest.mark.parametrize(
    "note",
    [
        pytest.param("x" * 2000, id="ASCII"),
        pytest.param("ü" * 1000, id="cut within a character"),
    ],
)
def test_long_notes_are_cut(note: str) -> None:
    cut = asked(EventLog("n1"), TAKEN._replace(note=note)).body["note"]
    assert len(cut.encode()) in (1023, 1024)
    assert cut.endswith("...")


def test_a_long_node_name_fits() -> None:
    assert len(asked(EventLog("n" * 250)).body["reportingInstance"]) == 128


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_notes_are_fit_to_print(text: str) -> None:
    note = asked(EventLog("n1"), TAKEN._replace(note=f"port {text} is taken")).body["note"]
    assert note == f"port {printable(text)} is taken"
    long = asked(EventLog("n1"), TAKEN._replace(note=text * 1000)).body["note"]
    assert long.isprintable()
    assert len(long.encode()) <= 1024
