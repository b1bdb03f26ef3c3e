from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.control.load_balancer.api import api_server
from tests.fake_api.kinds import L2_STATUSES
from tests.fake_api.server import FakeApi
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.ask import Ask
from uproxy.control.load_balancer.l2_statuses import L2Statuses
from uproxy.core.cluster.objects import ObjectName

NAMESPACE = "metallb-system"
WEB, DNS = ObjectName("default", "web"), ObjectName("kube-system", "dns")


def statuses(ask: Ask, node: str = "n1", uid: str = "1-2-3") -> L2Statuses:
    return L2Statuses(ask, node, NAMESPACE, lambda: uid)


def stored(server: FakeApi) -> list[dict[str, Any]]:
    return [each.data for each in server.store.items(L2_STATUSES).values()]


def said(server: FakeApi) -> set[tuple[str, str, tuple[str, ...]]]:
    return {
        (
            each["status"]["node"],
            f"{each['status']['serviceNamespace']}/{each['status']['serviceName']}",
            tuple(interface["name"] for interface in each["status"]["interfaces"]),
        )
        for each in stored(server)
        if "status" in each  # It is written after the object.
    }


async def test_a_service_has_one_which_goes_with_the_node() -> None:
    async with api_server() as (server, ask):
        ours = statuses(ask)
        ours.set({WEB: ("eth0", "eth1")})
        assert await ours.write()
        (made,) = stored(server)
        assert made["metadata"]["name"].startswith("l2-")
        assert made["metadata"]["namespace"] == NAMESPACE
        assert made["metadata"]["labels"] == {
            "metallb.io/node": "n1",
            "metallb.io/service-name": "web",
            "metallb.io/service-namespace": "default",
        }
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", "n1", "1-2-3")
        assert made["status"] == {
            "node": "n1",
            "serviceName": "web",
            "serviceNamespace": "default",
            "interfaces": [{"name": "eth0"}, {"name": "eth1"}],
        }


async def test_it_follows_what_is_announced_and_leaves_those_of_others() -> None:
    async with api_server() as (server, ask):
        ours, others = statuses(ask), statuses(ask, "n2", uid="")
        others.set({WEB: ("eth0",)})
        await others.write()
        assert (
            "ownerReferences" not in stored(server)[0]["metadata"]
            or not stored(server)[0]["metadata"]["ownerReferences"]
        )
        ours.set({WEB: ("eth0",), DNS: ("eth0",)})
        await ours.write()
        both = {("n1", "default/web", ("eth0",)), ("n1", "kube-system/dns", ("eth0",))}
        theirs = {("n2", "default/web", ("eth0",))}
        assert said(server) == both | theirs
        ours.set({WEB: ("eth1",)})
        await ours.write()
        assert said(server) == {("n1", "default/web", ("eth1",))} | theirs
        await ours.delete_all()
        assert said(server) == theirs


async def test_what_an_earlier_process_has_left_is_taken_over_or_deleted() -> None:
    async with api_server() as (server, ask):
        before = statuses(ask)
        before.set({WEB: ("eth0",), DNS: ("eth0",)})
        await before.write()
        names = {each["metadata"]["name"] for each in stored(server)}
        after = statuses(ask)
        after.set({WEB: ("eth0",)})
        await after.write()
        assert said(server) == {("n1", "default/web", ("eth0",))}
        assert {each["metadata"]["name"] for each in stored(server)} < names


async def test_of_two_for_one_service_the_second_goes() -> None:
    async with api_server() as (server, ask):
        ours = statuses(ask)
        ours.set({WEB: ("eth0",)})
        await ours.write()
        twin = stored(server)[0]
        server.apply({**twin, "metadata": {**twin["metadata"], "name": "l2-zzzzz"}})
        assert len(stored(server)) == 2
        await ours.write()
        assert said(server) == {("n1", "default/web", ("eth0",))}
        assert len(stored(server)) == 1


@pytest.mark.parametrize("code", [403, 404])
async def test_without_the_crd_or_the_right_nothing_is_written(code: int) -> None:
    async with api_server() as (server, ask):
        if code == 404:
            server.uninstall(L2_STATUSES)
        else:
            server.answer(403, on="servicel2statuses")
        ours = statuses(ask)
        ours.set({WEB: ("eth0",)})
        assert not await ours.write()
        assert len(server.asked("servicel2statuses")) == 1


async def test_a_failure_is_raised_and_tried_again_by_the_task() -> None:
    async with api_server() as (server, ask):
        ours = statuses(ask)
        ours.set({WEB: ("eth0",)})
        server.answer(500, on="servicel2statuses")
        with pytest.raises(ApiUnreachable):
            await ours.write()
        server.answer(500, on="servicel2statuses")
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(ours.run())
            await server.until(lambda: said(server) == {("n1", "default/web", ("eth0",))})
            ours.set({})
            await server.until(lambda: not stored(server))
            task.cancel()
