"""The roles: every request that the program makes is allowed, and nothing else is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.control.load_balancer.quiet_machine import QUIET
from tests.fake_api.server import FakeApi, ReceivedRequest
from tests.fake_api.writing import target_of
from tests.sources.kubernetes.cluster import Collector, node, service
from tests.sources.recorder import Recorder
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.request import ApiServer, Request
from uproxy.config.settings import Config
from uproxy.control.event_sender import EventSender
from uproxy.control.load_balancer.ask import Ask, asking
from uproxy.control.load_balancer.assembly import new_load_balancer
from uproxy.control.load_balancer.l2_statuses import L2Statuses
from uproxy.control.load_balancer.own_lease import OwnLease
from uproxy.control.load_balancer.served import Served
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.event_log import EventRequest
from uproxy.core.report.problems import starting
from uproxy.sources.kubernetes.source import KubernetesSource

KUSTOMIZE = Path(__file__).parents[2] / "deploy" / "kustomize"
METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
POOL = {
    "apiVersion": "metallb.io/v1beta1",
    "kind": "IPAddressPool",
    "metadata": {"name": "a", "namespace": "metallb-system"},
    "spec": {"addresses": ["192.0.2.0/24"]},
}
FLAG = Pool(name="flag", ranges=(AddressRange.parse("192.0.2.0/24"),))
WEB = ObjectName("default", "web")


class Permission(NamedTuple):
    """What RBAC tells apart."""

    namespace: str
    """"" is all of them."""
    group: str
    resource: str
    verb: str


def granted(*components: str) -> set[Permission]:
    """What the roles allow with these components."""
    role: dict[str, Any] = yaml.safe_load((KUSTOMIZE / "base" / "cluster-role.yaml").read_text())
    found = {each for rule in role["rules"] for each in permissions(rule)}
    for component in components:
        for patch in json.loads((KUSTOMIZE / component / "cluster-role.json").read_text()):
            assert (patch["op"], patch["path"]) == ("add", "/rules/-")
            found.update(permissions(patch["value"]))
        role = yaml.safe_load((KUSTOMIZE / component / "role.yaml").read_text())
        namespace = role["metadata"].get("namespace", "kube-system")
        found.update(each for rule in role["rules"] for each in permissions(rule, namespace))
    return found


def permissions(rule: dict[str, Any], namespace: str = "") -> Iterator[Permission]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield Permission(namespace, group, resource, verb)


def needed(requests: list[ReceivedRequest], allowed: set[Permission]) -> Iterator[Permission]:
    """What requests need: the permission for one namespace if that is what is allowed."""
    for request in requests:
        target = target_of(request.path)
        verb = METHODS.get(request.method) or ("get" if target.name else "list")
        if request.query.get("watch") in ("true", "1"):
            verb = "watch"
        resource = "/".join(filter(None, (target.kind.plural, target.subresource)))
        everywhere = Permission("", target.kind.group, resource, verb)
        here = everywhere._replace(namespace=target.namespace)
        yield here if here in allowed else everywhere


@asynccontextmanager
async def running(*tasks: Any) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(each) for each in tasks]
        try:
            yield
        finally:
            for each in started:
                each.cancel()


async def serve(server: FakeApi, api: ApiServer) -> None:
    """Make the program ask for all that it asks for to serve Services."""

    async def send(request: EventRequest) -> int:
        sent = Request(
            request.method, request.path, body=request.body, content_type=request.content_type
        )
        async with api.send(sent) as answer:
            return answer.status

    events = EventSender(send, node="n1", problems=dict, uid=lambda _: "n1")
    # The same one twice, so that the second is counted in the first.
    events.send([starting("n1", "1")] * 2)
    source = KubernetesSource(api, node_name="n1")
    async with running(source.run(Recorder()), events.run()):
        await server.until(lambda: source.reachable and len(server.asked("/events")) == 2)


async def hand_out(server: FakeApi, api: ApiServer, config: Config) -> None:
    """... to hand out addresses, from wherever the settings say."""
    sink, source = Collector(), KubernetesSource(api, node_name="here", node_labels=True)
    balancer = new_load_balancer(
        config,
        api,
        state=sink.state,
        supervisor=TaskSupervisor(),
        send_events=lambda _: None,
        find_other_proxies=list,
        occupied=lambda node, *, own: {},
        served=Served(dict, lambda _: False, lambda _: False, str, lambda: True, lambda: False),
        calls=QUIET,
    )
    assert balancer is not None
    written = ["services/web/status"]
    if config.lb_mode == "metallb":
        written.append("ipaddresspools/a/status")
    async with running(source.run(sink), balancer.run()):
        await server.until(lambda: source.reachable)
        balancer.changed()
        await server.until(lambda: all(server.asked(each) for each in written))
        await balancer.drain()


async def announce(ask: Ask) -> None:
    """... to tell other nodes what it announces."""
    own = OwnLease(ask, node="n1", namespace="kube-system", node_uid=lambda: "n1")
    lease = AnnouncerLease(node="n1", instance="x", duration=3)
    written = await own.write(lease)
    assert (await own.write(replace(lease, version=written.version))).version
    assert (await own.write(replace(lease, version="1"))).conflict


async def show(ask: Ask) -> None:
    """... to show what it announces in MetalLB's objects."""
    statuses = L2Statuses(ask, "n1", "metallb-system", lambda: "")
    statuses.set({WEB: ("eth0",)})
    assert await statuses.write()
    statuses.set({})
    assert await statuses.write()


async def use_everything(server: FakeApi, config: Config) -> None:
    """Make the program ask for all that it ever asks for with these settings."""
    server.apply(node("here"), service("web", type="LoadBalancer"), POOL)
    async with ApiClient(Access(origin="test", server=server.url)) as api:
        ask = asking(api)
        await serve(server, api)
        if config.lb_mode == "never":
            return
        await hand_out(server, api, config)
        await announce(ask)
        if config.lb_mode == "metallb":
            await show(ask)


@pytest.mark.parametrize(
    ("config", "components"),
    [
        pytest.param(Config(), (), id="without"),
        pytest.param(Config(lb_mode="pools", lb_pools=(FLAG,)), ("load-balancer",), id="pools"),
        pytest.param(Config(lb_mode="metallb"), ("load-balancer", "metallb-objects"), id="metallb"),
    ],
)
async def test_it_allows_what_is_asked_for_and_nothing_else(
    config: Config, components: tuple[str, ...]
) -> None:
    used, allowed = set[Permission](), granted(*components)
    for streamed in (True, False):
        async with FakeApi() as server:
            if not streamed:
                server.watch_list = "bad-request"
            await use_everything(server, config)
            used.update(needed(server.requests, allowed))
    assert used == allowed
