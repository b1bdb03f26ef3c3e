"""Ports with a protocol that is not served, beside others."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.e2e.pods import ask, pod, visit
from tests.e2e.program import endpoints, program, service, wait_for, write
from tests.ports import free_port

HERE = "127.0.0.1"


def test_other_ports_of_a_service_with_sctp_are_served(tmp_path: Path) -> None:
    """With the same numbers, as Kubernetes allows it for different protocols."""
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    number = free_port()
    ports = [
        {"name": name, "port": 80, "nodePort": number, "protocol": protocol}
        for name, protocol in (("s", "SCTP"), ("t", "TCP"), ("u", "UDP"), ("r", "SCTP"))
    ]
    with pod("a") as a:
        slices = [
            *endpoints("web", [a], port="t"),
            *endpoints("web", [a], port="u", protocol="UDP"),
            *endpoints("web", [a], port="s", protocol="SCTP"),
        ]
        strange = service("strange", ports=[{"name": "x", "port": 80, "protocol": "QUIC"}])
        write(manifests, "web.yaml", service("web", ports=ports), strange, *slices)
        with program(manifests) as uproxy:
            assert visit(HERE, number) == "a"
            assert ask(HERE, number, "hello") == "a hello"
            status = uproxy.status()
            assert status["services"] == [
                {
                    "service": "default/strange",
                    "reason": 'port "x": protocol QUIC is not supported; TCP and UDP are',
                },
                {
                    "service": "default/web",
                    "reason": 'ports "s", "r": protocol SCTP is not supported; TCP and UDP are',
                },
            ]
            assert {each["protocol"] for each in status["frontends"]} == {"TCP", "UDP"}
            assert status["objects"] == []
            # A connection is not disturbed when the SCTP ports go.
            with socket.create_connection((HERE, number), 20) as client:
                assert client.recv(100) == b"a\n"
                write(manifests, "web.yaml", service("web", ports=ports[1:3]), *slices)
                wait_for("no reason", lambda: uproxy.status()["services"] == [])
                client.sendall(b"still here")
                assert client.recv(100) == b"still here"
