"""The fake API server itself, as far as the tests of the source do not test it already."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiohttp
import pytest

from tests.fake_api.client import Client
from tests.fake_api.kinds import CORE_EVENTS, EVENTS, LEASES, SERVICES
from tests.fake_api.patching import patched
from tests.fake_api.selectors import selection
from tests.fake_api.server import FakeApi
from tests.sources.kubernetes.cluster import node, service


@pytest.mark.parametrize(
    ("labels", "fields", "found"),
    [
        ("", "", True),
        ("a=1", "", True),
        ("a==1,b!=2", "", True),
        ("a!=1", "", False),
        ("a", "", True),
        ("!a", "", False),
        ("!c", "", True),
        ("a in (1, 2),!c", "", True),
        ("a notin (1,2)", "", False),
        ("c notin (1)", "", True),
        ("", "metadata.name=x", True),
        ("", "metadata.name!=x", False),
        ("", "spec.clusterIP!=None", True),
    ],
)
def test_selectors(labels: str, fields: str, found: bool) -> None:
    data = {"metadata": {"name": "x", "labels": {"a": "1"}}, "spec": {}}
    assert selection(labels, fields)(data) == found


def test_patches() -> None:
    data = {"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2}], "x": 1}, "status": {}}
    merge = {"spec": {"ports": [{"port": 3}], "x": None}}
    assert patched(data, merge, strategic=False) == {"spec": {"ports": [{"port": 3}]}, "status": {}}
    strategic = {
        "spec": {
            "$setElementOrder/ports": [{"port": 1}],
            "ports": [{"port": 1, "name": "b"}, {"port": 2, "$patch": "delete"}],
        }
    }
    assert patched(data, strategic, strategic=True)["spec"]["ports"] == [{"port": 1, "name": "b"}]
    pod = {"containers": [{"name": "a", "ports": [{"containerPort": 1}], "image": "x"}]}
    ports = [{"containerPort": 2}, {"containerPort": 1, "$patch": "delete"}]
    patch = {"containers": [{"name": "a", "ports": ports}]}
    assert patched(pod, patch, strategic=True) == {
        "containers": [{"name": "a", "ports": [{"containerPort": 2}], "image": "x"}]
    }


async def test_writes() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        path = "/api/v1/namespaces/default/services"
        code, web = await ask("POST", path, service("web", type="NodePort"))
        assert code == 201
        assert web["spec"]["clusterIP"].startswith("127.")
        assert web["spec"]["ports"][0]["nodePort"] >= 30000
        assert (await ask("POST", path, service("web")))[0] == 409
        assert (await ask("GET", f"{path}/other"))[0] == 404

        status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
        old = {"metadata": {"resourceVersion": "1"}, "status": status}
        code, refused = await ask("PATCH", f"{path}/web/status", old)
        assert (code, refused["reason"]) == (409, "Conflict")
        version = web["metadata"]["resourceVersion"]
        new = {"metadata": {"resourceVersion": version}, "status": status, "spec": {"type": "X"}}
        code, after = await ask("PATCH", f"{path}/web/status", new)
        assert (code, after["status"]) == (200, status)
        assert after["spec"] == web["spec"], "only the status is written there"
        code, again = await ask("PUT", f"{path}/web", {**after, "status": {}})
        assert again["status"] == status, "and it is not written elsewhere"
        assert (await ask("DELETE", f"{path}/web"))[0] == 200
        assert not server.store.items(SERVICES)


async def test_events_and_leases_are_kept() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        event = {"metadata": {"generateName": "web."}, "reason": "PortConflict"}
        for root in ("/api/v1", "/apis/events.k8s.io/v1"):
            assert (await ask("POST", f"{root}/namespaces/default/events", event))[0] == 201
        for kind in (CORE_EVENTS, EVENTS):
            [stored] = server.store.items(kind).values()
            assert stored.data["reason"] == "PortConflict"
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
        code, lease = await ask("POST", leases, {"metadata": {"name": "x"}, "spec": {"a": 1}})
        assert code == 201
        lease["spec"] = {"a": 2}
        assert (await ask("PUT", f"{leases}/x", lease))[0] == 200
        assert (await ask("PUT", f"{leases}/x", lease))[0] == 409, "an old version"
        [stored] = server.store.items(LEASES).values()
        assert stored.data["spec"] == {"a": 2}
        assert [each.method for each in server.asked("leases")] == ["POST", "PUT", "PUT"]


async def test_lists_in_pages() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        ask = Client(server, session)
        server.apply(*(service(f"s{number}") for number in range(5)))
        _, first = await ask("GET", "/api/v1/services?limit=2")
        server.apply(service("later"))
        token = first["metadata"]["continue"]
        _, second = await ask("GET", f"/api/v1/services?limit=9&continue={token}")
        names = [each["metadata"]["name"] for each in first["items"] + second["items"]]
        assert names == ["s0", "s1", "s2", "s3", "s4"], "as of the first part"
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        _, first = await ask("GET", "/api/v1/services?limit=2")
        server.expire_pages()
        token = first["metadata"]["continue"]
        assert (await ask("GET", f"/api/v1/services?continue={token}"))[0] == 410


async def test_watch_from_a_version() -> None:
    async with FakeApi(history=3) as server, aiohttp.ClientSession() as session:
        server.apply(node("a"), node("b"))
        version = server.store.version
        server.apply(service("x"), node("c"))
        server.delete(SERVICES, "x")
        seen = []
        for since in (version, version - 1):
            query = {"watch": "1", "resourceVersion": str(since), "timeoutSeconds": "0.2"}
            async with session.get(f"{server.url}/api/v1/nodes", params=query) as answer:
                lines = (await answer.text()).splitlines()
                seen.append([json.loads(line)["type"] for line in lines])
        assert seen == [["ADDED"], ["ERROR"]]


async def test_a_watch_of_one_namespace() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        elsewhere = service("elsewhere")
        elsewhere["metadata"]["namespace"] = "other"
        server.apply(service("here"), elsewhere)
        query = {"watch": "1", "timeoutSeconds": "0.2"}
        url = f"{server.url}/api/v1/namespaces/other/services"
        async with session.get(url, params=query) as answer:
            [line] = (await answer.text()).splitlines()
        assert json.loads(line)["object"]["metadata"]["name"] == "elsewhere"


async def test_token_is_checked_and_faults_come_first() -> None:
    async with FakeApi() as server, aiohttp.ClientSession() as session:
        server.tokens = {"good"}
        server.answer(503, on="/services")
        codes = []
        for token in ("good", "good", "bad"):
            headers = {"Authorization": f"Bearer {token}"}
            async with session.get(f"{server.url}/api/v1/services", headers=headers) as answer:
                codes.append(answer.status)
        assert codes == [503, 200, 401]


async def test_as_a_process(tmp_path: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fake_api", "--kubeconfig", str(tmp_path / "k")),
        *("--host", "127.0.0.2", "--without-metallb"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/apis") as answer:
            groups = await answer.json()
        assert "metallb.io" not in [each["name"] for each in groups["groups"]]
        assert url.startswith("http://127.0.0.2:")
        assert url in (tmp_path / "k").read_text()
    finally:
        process.terminate()
        await process.wait()
