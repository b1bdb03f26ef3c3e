"""Frontends that should be open and are not: what /readyz asks for."""

from __future__ import annotations

import pytest

from tests.builders import port, service, table
from uproxy.core.report.overview import frontend_statuses, unserved
from uproxy.core.report.readiness import count_kinds, kinds, not_ready, texts
from uproxy.core.route import Frontend
from uproxy.core.routing.plan import Actual
from uproxy.core.routing.retries import Failure

ONE, TWO = Frontend("TCP", "10.96.0.1", 80), Frontend("TCP", "10.96.0.1", 81)
TABLE = table(service("web", port(80, "a"), port(81, "b")))
TAKEN = Failure("TCP port 81 is taken", absent=False)
ELSEWHERE = Failure("address 10.96.0.1 is not on this node", absent=True)
ONE_WAITS = "default/web: 10.96.0.1:80/TCP is not open: it will be opened in the next sync"
TWO_FAILED = "default/web: 10.96.0.1:81/TCP is not open: TCP port 81 is taken"


@pytest.mark.parametrize(
    ("opened", "failures", "reasons"),
    [
        pytest.param({ONE, TWO}, {}, [], id="all are open"),
        pytest.param({TWO}, {}, [ONE_WAITS], id="one waits for its turn"),
        pytest.param({ONE}, {TWO: TAKEN}, [TWO_FAILED], id="one failed"),
        pytest.param({ONE, TWO}, {TWO: TAKEN}, [TWO_FAILED], id="one could not be resumed"),
        pytest.param({ONE}, {TWO: ELSEWHERE}, [], id="one belongs to another node"),
        pytest.param(set(), {TWO: TAKEN}, [ONE_WAITS, TWO_FAILED], id="none is open"),
    ],
)
def test_reasons(
    opened: set[Frontend], failures: dict[Frontend, Failure], reasons: list[str]
) -> None:
    missing = unserved(TABLE, opened.__contains__, failures)
    assert texts(not_ready(missing, waiting_for=(), draining=False)) == reasons
    actual = {each: Actual(route=TABLE.routes[each], paused=False) for each in opened}
    shown = list(frontend_statuses(TABLE, actual, failures))
    told = texts(not_ready(shown, waiting_for=(), draining=False))
    assert told == reasons, "the status says what /readyz says"


def test_at_the_start_one_line_says_it_all() -> None:
    missing = unserved(TABLE, lambda _: False, {})
    waiting = not_ready(missing, waiting_for=["Services to be listed", "a worker"], draining=False)
    assert texts(waiting) == ["waiting for Services to be listed and a worker"]


def test_kinds_are_counted_without_names() -> None:
    missing = unserved(TABLE, lambda _: False, {TWO: TAKEN})
    found = list(not_ready(missing, waiting_for=(), draining=True))
    assert kinds(found) == ["draining: 1", "frontend not open: 2"]
    assert kinds([]) == []
    assert count_kinds(found * 2) == {"draining": 1, "frontend not open": 2}
