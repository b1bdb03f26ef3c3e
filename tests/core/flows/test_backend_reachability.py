"""When a Service port that is open counts as one without a backend that answers."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from uproxy.core.flows.backend_reachability import LEAST, QUIET, WINDOW, Attempts, Reachability
from uproxy.core.flows.counters import Counters
from uproxy.core.route import Backend, ServicePortName

WEB = ServicePortName("default", "web", "http", "TCP")
DNS = ServicePortName("kube-system", "dns", "dns", "UDP")
A, B = Backend("10.0.0.1", 80), Backend("10.0.0.2", 80)


def both(_: ServicePortName) -> Collection[Backend]:
    return (A, B)


def failed(
    times: int = 1, *failing: Backend, port: ServicePortName = WEB, dials: int = 0
) -> Attempts:
    return Attempts(port, Counters(dial_failures=times, dials=dials), failing or (A, B))


def worked(
    port: ServicePortName = WEB,
    *,
    dials: int = 0,
    backend_bytes: int = 0,
    backend_datagrams: int = 0,
) -> Attempts:
    counters = Counters(
        dials=dials, backend_bytes=backend_bytes, backend_datagrams=backend_datagrams
    )
    return Attempts(port, counters)


class Told:
    """A Reachability that takes a report and is asked for changes at the same time."""

    def __init__(self) -> None:
        self.reachability = Reachability()

    def at(self, now: float, *attempts: Attempts) -> str:
        """What changes: "-" nothing, "degraded", "recovered"."""
        self.reachability.record(attempts, now)
        changes = self.reachability.check(both, now)
        if not changes:
            return "-"
        return "recovered" if changes.recovered else "degraded"


@pytest.mark.parametrize(
    ("story", "told"),
    [
        pytest.param([(0, failed(99))], ["-"], id="a moment says nothing"),
        pytest.param([(0, failed(1)), (60, failed(1))], ["-", "-"], id="nor do two attempts"),
        pytest.param(
            [(0, failed(1)), (5, failed(1)), (WINDOW, failed(1))],
            ["-", "-", "degraded"],
            id="nothing but failures for a while",
        ),
        pytest.param(
            [(0, failed(4)), (60, failed(4)), (90, failed(4))],
            ["-", "degraded", "-"],
            id="a client a minute, told once",
        ),
        pytest.param(
            [
                (0, failed(9)),
                (9, worked(dials=1)),
                (12, failed(9)),
                (21, failed(9)),
                (22, failed(9)),
            ],
            ["-", "-", "-", "-", "degraded"],
            id="a success begins the count anew",
        ),
        pytest.param(
            [(second, failed(9, dials=1)) for second in range(0, 60, 5)],
            ["-"] * 12,
            id="some succeed",
        ),
        pytest.param(
            [(0, failed(9)), (10, failed(9)), (11, worked(dials=1))],
            ["-", "degraded", "recovered"],
            id="the first success is enough",
        ),
        pytest.param(
            [(0, failed(9)), (10, failed(9)), (60, worked(backend_bytes=9))],
            ["-", "degraded", "-"],
            id="bytes of an old connection are no success",
        ),
        pytest.param(
            [(0, failed(9)), (10, failed(9)), (9 + QUIET,), (10 + QUIET,)],
            ["-", "degraded", "-", "recovered"],
            id="no attempt for long",
        ),
        pytest.param(
            [(0, failed(9, port=DNS)), (10, failed(9, port=DNS)), (11, worked(DNS))],
            ["-", "degraded", "-"],
            id="UDP",
        ),
        pytest.param(
            [
                (0, failed(9, port=DNS)),
                (10, failed(9, port=DNS)),
                (11, worked(DNS, backend_datagrams=1)),
            ],
            ["-", "degraded", "recovered"],
            id="UDP with an answer",
        ),
        pytest.param(
            [(0, failed(9), failed(9, port=DNS)), (10, failed(9), worked(DNS, backend_bytes=1))],
            ["-", "degraded"],
            id="each port by itself",
        ),
    ],
)
def test_stories(story: list[tuple[float, *tuple[Attempts, ...]]], told: list[str]) -> None:
    teller = Told()
    assert [teller.at(now, *attempts) for now, *attempts in story] == told


def test_the_reason_names_backends() -> None:
    told = Told()
    told.at(0, failed(LEAST, A))
    told.at(WINDOW, failed(LEAST, B))
    (port,) = told.reachability.degraded.values()
    assert port.reason == "no backend answers: 10.0.0.1:80, 10.0.0.2:80"


def test_the_reason_has_a_length() -> None:
    many = tuple(Backend(f"10.0.{high}.{low}", 80) for high in range(4) for low in range(250))
    reachability = Reachability()
    for now in (0, WINDOW):
        reachability.record([failed(1000, *many)], now)
        reachability.check(lambda _: many, now)
    (port,) = reachability.degraded.values()
    assert port.reason.endswith("10.0.0.4:80 and 995 more")


def test_failures_of_backends_that_have_left_say_nothing() -> None:
    reachability = Reachability()
    reachability.record([failed(9, A)], 0)
    reachability.record([failed(9, A)], 10)
    assert reachability.check(lambda _: (B,), 10) == ({}, set())
    reachability.record([failed(9, A, B)], 20)
    reachability.record([failed(9, A, B)], 30)
    assert list(reachability.check(both, 30).degraded) == [WEB]
    changes = reachability.check(lambda _: (), 31)
    assert changes.recovered == {WEB}, "a Service that is gone is not kept"
    assert reachability.degraded == {}
