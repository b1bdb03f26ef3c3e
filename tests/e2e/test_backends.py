"""Pods that fail, of a Service whose other pods answer: wherever a person or a program may look, it
says which they are, how they fail, and how often."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.e2e.pods import pod, visit
from tests.e2e.program import Program, endpoints, program, service, wait_for, write
from tests.ports import free_port

HERE = "127.0.0.1"
PATIENCE = 60.0
"""Seconds; it takes 10 until a backend counts as one that does not answer."""
GOOD = ["answers", "answers2"]
BAD = ["refuses", "silent"]
"""No more than these two: at most half of all backends are set aside."""


class Served(NamedTuple):
    uproxy: Program
    port: int

    def visit(self) -> str:
        return visit(HERE, self.port)

    def backends(self) -> dict[str, dict[str, Any]]:
        """The backends by the names of their pods."""
        (port,) = self.answer()["ports"]
        return {each["pod"]: each for each in port["backends"]}

    def answer(self) -> Any:
        path = "/api/v1/routes?backends=1&namespace=default&service=web"
        return json.loads(self.uproxy.get(self.uproxy.metrics, path)[1])

    def command(self, *arguments: str) -> str:
        url = f"http://127.0.0.1:{self.uproxy.metrics}"
        command = [sys.executable, "-m", "uproxy.cli", *arguments, "--url", url]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        ).stdout


def silent(stack: ExitStack, address: str) -> int:
    """A port that answers no SYN, since the queue of its socket is full."""
    listener = stack.enter_context(socket.socket())
    listener.bind((address, 0))
    listener.listen(0)
    for _ in range(3):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two pods that answer, one that refuses, and one that is silent. They are visited until it is
    noticed."""
    directory = tmp_path_factory.mktemp("manifests")
    port = free_port()
    with ExitStack() as stack:
        good = [stack.enter_context(pod(name)) for name in GOOD]
        refuses = stack.enter_context(pod("refuses", "127.0.0.2"))
        refuses.close()
        mute = stack.enter_context(pod("silent", "127.0.0.3"))
        mute.port = silent(stack, mute.address)
        slices = endpoints("web", [*good, refuses, mute], port="http")
        for each in slices:
            each["endpoints"][0]["zone"] = "z1"
        ports = [{"name": "http", "port": 80, "nodePort": port}]
        write(directory, "web.yaml", service("web", ports=ports), *slices)
        options = ["--nodeport-addresses", "127.0.0.1/32", "--metrics-per-backend"]
        uproxy = stack.enter_context(program(directory, *options, workers=2))
        served = Served(uproxy, port)

        def noticed() -> bool:
            assert served.visit() in GOOD
            return sorted(uproxy.frontend(f"{HERE}:{port}/TCP").get("failing") or []) == sorted(
                [f"127.0.0.2:{refuses.port}", f"127.0.0.3:{mute.port}"]
            )

        wait_for("both are noticed", noticed, PATIENCE)
        yield served


def active(served: Served) -> list[int]:
    """Flows that are alive. One counts from its first attempt to dial."""
    return [each["activeFlows"] for each in served.backends().values()]


def test_the_api_says_of_each_pod_what_it_got_and_how_it_failed(served: Served) -> None:
    wait_for("all has ended, and is reported", lambda: not any(active(served)))
    found = served.backends()
    assert sorted(found) == [*GOOD, *BAD]
    assert {(each["node"], each["zone"]) for each in found.values()} == {("here", "z1")}
    good, refuses, mute = found["answers"], found["refuses"], found["silent"]
    assert good["state"] == "used"
    assert good["flows"] > 0
    assert good["backendBytes"] == len("answers\n") * good["flows"]
    assert sum(good["connectTimes"]) == good["flows"]
    assert good["failures"] == {}
    assert list(refuses["failures"]) == [refuses["lastError"]] == ["ECONNREFUSED"]
    assert list(mute["failures"]) == [mute["lastError"]] == ["ETIMEDOUT"]
    for bad in (refuses, mute):
        assert (bad["flows"], bad["connectP50"]) == (0, None)
        assert bad["failures"][bad["lastError"]] >= 3
        assert bad["ejections"] > 0
        assert bad["lastErrorAt"].endswith("Z")


def test_the_counts_of_pods_add_up_to_those_of_their_port(served: Served) -> None:
    def agree() -> bool:
        (port,) = served.answer()["ports"]
        counts, backends = port["counts"], port["backends"]
        failures = sum(sum(each["failures"].values()) for each in backends)
        flows = sum(each["flows"] for each in backends)
        retries = sum(each["retries"] for each in backends)
        return [failures, flows, retries] == [
            counts["dialFailures"],
            counts["flows"],
            counts["retries"],
        ]

    wait_for("all is reported", agree)


def test_a_pod_that_failed_is_set_aside_and_said_to_be(served: Served) -> None:
    def aside() -> bool:
        served.visit()
        return bool(served.backends()["refuses"]["asideWorkers"])

    wait_for("it fails again", aside)
    bad = served.backends()["refuses"]
    assert (bad["state"], bad["asideWorkers"] <= 2) == ("set aside", True)


def test_people_are_told_the_names_of_the_pods(served: Served) -> None:
    said = served.command("explain", "web")
    first, *_ = said.splitlines()
    assert "served on its only frontend, but 2 of 4 backends do not answer: " in first
    assert all(f"{name} (127.0.0." in first for name in BAD)
    (dials,) = (line for line in said.splitlines() if "failed dials (" in line)
    assert all(f"{name}: " in dials for name in BAD)
    rows = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ")}
    assert "ECONNREFUSED (connection refused), the last at 20" in rows["refuses"]
    assert "ETIMEDOUT (connection timed out), the last at 20" in rows["silent"]
    assert "connects in" in rows["answers"]
    assert "kubectl describe pod -n default " in said
    status = served.command("status")
    assert "1 degraded" in status
    assert "2 of 4 backends do not answer: " in status
    assert "refuses (127.0.0.2:" in served.uproxy.log


def test_top_has_a_row_for_each_pod(served: Served) -> None:
    lines = served.command("top", "--backends", "--once").splitlines()
    assert sorted(line.split()[0] for line in lines[1:]) == [*GOOD, *BAD]
    document = json.loads(served.command("top", "--backends", "--once", "-o", "json"))
    assert sorted(each["pod"] for each in document["backends"]) == [*GOOD, *BAD]


def test_prometheus_gets_each_pod(served: Served) -> None:
    _, text = served.uproxy.get(served.uproxy.metrics, "/metrics")
    found = {
        (each.labels["pod"], each.labels["errno"]): each.value
        for family in parse_text(text)
        for each in family.samples
        if each.name == "uproxy_per_backend_dial_failures_total"
    }
    assert sorted(found) == [("refuses", "ECONNREFUSED"), ("silent", "ETIMEDOUT")]
    assert min(found.values()) >= 3
    assert "\nuproxy_per_backend_left_out 0.0\n" in text


def test_this_node_stays_ready(served: Served) -> None:
    """Another node would use the same pods."""
    assert served.uproxy.get(served.uproxy.health, "/readyz") == (200, "ok")
    assert "Node here: ready;" in served.command("status")
