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

from tests.e2e.program import Program, program, service, wait_for, write
from tests.fake_api.kinds import EVENTS, LEASES, POOLS, SERVICES
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


def events(api: ThreadedApi) -> set[str]:
    """The reasons of all Events."""

    def reasons(server: FakeApi) -> set[str]:
        return {each.data["reason"] for each in server.store.items(EVENTS).values()}

    return api.call(reasons)


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
        wait_for("Events", lambda: events(api) >= {"IPAllocated", "AllocationFailed"})
        assert "no available IPs" in run("get", "service", "third", "-o", "yaml")


def wait_until_decided(api: ThreadedApi, name: str) -> None:
    """Have something decided about a new Service. Whatever else there was to decide was decided by
    then: older Services come first."""
    apply(api, balanced(name, loadBalancerIP="198.51.100.1"))
    wait_for("a decision", lambda: decided(api, name))


def test_restarts_change_no_address(api: ThreadedApi, tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    apply(api, *map(balanced, names))
    before: dict[str, list[str]] = {}
    for restart in range(6):
        with uproxy(tmp_path, api, *TWO):
            wait_until_decided(api, f"restart-{restart}")
            # The statuses are written one after the other, in no order.
            wait_for("addresses", lambda: sum(map(bool, given(api, *names).values())) == 2)
            before = before or given(api, *names)
            assert given(api, *names) == before
            assert sorted(filter(None, before.values())) == [["127.33.0.1"], ["127.33.0.2"]]
        assert allocator(api) == "", "a process that ends leaves the Lease to others"
        if restart == 2:
            # It comes first by its name, but the others have what there is.
            api.call(lambda server: server.apply(balanced("0")))


def test_a_process_that_was_killed_finds_everything_as_it_was(
    api: ThreadedApi, tmp_path: Path
) -> None:
    apply(api, balanced("b"), balanced("a"), balanced("c"))
    with uproxy(tmp_path, api, *TWO) as running:
        wait_for("decisions", lambda: decided(api, "a", "b", "c"))
        before, leader = given(api, "a", "b", "c"), allocator(api)
        running.process.kill()
        running.process.wait()
    with uproxy(tmp_path, api, *TWO):
        wait_for("the Lease", lambda: allocator(api) != leader, 40)
        wait_until_decided(api, "d")
        assert given(api, "a", "b", "c") == before


@pytest.mark.parametrize("change", ["type", "deleted"])
def test_an_address_that_becomes_free_is_handed_out(
    api: ThreadedApi, tmp_path: Path, change: str
) -> None:
    with uproxy(tmp_path, api, "--lb-pool", "127.33.0.1"):
        apply(api, balanced("first"))
        wait_for("an address", has_addresses(api, "first"))
        apply(api, balanced("second"))
        wait_for("a reason", lambda: decided(api, "second"))
        assert given(api, "second") == {"second": []}
        if change == "type":
            spec = {**find(api, "first")["spec"], "type": "ClusterIP"}
            apply(api, {**find(api, "first"), "spec": spec})
        else:
            api.call(lambda server: server.delete(SERVICES, "first"))
        wait_for("the address", has_addresses(api, "second"))
        assert given(api, "second") == {"second": ["127.33.0.1"]}
        if change == "type":
            wait_for("no marks", lambda: not condition(find(api, "first")))
            assert given(api, "first") == {"first": []}
            assert not find(api, "first")["metadata"].get("annotations")


def test_what_is_not_for_uproxy_stays_as_it_is(api: ThreadedApi, tmp_path: Path) -> None:
    foreign = balanced("foreign")
    other = balanced("other", loadBalancerClass="example.com/lb")
    apply(api, foreign, other)
    status = {"loadBalancer": {"ingress": [{"ip": "198.51.100.7", "ipMode": "VIP"}]}}
    apply(api, {**find(api, "foreign"), "status": status})
    before = [find(api, name) for name in ("foreign", "other")]
    with uproxy(tmp_path, api, *TWO) as running:
        apply(api, balanced("web"))
        wait_for("an address", has_addresses(api, "web"))
        assert [find(api, name) for name in ("foreign", "other")] == before
        found = running.status()["loadBalancer"]
        services = {each["service"].partition("/")[2]: each for each in found["services"]}
        assert services["foreign"]["foreign"]
        assert services["web"]["addresses"] == ["127.33.0.1"]
        assert services["web"]["pool"] == "default"
        assert "other" not in services
        assert found["allocating"]
        assert found["allocator"] == allocator(api)
        (pool,) = found["pools"]
        assert (pool["counts"]["IPv4"]["total"], pool["counts"]["IPv4"]["used"]) == (2, 1)


def test_conflicts_and_errors_are_got_over(api: ThreadedApi, tmp_path: Path) -> None:
    def disturb(server: FakeApi) -> None:
        server.answer(409, on="services/web/status", times=2)
        server.answer(500, on="services/web/status", times=1)
        server.answer(403, on="services/web/status", times=1)

    api.call(disturb)
    with uproxy(tmp_path, api, *TWO) as running:
        apply(api, balanced("web"), balanced("good"))
        wait_for("addresses", has_addresses(api, "web", "good"))
        assert running.log.count("cannot write the status of the Service default/web") <= 2


def test_an_outage_of_the_server_changes_nothing(api: ThreadedApi, tmp_path: Path) -> None:
    apply(api, balanced("a"), balanced("b"))
    with uproxy(tmp_path, api, *TWO) as running:
        wait_for("addresses", has_addresses(api, "a", "b"))
        before = given(api, "a", "b")
        api.stop()
        lost = "no longer hands out addresses"
        wait_for("the end of the Lease", lambda: lost in running.log)
        assert not running.status()["loadBalancer"]["allocating"]
        api.start()
        wait_for("the Lease", lambda: running.status()["loadBalancer"]["allocating"])
        wait_until_decided(api, "c")
        assert given(api, "a", "b") == before


def test_of_two_one_hands_out_addresses_and_the_other_goes_on(
    api: ThreadedApi, tmp_path: Path
) -> None:
    with uproxy(tmp_path, api, *TWO) as one:
        wait_for("the Lease", lambda: allocator(api))
        leader = allocator(api)
        with uproxy(tmp_path, api, *TWO, "--hostname-override", "there") as other:
            apply(api, balanced("a"), balanced("b"), balanced("c"))
            wait_for("decisions", lambda: decided(api, "a", "b", "c"))
            before = given(api, "a", "b", "c")
            assert allocator(api) == leader
            wait_for("its name", lambda: other.status()["loadBalancer"]["allocator"] == leader)
            assert not other.status()["loadBalancer"]["allocating"]
            one.process.kill()
            api.call(lambda server: server.delete(SERVICES, "a"))
            wait_for("another leader", lambda: allocator(api) != leader, 40)
            wait_until_decided(api, "d")
            after = given(api, "b", "c")
            assert after["b"] == before["b"]
            assert after["c"] == before["a"], "it waited for the address of the one that is gone"


def test_a_status_that_another_controller_keeps_clearing_is_left_to_it(
    api: ThreadedApi, tmp_path: Path
) -> None:
    def status(running: Program) -> dict[str, Any]:
        (found,) = running.status()["loadBalancer"]["services"]
        return dict(found)

    with uproxy(tmp_path, api, *TWO) as running:
        apply(api, balanced("web"))
        for _ in range(3):
            wait_for("an address", has_addresses(api, "web"))
            apply(api, {**find(api, "web"), "status": {"loadBalancer": {}}})
        wait_for("the reason", lambda: "another controller" in status(running)["foreign"])
        assert given(api, "web") == {"web": []}


def test_addresses_of_nodes(api: ThreadedApi, tmp_path: Path) -> None:
    internal = {"type": "InternalIP", "address": "127.33.1.1"}
    apply(api, {**NODE, "status": {"addresses": [internal]}})
    with uproxy(tmp_path, api, "--lb", "node"):
        apply(api, balanced("web"))
        wait_for("an address", has_addresses(api, "web"))
        assert given(api, "web") == {"web": ["127.33.1.1"]}
        apply(api, balanced("same"))
        wait_for("a reason", lambda: decided(api, "same"))
        assert "by default/web" in condition(find(api, "same"))["message"]
        there = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "there"}}
        external = {"type": "ExternalIP", "address": "127.33.1.2"}
        apply(api, {**there, "status": {"addresses": [external]}})
        wait_for("both", lambda: given(api, "web")["web"] == ["127.33.1.1", "127.33.1.2"])
        local = balanced("local", 81, externalTrafficPolicy="Local")
        slices = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "local-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "local"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "main", "port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "there"}],
        }
        apply(api, local, slices)
        wait_for("one node", lambda: given(api, "local")["local"] == ["127.33.1.2"])


