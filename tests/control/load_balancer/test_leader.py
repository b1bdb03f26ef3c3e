from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fake_api.kinds import LEASES
from tests.fake_api.server import FakeApi
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.leader_election import ElectionPace, Holding
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.ask import Ask, asking
from uproxy.control.load_balancer.leader import NAME, AllocatorLease, Leader, Refused, extra_wait

NAMESPACE = "kube-system"
QUICK = ElectionPace(duration=1.6, deadline=1.3, retry=1.0)
"""The library takes no shorter times."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def api_server() -> AsyncIterator[tuple[FakeApi, Ask]]:
    async with FakeApi() as server, ApiClient(Access(origin="test", server=server.url)) as api:
        yield server, asking(api)


def lease(ask: Ask, identity: str, clock: Clock) -> AllocatorLease:
    return AllocatorLease(
        ask,
        namespace=NAMESPACE,
        identity=identity,
        duration=10.0,
        deadline=6.0,
        noted=lambda: None,
        clock=clock,
    )


def stored(server: FakeApi) -> dict[str, Any]:
    return server.store.get(LEASES, (NAMESPACE, NAME)).data


async def test_one_creates_it_and_the_other_waits_until_it_is_not_renewed() -> None:
    clock = Clock()
    async with api_server() as (server, ask):
        one, other = lease(ask, "one", clock), lease(ask, "other", clock)
        assert await one.read() is None
        assert await other.read() is None
        assert await one.create()
        assert not await other.create()
        assert (one.held, other.held) == (True, False)
        assert (await other.read() or Holding("", "")).holder == "one"
        assert not await other.take()
        clock.now += 5.9
        assert one.remaining > 0
        assert await one.read()
        assert await one.take()
        clock.now += 5.9
        assert one.remaining > 0
        assert (await other.read() or Holding("", "")).holder == "one"
        clock.now += 0.2
        assert not one.held, "it is not held until others may take it"
        clock.now += 9.7
        assert (await other.read() or Holding("", "")).holder == "one"
        clock.now += 0.2
        assert (await other.read() or Holding("x", "")).holder == ""
        assert await other.take()
        assert (one.held, other.held, other.holder) == (False, True, "other")
        assert (await one.read() or Holding("", "")).holder == "other"
        assert stored(server)["spec"]["leaseTransitions"] == 1


async def test_of_two_that_take_it_at_once_only_one_has_it() -> None:
    clock = Clock()
    async with api_server() as (server, ask):
        dead, one, other = (lease(ask, name, clock) for name in ("dead", "one", "other"))
        await dead.create()
        await one.read()
        await other.read()
        clock.now += 11
        await one.read()
        await other.read()
        assert [await one.take(), await other.take()] == [True, False]
        assert (one.held, other.held) == (True, False)
        assert stored(server)["spec"]["holderIdentity"] == "one"


async def test_who_cannot_renew_it_because_it_was_deleted_holds_it_no_more() -> None:
    clock = Clock()
    async with api_server() as (server, ask):
        one, other = lease(ask, "one", clock), lease(ask, "other", clock)
        await one.create()
        server.delete(LEASES, NAME, NAMESPACE)
        with pytest.raises(Refused):
            await one.take()
        assert await other.read() is None
        assert await other.create()
        assert (one.held, other.held) == (False, True)


async def test_it_can_be_given_up_at_once() -> None:
    clock = Clock()
    async with api_server() as (server, ask):
        one, other = lease(ask, "one", clock), lease(ask, "other", clock)
        await one.create()
        await other.read()
        await one.give_up()
        assert not one.held
        assert stored(server)["spec"]["holderIdentity"] == ""
        assert (await other.read() or Holding("x", "")).holder == ""
        assert await other.take()
        assert not await one.take(), "who has given it up does not take it again"
        await one.give_up()
        assert other.held
        assert stored(server)["spec"]["holderIdentity"] == "other"


async def test_times_are_in_utc_and_whatever_else_is_there_stays() -> None:
    clock = Clock()
    async with api_server() as (server, ask):
        server.apply(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"a": "b"}},
                "spec": {"strategy": "OldestEmulationVersion"},
            }
        )
        one = lease(ask, "one", clock)
        assert await one.read() == Holding("", "")
        assert await one.take()
        found = stored(server)
        assert found["metadata"]["labels"] == {"a": "b"}
        assert found["spec"]["strategy"] == "OldestEmulationVersion"
        assert found["spec"]["leaseDurationSeconds"] == 10
        for field in ("acquireTime", "renewTime"):
            ago = datetime.now(UTC) - datetime.fromisoformat(found["spec"][field])
            assert abs(ago.total_seconds()) < 60


async def test_what_the_server_says_is_said_with_what_helps() -> None:
    async with api_server() as (server, ask):
        one = lease(ask, "one", Clock())
        server.answer(403, on="leases")
        with pytest.raises(Refused, match="grant get, create and update on leases in the"):
            await one.read()
        server.answer(404, on="leases")
        with pytest.raises(Refused, match="is there a namespace kube-system"):
            await one.create()
        for code in (429, 500, 503):
            server.answer(code, on="leases")
            with pytest.raises(ApiUnreachable):
                await one.read()
        server.apply(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": NAME, "namespace": NAMESPACE},
                "spec": {"holderIdentity": 7},
            }
        )
        with pytest.raises(Refused, match="cannot be read"):
            await one.read()


def candidate(ask: Ask, node: str, changed: Callable[[], None] = lambda: None) -> Leader:
    return Leader(
        ask, namespace=NAMESPACE, node=node, nodes=lambda: (), changed=changed, pace=QUICK
    )


async def test_one_process_leads_and_another_follows_when_it_ends() -> None:
    changes = list[bool]()
    async with api_server() as (server, ask), asyncio.TaskGroup() as tasks:
        one = candidate(ask, "one", lambda: changes.append(one.leading))
        running = tasks.create_task(one.run())
        await server.until(lambda: one.leading)
        other = candidate(ask, "other")
        second = tasks.create_task(other.run())
        await server.until(lambda: other.holder == one.identity)
        assert not other.leading
        running.cancel()
        await server.until(lambda: other.leading)
        assert not one.leading
        third = tasks.create_task(one.run())
        await server.until(lambda: one.holder == other.identity)
        await other.release()
        assert not other.leading
        await server.until(lambda: one.leading)
        third.cancel()
        second.cancel()
    assert changes == [True, False, True]


async def test_who_cannot_renew_stops_to_lead_and_begins_again() -> None:
    async with api_server() as (server, ask), asyncio.TaskGroup() as tasks:
        one = candidate(ask, "one")
        running = tasks.create_task(one.run())
        await server.until(lambda: one.leading)
        server.answer(503, on="leases", times=1000)
        await server.until(lambda: not one.leading and one.trouble)
        assert one.trouble.startswith("the API server does not answer: ")
        server.heal()
        await server.until(lambda: one.leading and not one.trouble)
        running.cancel()


async def test_a_refusal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with api_server() as (server, ask), asyncio.TaskGroup() as tasks:
        server.answer(403, on="leases", times=2)
        one = candidate(ask, "one")
        with caplog.at_level(logging.WARNING):
            running = tasks.create_task(one.run())
            await server.until(lambda: one.leading)
            running.cancel()
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "grant get, create and update on leases" in caplog.text


def test_few_nodes_ask_often_and_all_of_them_in_the_end() -> None:
    nodes = [f"node-{number}" for number in range(1000)]
    waits = sorted(extra_wait(each, nodes, 2.0) for each in nodes)
    assert waits[:9] == [0.0] * 4 + [2.0] * 4 + [4.0]
    assert waits[-1] == 60.0
    assert sum(1 / (2.0 + each) for each in waits) < 25
    assert extra_wait("unknown", [], 2.0) == 0.0
