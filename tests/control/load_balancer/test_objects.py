"""The objects that concern load balancers only, from the API server to those who need them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_api.kinds import LEASES, METALLB, POOLS
from tests.fake_api.server import FakeApi
from tests.fake_api.watching import Watching
from tests.sources.kubernetes.cluster import FAST
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.config.settings import Config
from uproxy.control.load_balancer.lease_namespace import lease_namespace
from uproxy.control.load_balancer.objects import LoadBalancerObjects, wanted
from uproxy.core.announcing.lease_objects import encode
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.cluster.objects import ObjectName

METALLB_MODE = Config(lb_mode="metallb")
POOLS_MODE = Config(lb_mode="pools")
NAMESPACE = "metallb-system"


def pool(name: str, *addresses: str, **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {"addresses": list(addresses or ("192.0.2.0/24",))},
    }


def advertisement(name: str, **spec: Any) -> dict[str, Any]:
    return {**pool(name), "kind": "L2Advertisement", "spec": spec}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def lease(node: str, renewals: int = 0, namespace: str = "kube-system") -> dict[str, Any]:
    said = AnnouncerLease(node=node, instance=f"{node}-1", duration=3, renewals=renewals)
    return encode(said, namespace=namespace, now="2026-01-01T00:00:00.000000Z")


class Told:
    """What an observer of Leases is told, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def listed(self, leases: Sequence[AnnouncerLease]) -> None:
        self.calls.append(f"listed {' '.join(each.node for each in leases)}".strip())

    def saw(self, lease: AnnouncerLease) -> None:
        self.calls.append(f"saw {lease.node} {lease.renewals}")

    def gone(self, node: str) -> None:
        self.calls.append(f"gone {node}")


@asynccontextmanager
async def followed(
    server: FakeApi, config: Config, leases: Told | None = None
) -> AsyncIterator[LoadBalancerObjects]:
    async with ApiClient(Access(origin="test", server=server.url)) as api:
        resources = wanted(config, "kube-system")
        objects = LoadBalancerObjects(api, resources, timing=FAST)
        if leases is not None:
            objects.observe_leases(leases)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(objects.run())
            try:
                yield objects
            finally:
                running.cancel()


@pytest.mark.parametrize(
    ("config", "sources"),
    [
        pytest.param(Config(lb_mode="never"), set(), id="never"),
        pytest.param(Config(lb_mode="node"), set(), id="node"),
        pytest.param(Config(lb_mode="localhost"), set(), id="localhost"),
        pytest.param(POOLS_MODE, {"leases"}, id="pools"),
        pytest.param(Config(lb_mode="pools", announce="routes"), set(), id="routes"),
        pytest.param(
            METALLB_MODE,
            {"ipaddresspools", "l2advertisements", "namespaces", "leases"},
            id="metallb",
        ),
        pytest.param(
            Config(lb_mode="metallb", announce="never"),
            {"ipaddresspools", "namespaces"},
            id="metallb, not announced",
        ),
    ],
)
def test_only_what_is_needed_is_watched(config: Config, sources: set[str]) -> None:
    assert {each.source for each in wanted(config, "x")} == sources


async def test_objects_of_metallb() -> None:
    async with FakeApi() as server:
        elsewhere = pool("elsewhere")
        elsewhere["metadata"]["namespace"] = "default"
        server.apply(pool("a"), elsewhere, advertisement("b"), namespace("web", team="x"))
        async with followed(server, METALLB_MODE) as objects:
            changes = list[int]()
            objects.observe(lambda: changes.append(1))
            await server.until(lambda: objects.complete)
            assert set(objects.pools) == {ObjectName(NAMESPACE, "a")}
            assert set(objects.advertisements) == {ObjectName(NAMESPACE, "b")}
            assert objects.namespaces == {"web": {"team": "x"}}
            assert objects.trouble == ""
            server.apply(namespace("web", team="y"))
            await server.until(lambda: objects.namespaces == {"web": {"team": "y"}})
            server.delete(POOLS, "a", NAMESPACE)
            count = len(changes)
            await server.until(lambda: not objects.pools)
            assert len(changes) >= count


async def test_what_is_returned_follows_the_cluster() -> None:
    async with FakeApi() as server:
        server.apply(pool("a"))
        async with followed(server, METALLB_MODE) as objects:
            found = objects.pools
            await server.until(lambda: objects.complete and found)
            server.apply(pool("b"))
            server.delete(POOLS, "a", NAMESPACE)
            server.expire()
            server.order(Watching.close)
            await server.until(lambda: {each.name for each in found} == {"b"})


async def test_a_status_that_is_written_is_no_change() -> None:
    async with FakeApi() as server:
        server.apply(pool("a"))
        async with followed(server, METALLB_MODE) as objects:
            await server.until(lambda: objects.complete)
            changes = list[int]()
            objects.observe(lambda: changes.append(1))
            server.apply({**pool("a"), "status": {"assignedIPv4": 1}})
            server.apply(namespace("later"))
            await server.until(lambda: changes)
            await server.until(lambda: "later" in objects.namespaces)
            assert len(changes) == 1


