"""What a flood of one protocol leaves to the other where few files may be open."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.pods import ask, pod, read_line
from tests.e2e.program import endpoints, program, service, wait_for, write
from tests.ports import free_port

HERE = "127.0.0.1"
FEW = 300
"""Open files. After listeners, pipes and a reserve there are 97 TCP flows in it, or 195 of UDP."""


def test_floods_with_few_descriptors(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    port = free_port()
    with pod("a") as a, ExitStack() as clients:
        dns = service(
            "dns",
            ports=[
                {"name": "t", "port": 53, "nodePort": port},
                {"name": "u", "port": 53, "nodePort": port, "protocol": "UDP"},
            ],
        )
        slices = endpoints("dns", [a], port="t") + endpoints("dns", [a], port="u", protocol="UDP")
        write(manifests, "dns.yaml", dns, *slices)
        limit = ("prlimit", f"--nofile={FEW}:{FEW}")
        with program(manifests, workers=1, wrapper=limit) as uproxy:

            def connect() -> socket.socket:
                return clients.enter_context(socket.create_connection((HERE, port), 20))

            for _ in range(FEW):
                assert ask(HERE, port) == "a hello"
            for _ in range(20):
                assert read_line(connect()) == "a"
            for _ in range(FEW):
                connect()
            for _ in range(50):
                assert ask(HERE, port) == "a hello"
            wait_for("few", lambda: 0 < uproxy.status()["workers"][0].get("mostFlows", 0) < 100)
            assert uproxy.counts(f"0.0.0.0:{port}/TCP")["dropped"] == {}
            assert set(uproxy.counts(f"0.0.0.0:{port}/UDP")["dropped"]) == {"capacity"}
            wait_for("a warning", lambda: "the limit on open files lets" in uproxy.log)
