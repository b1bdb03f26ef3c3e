"""The ClusterRole: every request that the program makes is allowed, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.fake_api.server import FakeApi, ReceivedRequest
from tests.fake_api.writing import target_of
from tests.sources.recorder import Recorder
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.request import Request
from uproxy.control.event_sender import EventSender
from uproxy.core.report.event_log import EventRequest
from uproxy.core.report.problems import starting
from uproxy.sources.kubernetes.source import KubernetesSource

ROLE = Path(__file__).parents[2] / "deploy" / "kustomize" / "cluster-role.yaml"
METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Permission(NamedTuple):
    """What RBAC tells apart."""

    group: str
    resource: str
    verb: str


def granted() -> set[Permission]:
    role: dict[str, Any] = yaml.safe_load(ROLE.read_text())
    return {
        Permission(group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def needed(requests: list[ReceivedRequest]) -> Iterator[Permission]:
    for request in requests:
        target = target_of(request.path)
        verb = METHODS.get(request.method) or ("get" if target.name else "list")
        if request.query.get("watch") in ("true", "1"):
            verb = "watch"
        resource = "/".join(filter(None, (target.kind.plural, target.subresource)))
        yield Permission(target.kind.group, resource, verb)


async def use_everything(server: FakeApi) -> None:
    """Make the program ask for all that it ever asks for."""
    api = ApiClient(Access(origin="test", server=server.url))

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
    async with api, asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(source.run(Recorder())),
            tasks.create_task(events.run()),
        ]
        await server.until(lambda: source.reachable and len(server.asked("/events")) == 2)
        for task in running:
            task.cancel()


async def test_it_allows_what_is_asked_for_and_nothing_else() -> None:
    used = set[Permission]()
    for streamed in (True, False):
        async with FakeApi() as server:
            if not streamed:
                server.watch_list = "bad-request"
            await use_everything(server)
            used.update(needed(server.requests))
    assert used == granted()