async def test_without_metallbs_definitions() -> None:
    async with FakeApi() as server:
        server.uninstall(*METALLB)
        async with followed(server, METALLB_MODE) as objects:
            await server.until(lambda: objects.complete)
            assert (objects.pools, objects.trouble) == ({}, "")


async def test_an_object_that_cannot_be_read() -> None:
    async with FakeApi() as server:
        server.apply({**pool("a"), "spec": {"addresses": "192.0.2.0/24"}})
        async with followed(server, METALLB_MODE) as objects:
            await server.until(lambda: objects.errors.get("ipaddresspools"))
            [error] = objects.errors["ipaddresspools"]
            assert (error.where, error.field) == (f"IPAddressPool {NAMESPACE}/a", "spec.addresses")
            server.apply(pool("a"))
            await server.until(lambda: objects.pools and not objects.errors["ipaddresspools"])


async def test_an_outage_takes_nothing_away() -> None:
    async with FakeApi() as server:
        server.apply(pool("a"))
        async with followed(server, METALLB_MODE) as objects:
            await server.until(lambda: objects.complete)
            await server.stop()
            await server.until(lambda: objects.trouble)
            assert objects.pools
            assert objects.complete


async def test_leases_are_passed_on_in_order() -> None:
    told = Told()
    async with FakeApi() as server:
        other = lease("x")
        del other["metadata"]["labels"]
        server.apply(lease("a"), other, lease("y", namespace="elsewhere"))
        async with followed(server, POOLS_MODE, told) as objects:
            await server.until(lambda: "listed a" in told.calls)
            told.calls.clear()
            for number in range(1, 6):
                server.apply(lease("a", number), lease("b", number))
            server.delete(LEASES, "uproxy-announcer-a", "kube-system")
            server.apply(lease("a", 6))
            expected = [f"saw {node} {number}" for number in range(1, 6) for node in "ab"]
            expected += ["gone a", "saw a 6"]
            await server.until(lambda: told.calls == expected)
            assert objects.complete


async def test_after_an_outage_all_leases_are_told_at_once() -> None:
    told = Told()
    async with FakeApi() as server:
        server.apply(lease("a"), lease("b"))
        async with followed(server, POOLS_MODE, told):
            await server.until(lambda: "listed a b" in told.calls)
            await server.stop()
            server.delete(LEASES, "uproxy-announcer-a", "kube-system")
            server.apply(lease("b", 1))
            server.expire()
            told.calls.clear()
            await server.__aenter__()
            await server.until(lambda: told.calls == ["saw b 1", "listed b"])


async def test_a_watch_of_leases_that_is_cut_off_without_a_word() -> None:
    told = Told()
    async with FakeApi() as server:
        server.apply(lease("a"))
        async with followed(server, POOLS_MODE, told) as objects:
            await server.until(lambda: "listed a" in told.calls)
            server.order(Watching.stall)
            await _until_it_helps(
                server,
                lambda: server.apply(lease("a", len(server.requests))),
                objects.watch_leases_anew,
                lambda: any("saw a " in each for each in told.calls[2:]),
            )
            assert objects.trouble == ""


async def _until_it_helps(
    server: FakeApi,
    write: Callable[[], None],
    act: Callable[[], None],
    done: Callable[[], bool],
) -> None:
    """The watch may not be established yet when it is asked to begin anew."""
    async with asyncio.timeout(15):
        while not done():
            act()
            write()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("said", ["", "{}", '{"node":"other","duration":3}'])
async def test_a_lease_that_cannot_be_used_is_ignored(
    said: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    odd = lease("a")
    odd["metadata"]["annotations"] = {"uproxy.dev/announces": said}
    async with FakeApi() as server:
        server.apply(odd, lease("b"))
        async with followed(server, POOLS_MODE, told):
            await server.until(lambda: told.calls == ["saw b 0", "listed b"])
            server.apply(lease("a", 1))
            await server.until(lambda: told.calls[-1] == "saw a 1")
            server.apply(odd, lease("b", 1))
            await server.until(lambda: told.calls[-1] == "saw b 1")
            server.delete(LEASES, "uproxy-announcer-a", "kube-system")
            await server.until(lambda: told.calls[-1] == "gone a")
    assert caplog.text.count("Lease uproxy-announcer-a is ignored") == 2


def test_the_namespace_of_leases(tmp_path: Path) -> None:
    assert lease_namespace("mine", tmp_path) == "mine"
    assert lease_namespace("", tmp_path) == "kube-system"
    (tmp_path / "namespace").write_text("networking\n")
    assert lease_namespace("", tmp_path) == "networking"
    (tmp_path / "namespace").write_text("../x")
    assert lease_namespace("", tmp_path) == "kube-system"
