"""Service ports and their backends as /api/v1/routes shows them."""

from __future__ import annotations

import msgspec
import pytest

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.backend_totals import Exclusion
from uproxy.core.flows.counters import Counters
from uproxy.core.report.backends import BackendState, BackendStatus, Moment, PortStatus
from uproxy.core.report.port_format import port_view, quantile
from uproxy.core.route import Backend, ServicePortName

WEB = ServicePortName("default", "web", "http", "TCP")
AT = Moment(monotonic=100.0, wall=1_700_000_000.0)


def test_every_field() -> None:
    failing = BackendStatus(
        backend=Backend("fd00::1", 8080),
        pod="web-1",
        node="n1",
        zone="z1",
        state=BackendState.ASIDE,
        reason="attempts to reach it have failed",
        exclusion=Exclusion(until=104.0, workers=2),
        counts=BackendCounts(
            flows=5,
            active=1,
            client_bytes=10,
            backend_bytes=20,
            retries=2,
            failures={"ETIMEDOUT": 3, "ECONNREFUSED": 1},
            connect_times=[4, *[0] * 13],
            connect_seconds=0.002,
            ejections=7,
            last_error="ETIMEDOUT",
            last_error_at=1_699_999_990.0,
        ),
    )
    fine = BackendStatus(
        backend=Backend("10.0.0.2", 8080), state=BackendState.USED, counts=BackendCounts()
    )
    view = port_view(PortStatus(WEB, 80, [failing, fine]), Counters(flows=5, active=1), AT)
    shown = msgspec.to_builtins(view)
    first, second = shown.pop("backends")
    assert shown.pop("counts")["activeFlows"] == 1
    assert shown == {
        "service": "default/web",
        "servicePort": "http",
        "protocol": "TCP",
        "port": 80,
    }
    assert first == {
        "address": "[fd00::1]:8080",
        "pod": "web-1",
        "node": "n1",
        "zone": "z1",
        "state": "set aside",
        "reason": "attempts to reach it have failed",
        "asideUntil": "2023-11-14T22:13:24Z",
        "asideWorkers": 2,
        "flows": 5,
        "activeFlows": 1,
        "clientBytes": 10,
        "backendBytes": 20,
        "retries": 2,
        "ejections": 7,
        "failures": {"ECONNREFUSED": 1, "ETIMEDOUT": 3},
        "lastError": "ETIMEDOUT",
        "lastErrorAt": "2023-11-14T22:13:10Z",
        "connectTimes": [4, *[0] * 13],
        "connectSeconds": 0.002,
        "connectP50": 0.0005,
        "connectP99": 0.00099,
    }
    assert (second["asideUntil"], second["asideWorkers"], second["lastErrorAt"]) == (None, 0, None)
    assert (second["connectTimes"], second["connectP50"], second["failures"]) == ([], None, {})


@pytest.mark.parametrize(
    ("times", "fraction", "seconds"),
    [
        ([], 0.5, None),
        ([0] * 14, 0.5, None),
        ([10], 0.5, 0.0005),
        ([0, 10], 0.5, 0.0015),
        ([0, 10], 1.0, 0.002),
        ([5, 0, 0, 5], 0.5, 0.001),
        ([5, 0, 0, 5], 0.6, 0.0048),
        ([*[0] * 13, 9], 0.5, 4.096),
        ([99, *[0] * 12, 1], 0.99, 0.001),
        ([99, *[0] * 12, 1], 0.999, 4.096),
    ],
)
def test_quantiles(times: list[int], fraction: float, seconds: float | None) -> None:
    assert quantile(times, fraction) == pytest.approx(seconds)
