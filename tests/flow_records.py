"""Records of flows, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import msgspec

from uproxy.core.flows.flow_record import FlowRecord
from uproxy.core.route import Backend, Frontend, ServicePortName

WEB = ServicePortName("default", "web", "http", "TCP")
BACKEND = Backend("10.0.0.1", 8080)

_RECORD = FlowRecord(
    number=1,
    start=1_700_000_000.25,
    duration=1.5,
    client="192.0.2.7",
    client_port=50123,
    frontend=Frontend("TCP", "10.96.0.1", 80),
    owner=WEB,
    backend=BACKEND,
    client_bytes=120,
    backend_bytes=45_000,
    dial_time=0.002,
    attempts=1,
    code="--",
    client_rtt=250,
    backend_rtt=1200,
    backend_retransmits=3,
)


def record(number: int = 1, **parts: Any) -> FlowRecord:
    """A good flow, but for what is given."""
    return msgspec.structs.replace(_RECORD, number=number, **parts)
