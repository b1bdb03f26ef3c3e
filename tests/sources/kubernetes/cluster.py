"""The Kubernetes source with the fake API server, and a sink that checks the calls it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.fake_api.kinds import NODES, SERVICES, SLICES, Kind
from tests.fake_api.selectors import selection
from tests.fake_api.server import FakeApi
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.status import ObjectStatus
from uproxy.sources.kubernetes.resources import SOURCES, resources
from uproxy.sources.kubernetes.retry_schedule import Spacing
from uproxy.sources.kubernetes.source import KubernetesSource
from uproxy.sources.kubernetes.timing import Timing

FAST = Timing(
    slices_first=0.2,
    initial_silence=0.3,
    shortest_watch=0.001,
    backoff=Backoff(initial=0.02, maximum=0.2, jitter=0.5),
    spacing=Spacing(first=0.02, unreachable=0.2, refusing=0.2, together=0.02),
    overtime=0.5,
)
_DEADLINE = 20.0
_KINDS = {"services": SERVICES, "endpointslices": SLICES, "node": NODES}


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def endpointslice(name: str, *addresses: str, **labels: str) -> dict[str, Any]:
    owner = {"kubernetes.io/service-name": name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "namespace": "default", "labels": owner | labels},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each]} for each in addresses],
    }


def node(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}


class Collector:
    """A sink with a real ClusterState, which records its calls."""

    def __init__(self) -> None:
        self.state = ClusterState(SOURCES, node_name="here")
        self.objects: dict[str, dict[ObjectName, Object]] = {each: {} for each in SOURCES}
        self.errors: dict[str, list[str]] = {each: [] for each in SOURCES}
        self.calls: list[str] = []
        self._changed = asyncio.Event()

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        self.objects[source] = {each.key: each for each in objects}
        assert len(self.objects[source]) == len(objects), "an object was delivered twice"
        self.state.replace(source, objects)
        self._note(f"replace {source} {len(objects)}")

    def apply(self, source: str, obj: Object) -> None:
        assert self.objects[source].get(obj.key) != obj, "not a change"
        self.objects[source][obj.key] = obj
        self.state.apply(source, obj)
        self._note(f"apply {source} {obj.key}")

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        del self.objects[source][key]
        self.state.remove(source, kind, key)
        self._note(f"remove {source} {key}")

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        self.errors[source] = [f"{each.where}: {each.field}: {each.reason}" for each in errors]
        self._note(f"report_errors {source}")

    def names(self, source: str = "services") -> set[str]:
        return {name.name for name in self.objects[source]}

    def versions(self, source: str) -> dict[str, str]:
        return {
            key.name: each.metadata.resource_version for key, each in self.objects[source].items()
        }

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds. It is tested after each call, and now and then."""
        try:
            async with asyncio.timeout(_DEADLINE):
                while not condition():
                    self._changed.clear()
                    try:
                        async with asyncio.timeout(0.01):
                            await self._changed.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            raise AssertionError(f"not in time; {self.calls[-20:]=} {self.errors=}") from None

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._changed.set()


def expected(server: FakeApi, source: str) -> dict[str, str]:
    """Names and versions that a source should have by now."""
    wanted = next(each for each in resources("here") if each.source == source)
    match = selection(wanted.labels, wanted.fields)
    kind: Kind = _KINDS[source]
    return {
        name: item.data["metadata"]["resourceVersion"]
        for (_, name), item in server.store.items(kind).items()
        if match(item.data)
    }


def in_step(sink: Collector, server: FakeApi) -> bool:
    """Whether the sink has exactly what the server has."""
    return all(sink.versions(each) == expected(server, each) for each in SOURCES)


@asynccontextmanager
async def followed(
    server: FakeApi,
    timing: Timing = FAST,
    access: Access | None = None,
    synced: bool = True,
    node_labels: bool = False,
) -> AsyncIterator[tuple[Collector, KubernetesSource]]:
    """The source, running while the context is open."""
    sink = Collector()
    async with ApiClient(access or Access(origin="test", server=server.url)) as api:
        source = KubernetesSource(api, node_name="here", node_labels=node_labels, timing=timing)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(source.run(sink))
            try:
                if synced:
                    await sink.until(lambda: sink.state.synced and source.reachable)
                yield sink, source
            finally:
                running.cancel()
