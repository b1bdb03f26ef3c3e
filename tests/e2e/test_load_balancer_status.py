"""What a real `uproxy run` says about the addresses that it assigns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import Program, program, service, wait_for
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread

FIRST = "127.33.0.1"


def metallb(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "metallb.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "metallb-system"},
        "spec": spec,
    }


def balanced(name: str, created: str, **fields: Any) -> dict[str, Any]:
    ports = [{"name": "main", "port": 80}]
    made = service(name, type="LoadBalancer", ports=ports, **fields)
    made["metadata"]["creationTimestamp"] = created
    return made


OBJECTS = (
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}},
    metallb("IPAddressPool", "only", addresses=[f"{FIRST}-{FIRST}"]),
    metallb("IPAddressPool", "broken", addresses=["nonsense"]),
    metallb("L2Advertisement", "all"),
    balanced("web", "2026-01-01T00:00:00Z"),
    balanced("waiting", "2026-01-02T00:00:00Z"),
    balanced(
        "cloud",
        "2026-01-03T00:00:00Z",
        status={"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}},
    ),
)


@pytest.fixture(scope="module")
def api() -> Iterator[ThreadedApi]:
    with in_thread(FakeApi()) as running:
        running.call(lambda server: server.apply(*OBJECTS))
        yield running


@pytest.fixture(scope="module")
def uproxy(api: ThreadedApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("uproxy")
    path = write_kubeconfig(directory / "kubeconfig", api.url)
    options = ["--lb", "metallb", "--announce", "never", "--drain-timeout", "0s"]
    source = ["--kubeconfig", str(path)]
    with program(directory, *options, workers=1, source=source, ready=False) as running:
        wait_for("status", lambda: running.get(running.metrics, "/api/v1/routes")[0] == 200)
        wait_for("decisions", lambda: found(running, "waiting").get("reason"))
        wait_for("an address", lambda: found(running, "web").get("addresses"))
        yield running


def balancer(uproxy: Program) -> dict[str, Any]:
    shown: dict[str, Any] = uproxy.status()["loadBalancer"]
    return shown


def found(uproxy: Program, name: str) -> dict[str, Any]:
    services = balancer(uproxy)["services"]
    return next((each for each in services if each["service"] == f"default/{name}"), {})


def printed(uproxy: Program, *words: str) -> str:
    command = [sys.executable, "-m", "uproxy.cli", *words]
    command += ["--url", f"http://127.0.0.1:{uproxy.metrics}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_api_says_all(uproxy: Program) -> None:
    assert found(uproxy, "web")["addresses"] == [FIRST]
    assert found(uproxy, "waiting")["addresses"] == []
    assert "203.0.113.9" in found(uproxy, "cloud")["foreign"]
    shown = balancer(uproxy)
    assert shown["mode"] == "metallb"
    assert shown["allocating"] is True
    assert [each["address"] for each in shown["addresses"]] == [FIRST]
    pools = {each["name"]: each for each in shown["pools"]}
    assert pools["only"]["origin"] == "IPAddressPool only"
    assert pools["only"]["counts"]["IPv4"]["free"] == 0
    objects = uproxy.status()["objects"]
    assert any("nonsense" in each["reason"] for each in objects)


def test_a_pool_that_nothing_announces_says_so(tmp_path: Path) -> None:
    objects = [each for each in OBJECTS if each["kind"] != "L2Advertisement"]
    with in_thread(FakeApi()) as api:
        api.call(lambda server: server.apply(*objects))
        path = write_kubeconfig(tmp_path / "kubeconfig", api.url)
        options = ["--lb", "metallb", "--drain-timeout", "0s"]
        source = ["--kubeconfig", str(path)]
        with program(tmp_path, *options, workers=1, source=source, ready=False) as running:
            wait_for("status", lambda: running.get(running.metrics, "/api/v1/routes")[0] == 200)
            wait_for("pools", lambda: [each["name"] for each in balancer(running)["pools"]])
            only = next(each for each in balancer(running)["pools"] if each["name"] == "only")
            assert "no L2Advertisement" in only["reason"]


def test_the_commands_say_the_same(uproxy: Program) -> None:
    text = printed(uproxy, "status")
    assert "Waiting for an address:\n  default/waiting  " in text
    assert "Addresses from other controllers:\n  default/cloud  " in text
    assert "nonsense" in text
    assert f"Address  {FIRST} from pool only" in printed(uproxy, "explain", "web")
    assert "Addresses  none yet: " in printed(uproxy, "explain", "waiting")


def test_the_metrics_count_it(uproxy: Program) -> None:
    text = uproxy.get(uproxy.metrics, "/metrics")[1]
    for state, number in (("assigned", 1), ("pending", 1), ("foreign", 1)):
        assert f'uproxy_load_balancer_services{{state="{state}"}} {number}.0\n' in text
    labels = 'family="IPv4",pool="only"'
    assert f"uproxy_load_balancer_pool_addresses_in_use{{{labels}}} 1.0\n" in text
