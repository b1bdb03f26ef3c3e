"""Records of flows that have ended."""

from __future__ import annotations

import pytest

from uproxy.core.flows.flow_record import Ender, FlowRecord, Phase
from uproxy.core.route import Backend, Frontend, ServicePortName


@pytest.mark.parametrize(
    ("ender", "phase", "bad"),
    [
        (Ender.BOTH, Phase.COMPLETE, False),
        (Ender.KILLED, Phase.COMPLETE, False),
        (Ender.CLIENT, Phase.DATA, True),
        (Ender.BACKEND, Phase.CONNECTING, True),
        (Ender.IDLE, Phase.LAST, True),
        (Ender.IDLE, Phase.DATA, True),
        (Ender.IDLE, Phase.CONNECTING, False),
    ],
)
def test_bad_ends(ender: Ender, phase: Phase, bad: bool) -> None:
    record = FlowRecord(
        number=1,
        start=0.0,
        duration=1.0,
        client="192.0.2.1",
        client_port=40000,
        frontend=Frontend("TCP", "192.0.2.9", 80),
        owner=ServicePortName("default", "web", "", "TCP"),
        backend=Backend("10.0.0.1", 8080),
        client_bytes=1,
        backend_bytes=2,
        dial_time=0.001,
        attempts=1,
        code=ender + phase,
    )
    assert record.is_bad is bad
