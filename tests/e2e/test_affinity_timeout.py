"""Kubernetes' end-to-end case "should have session affinity timeout work"."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pods import ask, pod, visit
from tests.e2e.program import endpoints, program, service, wait_for, write
from tests.ports import free_port

HERE = "127.0.0.1"
ADDRESS = "127.10.0.31"
SHORT, LONG = 1, 10800
"""Seconds. Kubernetes' own case has 125."""


def visited(protocol: str, address: str, port: int) -> str:
    """The name of the pod that serves a new flow."""
    return visit(address, port) if protocol == "TCP" else ask(address, port).split()[0]


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_after_its_timeout_a_client_is_balanced_and_then_stays_there(
    tmp_path: Path, workers: int, protocol: str
) -> None:
    port, node_port = free_port(), free_port()

    def web(timeout: int) -> dict[str, Any]:
        return service(
            "web",
            clusterIP=ADDRESS,
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": timeout}},
            ports=[{"name": "main", "port": port, "nodePort": node_port, "protocol": protocol}],
        )

    manifests = tmp_path / "manifests"
    manifests.mkdir()
    with pod("a") as a, pod("b") as b, pod("c") as c:
        write(manifests, "web.yaml", web(SHORT))
        write(manifests, "slices.yaml", *endpoints("web", [a, b, c], protocol=protocol))
        with program(manifests, workers=workers) as uproxy:
            first = visited(protocol, HERE, node_port)

            def is_elsewhere() -> bool:
                expired = time.monotonic() + SHORT
                wait_for("the pin has expired", lambda: time.monotonic() > expired)
                return visited(protocol, HERE, node_port) != first

            wait_for("another pod", is_elsewhere)
            # From here on no pin expires, however slow this machine is.
            write(manifests, "web.yaml", web(LONG))
            frontend, prolonged = f"{ADDRESS}:{port}/{protocol}", {"timeoutSeconds": LONG}
            wait_for(
                "the timeout",
                lambda: uproxy.frontend(frontend).get("sessionAffinity") == prolonged,
            )
            chosen = visited(protocol, HERE, node_port)
            for address, number in ((HERE, node_port), (ADDRESS, port)):
                assert {visited(protocol, address, number) for _ in range(15)} == {chosen}
