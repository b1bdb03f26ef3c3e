"""Resources that the cluster may lack, and watches that are begun again on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.fake_api.kinds import ADVERTISEMENTS, METALLB, POOLS
from tests.fake_api.server import FakeApi
from tests.fake_api.watching import Watching
from tests.sources.kubernetes.cluster import FAST
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.core.cluster.objects import ApiObject, ObjectName
from uproxy.sources.kubernetes.resources import Resource
from uproxy.sources.kubernetes.watchers import Watchers

ROOT = "/apis/metallb.io/v1beta1"
POOL, OTHER = (
    Resource(source=each.plural, kind=ApiObject, path=f"{ROOT}/{each.plural}", optional=True)
    for each in (POOLS, ADVERTISEMENTS)
)
QUICK = replace(FAST, missing=0.02, missing_again=0.02)
PATIENT = replace(FAST, missing=3600.0, missing_again=0.02)


def pool(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "metallb-system"}
    return {
        "apiVersion": POOLS.api_version,
        "kind": POOLS.kind,
        "metadata": metadata,
        "spec": spec,
    }


class Names:
    """A sink that keeps the names of objects, and what it was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.names: dict[str, set[str]] = {}

    def replace(self, source: str, objects: Any) -> None:
        self.names[source] = {each.metadata.name for each in objects}
        self.calls.append(f"replace {source} {len(objects)}")

    def apply(self, source: str, obj: ApiObject) -> None:
        self.names.setdefault(source, set()).add(obj.metadata.name)
        self.calls.append(f"apply {source} {obj.metadata.name}")

    def remove(self, source: str, kind: type[ApiObject], key: ObjectName) -> None:
        self.names[source].discard(key.name)
        self.calls.append(f"remove {source} {key.name}")

    def report_errors(self, source: str, errors: Any) -> None:
        raise AssertionError(errors)


@asynccontextmanager
async def watched(
    server: FakeApi, *resources: Resource[ApiObject], timing: Any = QUICK
) -> AsyncIterator[tuple[Watchers, Names, Callable[[Callable[[], object]], Any]]]:
    sink = Names()
    async with ApiClient(Access(origin="test", server=server.url)) as api:
        watchers = Watchers(api, resources, what="pools", timing=timing)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(watchers.run(sink))
            try:
                yield watchers, sink, server.until
            finally:
                running.cancel()


async def test_a_kind_that_is_not_installed_is_no_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeApi() as server:
        server.uninstall(*METALLB)
        async with watched(server, POOL) as (watchers, sink, until):
            await until(lambda: len(server.asked("ipaddresspools")) > 3)
            assert watchers.reachability.reachable
            assert watchers.reachability.last_error == ""
            assert sink.names == {"ipaddresspools": set()}
            server.install(*METALLB)
            server.apply(pool("a"))
            await until(lambda: sink.names["ipaddresspools"] == {"a"})
            assert watchers.reachability.last_error == ""
    assert not [each for each in caplog.records if each.levelname not in ("DEBUG", "INFO")]


async def test_one_kind_that_is_found_has_the_others_asked_for() -> None:
    async with FakeApi() as server:
        server.uninstall(ADVERTISEMENTS)
        server.apply(pool("a"))
        async with watched(server, POOL, OTHER, timing=PATIENT) as (_, sink, until):
            await until(lambda: sink.names == {"ipaddresspools": {"a"}, "l2advertisements": set()})
            server.install(ADVERTISEMENTS)
            server.apply({**pool("b"), "kind": ADVERTISEMENTS.kind})
            server.answer(404, on="ipaddresspools")
            server.expire()
            server.order(Watching.close)
            await until(lambda: sink.names["l2advertisements"] == {"b"})


async def test_objects_go_when_their_kind_is_deleted() -> None:
    async with FakeApi() as server:
        server.apply(pool("a"))
        async with watched(server, POOL) as (watchers, sink, until):
            await until(lambda: sink.names.get("ipaddresspools") == {"a"})
            server.uninstall(*METALLB)
            await until(lambda: sink.names["ipaddresspools"] == set())
            assert watchers.reachability.last_error == ""


async def test_a_server_that_does_not_know_the_kind_for_a_moment_takes_nothing_away() -> None:
    async with FakeApi() as server:
        server.apply(pool("a"))
        async with watched(server, POOL) as (_, sink, until):
            await until(lambda: sink.names.get("ipaddresspools") == {"a"})
            server.answer(404, on="ipaddresspools", times=1)
            server.expire()
            server.order(Watching.close)
            count = len(server.requests)
            await until(lambda: len(server.requests) > count + 1)
            server.apply(pool("b"))
            await until(lambda: sink.names["ipaddresspools"] == {"a", "b"})
            assert "replace ipaddresspools 0" not in sink.calls


async def test_an_outage_takes_nothing_away() -> None:
    async with FakeApi() as server:
        server.apply(pool("a"))
        async with watched(server, POOL) as (watchers, sink, until):
            await until(lambda: watchers.reachability.reachable)
            await server.stop()
            await until(lambda: not watchers.reachability.reachable)
            assert sink.names["ipaddresspools"] == {"a"}
            await server.__aenter__()
            server.apply(pool("b"))
            await until(lambda: sink.names["ipaddresspools"] == {"a", "b"})


async def test_a_watch_is_begun_again_where_it_was() -> None:
    async with FakeApi() as server:
        server.apply(pool("a"))
        async with watched(server, POOL) as (watchers, sink, until):
            await until(lambda: watchers.reachability.reachable)
            server.order(Watching.stall)
            watchers.restart("ipaddresspools")
            server.apply(pool("b"))
            await until(lambda: sink.names["ipaddresspools"] == {"a", "b"})
            assert sink.calls[-1] == "apply ipaddresspools b", "and not with a list"
            assert watchers.reachability.last_error == ""


async def test_a_watch_that_waits_for_its_turn_is_not_hurried() -> None:
    async with FakeApi() as server:
        server.forbids = True
        slow = replace(QUICK, spacing=replace(FAST.spacing, first=3600.0, refusing=3600.0))
        async with watched(server, POOL, timing=slow) as (watchers, _, until):
            await until(lambda: watchers.reachability.last_error)
            watchers.restart("ipaddresspools")
            server.forbids = False
            async with aiohttp.ClientSession() as session:
                for _ in range(3):
                    await session.get(f"{server.url}/version")
            assert len(server.asked("ipaddresspools")) == 1
