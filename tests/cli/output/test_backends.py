"""The table of backends in `uproxy explain`."""

from __future__ import annotations

from tests.cli.views import backend, port
from uproxy.cli.output.backends import backend_table, failed_dials, pod_names
from uproxy.core.report.port_format import BackendView

ASIDE = backend(
    "10.0.0.2:8080",
    pod="web-2",
    node="n1",
    zone="a",
    state="set aside",
    reason="attempts to reach it have failed",
    aside_until="2026-11-22T12:03:04Z",
    aside_workers=2,
    failures={"ECONNREFUSED": 3, "ETIMEDOUT": 45},
    last_error="ECONNREFUSED",
    last_error_at="2026-11-22T12:02:59Z",
    flows=1200,
    active_flows=3,
    client_bytes=1000,
    backend_bytes=2_500_000,
    connect_p50=0.0012,
    connect_p99=2.5,
)


def table(
    *backends: BackendView, failing: tuple[str, ...] = (), width: int | None = None
) -> list[str]:
    return list(backend_table(port(*backends), failing, workers=4, width=width))


def test_no_backends() -> None:
    assert table() == []


def test_everything_that_is_known() -> None:
    assert table(backend("10.0.0.1:8080", pod="web-1"), ASIDE, failing=("10.0.0.2:8080",)) == [
        "",
        "  POD    ADDRESS        STATE      FLOWS  ACTIVE  FAILED  REMARKS",
        "  web-2  10.0.0.2:8080  set aside   1.2k       3      48  does not answer; "
        "gets no new flow until 12:03:04 UTC from 2 of 4 workers; "
        "45 ETIMEDOUT (connection timed out), 3 ECONNREFUSED (connection refused), "
        "the last, ECONNREFUSED, at 2026-11-22 12:02:59 UTC; "
        "connects in 1.2 ms (p99 2.5 s); 1.0 kB in, 2.5 MB out; on n1 in zone a",
        "  web-1  10.0.0.1:8080  used           0       0       0",
    ]


def test_reasons_and_places() -> None:
    lines = table(
        backend("10.0.0.1:80", state="elsewhere", reason="its topology hints are for b"),
        backend("10.0.0.2:80", zone="b"),
        backend("10.0.0.3:80", node="n3", failures={"ENEW": 1}, last_error="ENEW"),
    )
    assert [line.rpartition("  ")[2] for line in lines[2:]] == [
        "1 ENEW; on n3",
        "its topology hints are for b",
        "in zone b",
    ]


def test_a_narrow_terminal_gets_the_remarks_below() -> None:
    lines = table(ASIDE, width=80)
    assert max(map(len, lines)) <= 80
    assert lines[2] == "  web-2  10.0.0.2:8080  set aside   1.2k       3      48"


def test_who_has_failed_most() -> None:
    found = [backend(f"10.0.0.{n}:80", failures={"EIO": n, "EPERM": 1}) for n in range(1, 6)]
    assert failed_dials(port(ASIDE, *found)) == (
        "web-2: 48, 10.0.0.5:80: 6, 10.0.0.4:80: 5, 3 more"
    )
    assert failed_dials(port(backend("10.0.0.1:80"))) == ""


def test_names_of_pods() -> None:
    assert pod_names([port(ASIDE, backend("10.0.0.1:80"))]) == {"10.0.0.2:8080": "web-2"}
