"""When backends count as not answering."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.backend_reachability import LEAST, QUIET, WINDOW, Failing, Reachability
from uproxy.core.flows.backend_totals import BackendReport
from uproxy.core.route import Backend, ServicePortName

WEB = ServicePortName("default", "web", "http", "TCP")
DNS = ServicePortName("kube-system", "dns", "dns", "UDP")
A, B = Backend("10.0.0.1", 80), Backend("10.0.0.2", 80)


def both(_: ServicePortName) -> Collection[Backend]:
    return (A, B)


def failed(
    times: int = 1,
    backend: Backend = A,
    *,
    port: ServicePortName = WEB,
    dials: int = 0,
    error: str = "ECONNREFUSED",
) -> BackendReport:
    counts = BackendCounts(failures={error: times}, connect_times=[dials] if dials else [])
    return port, backend, counts


def worked(
    backend: Backend = A,
    *,
    port: ServicePortName = WEB,
    dials: int = 0,
    flows: int = 0,
    backend_bytes: int = 0,
) -> BackendReport:
    times = [dials] if dials else []
    counts = BackendCounts(flows=flows, connect_times=times, backend_bytes=backend_bytes)
    return port, backend, counts


class Told:
    """A Reachability that takes a report and is asked for changes at the same time."""

    def __init__(self) -> None:
        self.reachability = Reachability()

    def at(self, now: float, *reports: BackendReport) -> str:
        """What changes: "-" nothing, "all" or "some" fail, "recovered"."""
        self.reachability.record(reports, now)
        changes = self.reachability.check(list(self.reachability.ports), both, now)
        if not changes:
            return "-"
        if changes.recovered:
            return "recovered"
        (failing,) = changes.degraded.values()
        return "all" if failing.none_answers else "some"


@pytest.mark.parametrize(
    ("story", "told"),
    [
        pytest.param([(0, failed(99))], ["-"], id="a moment says nothing"),
        pytest.param([(0, failed(1)), (60, failed(1))], ["-", "-"], id="nor do two attempts"),
        pytest.param(
            [(0, failed(1)), (5, failed(1)), (WINDOW, failed(1))],
            ["-", "-", "all"],
            id="nothing but failures for a while",
        ),
        pytest.param(
            [(0, failed(4)), (60, failed(4)), (90, failed(4))],
            ["-", "all", "-"],
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
            ["-", "-", "-", "-", "all"],
            id="a success begins the count anew",
        ),
        pytest.param(
            [(second, failed(9, dials=1)) for second in range(0, 60, 5)],
            ["-"] * 12,
            id="a backend that answers now and then",
        ),
        pytest.param(
            [(second, failed(9), worked(B, dials=5)) for second in range(0, 15, 5)],
            ["-", "-", "some"],
            id="one of two",
        ),
        pytest.param(
            [
                *((second, failed(9), worked(B, dials=5)) for second in range(0, 15, 5)),
                (20, failed(9), failed(9, B)),
                (31, failed(9), failed(9, B)),
            ],
            ["-", "-", "some", "-", "all"],
            id="first one, then both",
        ),
        pytest.param(
            [
                (0, failed(9), failed(9, B)),
                (10, failed(9), failed(9, B)),
                (11, worked(dials=1)),
                (12, worked(B, dials=1)),
            ],
            ["-", "all", "some", "recovered"],
            id="both, and one after the other answers again",
        ),
        pytest.param(
            [(0, failed(9)), (10, failed(9)), (11, worked(dials=1))],
            ["-", "all", "recovered"],
            id="the first success is enough",
        ),
        pytest.param(
            [(0, failed(9)), (10, failed(9)), (60, worked(backend_bytes=9))],
            ["-", "all", "-"],
            id="bytes of an old connection are no success",
        ),
        pytest.param(
            [(0, failed(9)), (10, failed(9)), (9 + QUIET,), (10 + QUIET,)],
            ["-", "all", "-", "recovered"],
            id="no attempt for long",
        ),
        pytest.param(
            [(now, failed(9, error="EADDRNOTAVAIL")) for now in (0, 10)],
            ["-", "-"],
            id="this node is out of ports",
        ),
        pytest.param(
            [
                (0, failed(9, port=DNS)),
                (10, failed(9, port=DNS)),
                (11, worked(port=DNS, flows=1)),
            ],
            ["-", "all", "-"],
            id="UDP",
        ),
        pytest.param(
            [
                (0, failed(9, port=DNS)),
                (10, failed(9, port=DNS)),
                (11, worked(port=DNS, backend_bytes=1)),
            ],
            ["-", "all", "recovered"],
            id="UDP with an answer",
        ),
        pytest.param(
            [
                (0, failed(9), failed(9, port=DNS)),
                (10, failed(9), worked(port=DNS, backend_bytes=1)),
            ],
            ["-", "all"],
            id="each port by itself",
        ),
    ],
)
def test_stories(story: list[tuple[float, *tuple[BackendReport, ...]]], told: list[str]) -> None:
    teller = Told()
    assert [teller.at(now, *reports) for now, *reports in story] == told


def test_the_reason_names_backends() -> None:
    told = Told()
    told.at(0, failed(LEAST, A))
    told.at(WINDOW, failed(LEAST, B))
    (port,) = told.reachability.degraded.values()
    assert port.reason == "no backend answers: 10.0.0.1:80, 10.0.0.2:80"


def test_the_reason_names_pods() -> None:
    reachability = Reachability()
    for now in (0, WINDOW):
        reachability.record([failed(9, A), worked(B, dials=1)], now)
    changes = reachability.check([WEB], both, WINDOW, lambda _: {"10.0.0.1": "web-7"})
    assert changes.degraded[WEB].reason == "1 of 2 backends does not answer: web-7 (10.0.0.1:80)"
    assert reachability.degraded == changes.degraded
    assert not reachability.check([WEB], both, WINDOW, lambda _: {})


def test_the_reason_has_a_length() -> None:
    many = tuple(Backend(f"10.0.{high}.{low}", 80) for high in range(4) for low in range(250))
    reachability = Reachability()
    for now in (0, WINDOW):
        reachability.record([failed(1, each) for each in many], now)
        reachability.check([WEB], lambda _: many, now)
    (port,) = reachability.degraded.values()
    assert port.reason.endswith("10.0.0.4:80 and 995 more")
    assert Failing(many, 2000, none_answers=False).reason.startswith("1,000 of 2,000 backends do")


def test_failures_of_backends_that_have_left_say_nothing() -> None:
    reachability = Reachability()
    reachability.record([failed(9, A)], 0)
    reachability.record([failed(9, A)], 10)
    assert reachability.check([WEB], lambda _: (B,), 10) == ({}, [])
    for now in (20, 30):
        reachability.record([failed(9, A), failed(9, B)], now)
    assert list(reachability.check([WEB], both, 30).degraded) == [WEB]
    changes = reachability.check([WEB], lambda _: (), 31)
    assert changes.recovered == [WEB], "a Service that is gone is not kept"
    assert reachability.degraded == {}
    assert not reachability.ports


OUTAGE = [(now, failed(port=DNS)) for now in (0.0, 5.0, WINDOW)]


def sent(port: ServicePortName = DNS) -> BackendReport:
    return port, A, BackendCounts(client_bytes=5)


@pytest.mark.parametrize(
    ("story", "told"),
    [
        pytest.param([(20, sent()), (29, sent())], ["-", "-"], id="not for long"),
        pytest.param([(20, sent()), (30, sent())], ["-", "recovered"], id="for a while"),
        pytest.param(
            [(20, sent()), (25, failed(port=DNS)), (30, sent()), (39, sent())],
            ["-", "-", "-", "-"],
            id="with a refusal in between",
        ),
    ],
)
def test_datagrams_that_are_not_refused_show_that_a_backend_is_back(
    story: list[tuple[float, BackendReport]], told: list[str]
) -> None:
    """Backends of syslog and statsd show nothing else."""
    subject = Told()
    assert [subject.at(now, report) for now, report in OUTAGE] == ["-", "-", "all"]
    assert [subject.at(now, report) for now, report in story] == told


def test_bytes_of_tcp_do_not_show_that_a_backend_is_back() -> None:
    subject = Told()
    assert [subject.at(now, failed()) for now in (0.0, 5.0, WINDOW)] == ["-", "-", "all"]
    assert [subject.at(now, sent(WEB)) for now in (20.0, 30.0)] == ["-", "-"]
