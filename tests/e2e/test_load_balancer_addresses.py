"""Services of type LoadBalancer get addresses from real `uproxy run` processes, and keep them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.program import program, service, wait_for
from tests.fake_api.kinds import LEASES, SERVICES
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}}
CONDITION = "uproxy.dev/AddressAssigned"
LEASE = ("kube-system", "uproxy-allocator")
TWO = ("--lb-pool", "127.33.0.1-127.33.0.2")
SHORT = ("--drain-timeout", "0s", "--announce", "never")
kubectl = shutil.which("kubectl")


@pytest.fixture
def api() -> Iterator[ThreadedApi]:
    with in_thread(FakeApi()) as running:
        running.call(lambda server: server.apply(NODE))
        yield running


def uproxy(tmp_path: Path, api: ThreadedApi, *options: str, **more: Any) -> Any:
    """uproxy, watching the cluster."""
    path = write_kubeconfig(tmp_path / "kubeconfig", api.url)
    source = ["--kubeconfig", str(path)]
    return program(tmp_path, *SHORT, *options, workers=1, source=source, **more)


def balanced(name: str, port: int = 80, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "main", "port": port}]
    return service(name, type="LoadBalancer", ports=ports, **spec)


def find(api: ThreadedApi, name: str) -> dict[str, Any]:
    return api.call(lambda server: server.store.get(SERVICES, ("default", name)).data)


def addresses(found: Mapping[str, Any]) -> list[str]:
    balancer = found.get("status", {}).get("loadBalancer", {})
    return [each["ip"] for each in balancer.get("ingress") or ()]


def condition(found: Mapping[str, Any]) -> dict[str, Any]:
    conditions = found.get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == CONDITION), {})


def given(api: ThreadedApi, *names: str) -> dict[str, list[str]]:
    return {name: addresses(find(api, name)) for name in names}


def allocator(api: ThreadedApi) -> str:
    def holder(server: FakeApi) -> str:
        found = server.store.items(LEASES).get(LEASE)
        return str(found.data["spec"]["holderIdentity"]) if found is not None else ""

    return api.call(holder)


def apply(api: ThreadedApi, *objects: dict[str, Any]) -> None:
    api.call(lambda server: server.apply(*objects))


def decided(api: ThreadedApi, *names: str) -> bool:
    """Whether something was decided about each of them."""
    return all(condition(find(api, name)) for name in names)


def has_addresses(api: ThreadedApi, *names: str) -> Callable[[], bool]:
    return lambda: all(given(api, *names).values())


@pytest.mark.skipif(kubectl is None, reason="kubectl is not installed")
def test_kubectl_shows_an_address_within_a_second(api: ThreadedApi, tmp_path: Path) -> None:
    manifest = tmp_path / "web.yaml"

    def run(*arguments: str) -> str:
        assert kubectl is not None
        command = [kubectl, "--kubeconfig", str(tmp_path / "kubeconfig"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with uproxy(tmp_path, api, *TWO):
        wait_for("the Lease", lambda: allocator(api))
        took = []
        for name in ("one", "two"):
            manifest.write_text(yaml.safe_dump(balanced(name)))
            run("apply", "-f", str(manifest))
            began = time.monotonic()
            wait_for("an address", has_addresses(api, name))
            took.append(time.monotonic() - began)
        assert max(took) < 1.0
        assert "127.33.0.1" in run("get", "services", "one")
        apply(api, balanced("third"))
        wait_for("a reason", lambda: condition(find(api, "third")))
        assert "no available IPs" in condition(find(api, "third"))["message"]