def test_the_address_of_this_machine(api: ThreadedApi, tmp_path: Path) -> None:
    with uproxy(tmp_path, api, "--lb", "localhost"):
        apply(api, balanced("web"))
        wait_for("an address", has_addresses(api, "web"))
        assert given(api, "web") == {"web": ["127.0.0.1"]}


def test_pools_of_metallb(api: ThreadedApi, tmp_path: Path) -> None:
    def pool(name: str, *ranges: str, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "metallb.io/v1beta1",
            "kind": "IPAddressPool",
            "metadata": {"name": name, "namespace": "metallb-system"},
            "spec": {"addresses": list(ranges), **spec},
        }

    def figures() -> dict[str, int]:
        def read(server: FakeApi) -> dict[str, int]:
            found = server.store.get(POOLS, ("metallb-system", "one"))
            return dict(found.data.get("status") or {})

        return api.call(read)

    apply(api, pool("one", "127.33.2.1-127.33.2.4"), balanced("web"))
    with uproxy(tmp_path, api, "--lb", "metallb"):
        wait_for("an address", has_addresses(api, "web"))
        assert given(api, "web") == {"web": ["127.33.2.1"]}
        wait_for("the use", lambda: figures().get("assignedIPv4") == 1)
        assert figures()["availableIPv4"] == 3
        api.call(lambda server: server.delete(POOLS, "one", "metallb-system"))
        apply(api, pool("two", "127.33.3.1"))
        wait_for("another address", lambda: given(api, "web")["web"] == ["127.33.3.1"])


