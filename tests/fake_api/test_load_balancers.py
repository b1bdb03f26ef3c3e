"""What LoadBalancer Services need of the fake API server: their fields and status, Leases, and
MetalLB's objects."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.fake_api.client import Client
from tests.fake_api.kinds import L2_STATUSES, METALLB, NODES, POOLS, SERVICES
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import in_thread
from tests.sources.kubernetes.cluster import node, service

kubectl = shutil.which("kubectl")


def load_balancer(name: str, **spec: Any) -> dict[str, Any]:
    return service(name, type="LoadBalancer", ports=[{"name": "main", "port": 80}], **spec)


def stored(server: FakeApi, name: str) -> dict[str, Any]:
    return server.store.get(SERVICES, ("default", name)).data


def test_what_a_load_balancer_gets() -> None:
    server = FakeApi()
    server.apply(
        load_balancer("plain"),
        load_balancer("local", externalTrafficPolicy="Local"),
        load_balancer("few", allocateLoadBalancerNodePorts=False),
    )
    plain, local, few = (stored(server, name)["spec"] for name in ("plain", "local", "few"))
    assert plain["ports"][0]["nodePort"] >= 30000
    assert plain["externalTrafficPolicy"] == "Cluster"
    assert "healthCheckNodePort" not in plain
    assert local["healthCheckNodePort"] >= 30000
    assert "nodePort" not in few["ports"][0]


def test_what_belongs_to_a_type_goes_with_it() -> None:
    server = FakeApi()
    server.apply(load_balancer("web", externalTrafficPolicy="Local", loadBalancerClass="a/b"))
    spec = stored(server, "web")["spec"]
    again = load_balancer("web", externalTrafficPolicy="Local", loadBalancerClass="a/b")
    server.apply(again)
    assert stored(server, "web")["spec"] == spec, "what was assigned stays"
    server.apply({**again, "spec": {**spec, "type": "ClusterIP"}})
    left = stored(server, "web")["spec"]
    assert left["clusterIP"] == spec["clusterIP"]
    assert not left.keys() & {"healthCheckNodePort", "loadBalancerClass", "externalTrafficPolicy"}
    assert "nodePort" not in left["ports"][0]


@pytest.mark.parametrize(
    ("spec", "families"),
    [
        pytest.param({}, ["IPv4"], id="default"),
        pytest.param({"ipFamilies": ["IPv6"]}, ["IPv6"], id="ipv6"),
        pytest.param({"clusterIP": "fd00::1"}, ["IPv6"], id="by-address"),
        pytest.param({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"], id="prefer"),
        pytest.param(
            {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]},
            ["IPv6", "IPv4"],
            id="require",
        ),
        pytest.param({"ipFamilies": ["IPv6", "IPv4"]}, ["IPv6", "IPv4"], id="two-families"),
    ],
)
def test_addresses_of_both_families(spec: dict[str, Any], families: list[str]) -> None:
    server = FakeApi()
    server.apply(load_balancer("web", **spec))
    found = stored(server, "web")["spec"]
    assert found["ipFamilies"] == families
    assert [":" in each for each in found["clusterIPs"]] == [each == "IPv6" for each in families]
    assert found["clusterIP"] == found["clusterIPs"][0]


def test_a_family_more_and_a_family_less() -> None:
    server = FakeApi()
    server.apply(load_balancer("web"))
    [first] = stored(server, "web")["spec"]["clusterIPs"]
    seen = []
    for policy in ("PreferDualStack", "SingleStack"):
        server.apply(load_balancer("web", ipFamilyPolicy=policy))
        seen.append(stored(server, "web")["spec"]["clusterIPs"])
    assert [len(each) for each in seen] == [2, 1]
    assert {each[0] for each in seen} == {first}


async def test_status_of_a_service_comes_with_annotations() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        path = "/api/v1/namespaces/default/services/web"
        server.apply(load_balancer("web"))
        before = stored(server, "web")
        version = before["metadata"]["resourceVersion"]
        condition = {"type": "x/Y", "status": "True", "observedGeneration": 1}
        patch = {
            "metadata": {"resourceVersion": version, "annotations": {"a": "1"}},
            "status": {"conditions": [condition]},
            "spec": {"type": "ClusterIP"},
        }
        code, after = await ask("PATCH", f"{path}/status", patch)
        assert code == 200
        assert after["metadata"]["annotations"] == {"a": "1"}
        assert after["status"] == {"loadBalancer": {}, "conditions": [condition]}
        assert after["spec"] == before["spec"]
        assert (await ask("PATCH", f"{path}/status", patch))[0] == 409
        after["metadata"]["annotations"] = {"a": "2"}
        code, after = await ask("PUT", f"{path}/status", after)
        assert (code, after["metadata"]["annotations"]) == (200, {"a": "2"})


async def test_generation_counts_changes_of_the_spec() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        server.apply(load_balancer("web"))
        path = "/api/v1/namespaces/default/services/web"
        seen = []
        for suffix, patch in (
            ("/status", {"status": {"x": 1}}),
            ("", {"metadata": {"labels": {"a": "1"}}}),
            ("", {"spec": {"loadBalancerIP": "192.0.2.1"}}),
        ):
            _, after = await ask("PATCH", path + suffix, patch)
            seen.append(after["metadata"]["generation"])
        assert seen == [1, 1, 2]


async def test_a_patch_that_changes_nothing_leaves_the_version() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        server.apply(load_balancer("web"))
        version = stored(server, "web")["metadata"]["resourceVersion"]
        path = "/api/v1/namespaces/default/services/web"
        await ask("PATCH", path, {"spec": {"type": "LoadBalancer"}})
        assert stored(server, "web")["metadata"]["resourceVersion"] == version


async def test_leases_name_their_owner_and_go_with_it() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        server.apply(node("a"))
        uid = server.store.get(NODES, ("", "a")).data["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": uid}
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
        lease = {"metadata": {"generateName": "x-", "ownerReferences": [owner]}, "spec": {}}
        code, made = await ask("POST", path, lease)
        assert code == 201
        name = made["metadata"]["name"]
        assert name.startswith("x-")
        assert len(name) > 2
        assert made["metadata"]["ownerReferences"] == [owner]
        unversioned = {**made, "metadata": {"name": name}}
        assert (await ask("PUT", f"{path}/{name}", unversioned))[0] == 422
        patch = {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "b"}}
        assert (await ask("PATCH", f"{path}/{name}", patch))[0] == 409
        server.delete(NODES, "a")
        assert (await ask("GET", f"{path}/{name}"))[0] == 404


async def test_status_of_a_custom_resource() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        path = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools"
        pool = {"metadata": {"name": "a"}, "spec": {"addresses": ["192.0.2.0/24"]}, "status": {}}
        code, made = await ask("POST", path, pool)
        assert (code, made["kind"]) == (201, "IPAddressPool")
        patch = {"metadata": {"annotations": {"a": "1"}}, "status": {"assignedIPv4": 1}}
        _, after = await ask("PATCH", f"{path}/a/status", patch)
        assert after["status"] == {"assignedIPv4": 1}
        assert "annotations" not in after["metadata"], "only the status is written there"
        _, after = await ask("PATCH", f"{path}/a", {"spec": {"autoAssign": False}, "status": {}})
        assert (after["status"], after["metadata"]["generation"]) == ({"assignedIPv4": 1}, 2)
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        url = f"{server.url}{path}/a"
        async with session.patch(url, data=b"{}", headers=headers) as answer:
            assert answer.status == 415


async def test_custom_resources_that_are_not_installed() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        path = "/apis/metallb.io/v1beta1/namespaces/metallb-system/servicel2statuses"
        named = {"metadata": {"generateName": "l2-"}}
        assert (await ask("POST", path, named))[0] == 201
        async with session.get(f"{server.url}{path}?watch=1") as answer:
            await server.until(lambda: server.watches)
            server.uninstall(*METALLB)
            kinds = [json.loads(each)["type"] for each in (await answer.text()).splitlines()]
        assert kinds == ["ADDED", "DELETED"]
        async with session.get(f"{server.url}{path}") as answer:
            assert (answer.status, await answer.text()) == (404, "404 page not found\n")
        async with session.get(f"{server.url}/apis") as answer:
            assert "metallb.io" not in await answer.text()
        assert not server.store.items(POOLS)
        server.install(*METALLB)
        assert (await ask("GET", path))[1]["items"] == []
        assert not server.store.items(L2_STATUSES)


@pytest.mark.skipif(kubectl is None, reason="kubectl is not installed")
def test_kubectl(tmp_path: Path) -> None:
    ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    manifest = tmp_path / "objects.yaml"
    pool = {
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {"name": "a", "namespace": "metallb-system"},
        "spec": {"addresses": ["192.0.2.0/24"]},
    }
    manifest.write_text(yaml.safe_dump_all((load_balancer("web"), pool)))
    with in_thread(FakeApi()) as running:
        path = write_kubeconfig(tmp_path / "kubeconfig", running.url)

        def run(*arguments: str) -> str:
            command = [str(kubectl), "--kubeconfig", str(path), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout

        run("apply", "-f", str(manifest))
        assert "<pending>" in run("get", "service", "web")
        patch = ("--subresource=status", "--type=merge", f"-p={json.dumps(ingress)}")
        run("patch", "service", "web", *patch)
        row = r"web +LoadBalancer +127\.\S+ +192\.0\.2\.1 +80:3\d+/TCP"
        assert re.search(row, run("get", "svc"))
        assert "ipaddresspool.metallb.io/a" in run("get", "-A", "ipaddresspools", "-o", "name")
        run("delete", "-f", str(manifest), "--wait=false")
        assert "web" not in run("get", "svc")
