"""Services whose backends are there, and do not answer."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pods import Pod, ask, pod, visit
from tests.e2e.program import Program, endpoints, program, service, wait_for
from tests.fake_api.kinds import EVENTS
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread
from tests.ports import free_port

HERE = "127.0.0.1"
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}}
PATIENCE = 60.0
"""Seconds; it takes 10 until something is said."""


@pytest.fixture
def api() -> Iterator[ThreadedApi]:
    with in_thread(FakeApi()) as running:
        running.call(lambda server: server.apply(NODE))
        yield running


def events(api: ThreadedApi) -> dict[str, dict[str, Any]]:
    items = api.call(lambda server: [each.data for each in server.store.items(EVENTS).values()])
    return {each["reason"]: each for each in items}


def explain(uproxy: Program, name: str) -> str:
    url = f"http://127.0.0.1:{uproxy.metrics}"
    command = [sys.executable, "-m", "uproxy.cli", "explain", name, "--url", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def attempt(port: int) -> None:
    """A client of each protocol, in vain or not."""
    with suppress(OSError):
        visit(HERE, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((HERE, port))
        for _ in range(2):
            with suppress(OSError):
                sock.send(b"hello")


def both(backend: Pod) -> list[dict[str, Any]]:
    """EndpointSlices for both protocols."""
    udp = endpoints("web", [backend], port="u", protocol="UDP")
    return [*endpoints("web", [backend], port="t"), *udp]


def test_a_service_that_nobody_answers_is_degraded_until_somebody_does(
    api: ThreadedApi, tmp_path: Path
) -> None:
    port, other, nobody = free_port(), free_port(), free_port()
    ports = [
        {"name": "t", "port": 80, "nodePort": port},
        {"name": "u", "port": 80, "nodePort": port, "protocol": "UDP"},
        {"name": "fine", "port": 81, "nodePort": other},
    ]
    source = ["--kubeconfig", str(write_kubeconfig(tmp_path / "kubeconfig", api.url))]
    options = ["--nodeport-addresses", "127.0.0.1/32"]
    with (
        pod("a") as a,
        program(tmp_path, *options, workers=1, source=source) as uproxy,
    ):
        wrong = both(a)
        for each in wrong:
            each["endpoints"][0]["addresses"] = ["127.0.0.88"]
            each["ports"][0]["port"] = nobody
        fine = endpoints("web", [a], port="fine")
        api.call(lambda server: server.apply(service("web", ports=ports), *wrong, *fine))

        def states(*wanted: str) -> bool:
            attempt(port)
            with suppress(OSError):
                visit(HERE, other)
            frontends = (f"{port}/TCP", f"{port}/UDP", f"{other}/TCP")
            found = [uproxy.frontend(f"127.0.0.1:{each}") for each in frontends]
            return [each.get("state") for each in found] == list(wanted)

        wait_for("it is noticed", lambda: states("degraded", "degraded", "serving"), PATIENCE)
        frontend = uproxy.frontend(f"127.0.0.1:{port}/TCP")
        assert frontend["reason"] == f"no backend answers: a (127.0.0.88:{nobody})"
        assert frontend["failing"] == [f"127.0.0.88:{nobody}"]
        line = f"WARNING default/web:t: no backend answers: a (127.0.0.88:{nobody})"
        assert uproxy.log.count(line) == 1
        assert uproxy.get(uproxy.health, "/readyz") == (200, "ok"), "this node is fine"
        said = explain(uproxy, "web")
        assert "default/web is open, but no backend answers on 4 of its 6 frontends." in said
        rows = [line.split()[:2] for line in said.splitlines() if "does not answer" in line]
        assert rows == [["a", f"127.0.0.88:{nobody}"]] * 2
        wait_for("the Event", lambda: "BackendsUnreachable" in events(api))
        assert f"127.0.0.88:{nobody}" in events(api)["BackendsUnreachable"]["note"]
        api.call(lambda server: server.apply(*both(a)))
        wait_for("it is over", lambda: states(*["serving"] * 3), PATIENCE)
        assert (visit(HERE, port), ask(HERE, port)) == ("a", "a hello")
        wait_for("it is told", lambda: "Recovered" in events(api))
        assert uproxy.log.count("INFO    default/web:t: backends answer again") == 1