def shown(running: Program) -> dict[str, list[str]]:
    found = running.status()["loadBalancer"]["services"]
    return {each["service"].partition("/")[2]: each["addresses"] for each in found}


def test_the_same_with_manifests(tmp_path: Path) -> None:
    options = (*SHORT, *TWO)
    for name in ("a", "b", "c"):
        write(tmp_path, f"{name}.yaml", balanced(name))
    theirs = {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}
    write(tmp_path, "foreign.yaml", balanced("foreign", status=theirs))
    write(tmp_path, "other.yaml", balanced("other", loadBalancerClass="example.com/lb"))
    before = {"a": ["127.33.0.1"], "b": ["127.33.0.2"], "c": []}
    for _ in range(6):
        with program(tmp_path, *options, workers=1) as running:
            found = shown(running)
            assert {name: found[name] for name in before} == before
            assert "other" not in found
            services = running.status()["loadBalancer"]["services"]
            reasons = {each["service"].partition("/")[2]: each for each in services}
            assert reasons["foreign"]["foreign"]
            assert "no available IPs" in reasons["c"]["reason"]
            assert running.frontend("127.33.0.1:80/TCP")
    with program(tmp_path, *options, workers=1) as running:
        (tmp_path / "a.yaml").unlink()
        wait_for("the address", lambda: shown(running)["c"] == ["127.33.0.1"])
        ports = [{"name": "main", "port": 80}]
        write(tmp_path, "b.yaml", service("b", type="ClusterIP", ports=ports))
        write(tmp_path, "d.yaml", balanced("d"))
        wait_for("the address", lambda: shown(running).get("d") == ["127.33.0.2"])
        assert "b" not in shown(running)
