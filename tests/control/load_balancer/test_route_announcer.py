"""Exports follow what is served, and what the kernel says, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.core.announcing.test_exports import A, B, route
from uproxy.control.load_balancer.node_eligibility import NodeEligibility
from uproxy.control.load_balancer.route_announcer import ExportCalls, RouteAnnouncer
from uproxy.control.load_balancer.served import Served
from uproxy.core.announcing.candidates import EXCLUDED
from uproxy.core.cluster.objects import (
    TO_BE_DELETED_TAINT,
    Node,
    NodeCondition,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    ObjectName,
    Service,
    Taint,
)
from uproxy.core.cluster.state import ClusterState
from uproxy.core.route import Route

PATIENCE = 15.0


class World:
    """The main routing table, and what is served."""

    def __init__(self) -> None:
        self.kernel: set[str] = set()
        self.foreign: set[str] = set()
        """Addresses to which another program has a route."""
        self.broken = False
        self.routes: tuple[Route, ...] = ()
        self.refusal = ""
        self.owned = True
        self.all_known = True
        self.calls: list[str] = []
        self.passes = 0
        self.state = ClusterState(("test",), node_name="n1")
        self.announcer = RouteAnnouncer(
            Served(
                routes=lambda: {each.frontend: each for each in self.routes},
                is_open=lambda _: True,
                has_failed=lambda _: False,
                refusal=lambda: self.refusal,
                owned=lambda: self.owned,
                all_known=self._all_known,
            ),
            NodeEligibility(self.state, "n1"),
            ExportCalls(add=self.add, withdraw=self.withdraw, held=self.held),
            period=0.02,
        )
        self.state.observe(self.announcer.object_changed)

    def add(self, addresses: Sequence[str]) -> Mapping[str, OSError]:
        self.calls.append(f"add {' '.join(addresses)}")
        self._check()
        self.kernel.update(set(addresses) - self.foreign)
        return {}

    def withdraw(self, addresses: Sequence[str]) -> Mapping[str, OSError]:
        self.calls.append(f"withdraw {' '.join(addresses)}")
        self._check()
        self.kernel.difference_update(addresses)
        return {}

    def held(self) -> frozenset[str]:
        self._check()
        return frozenset(self.kernel)

    def serve(self, *addresses: str) -> None:
        self.routes = tuple(map(route, addresses))
        self.announcer.changed()

    def node(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        conditions: tuple[NodeCondition, ...] = (),
        taints: tuple[Taint, ...] = (),
    ) -> None:
        metadata = ObjectMeta(name=name, labels=dict(labels or {}))
        status, spec = NodeStatus(conditions=conditions), NodeSpec(taints=taints)
        self.state.apply("test", Node(metadata=metadata, spec=spec, status=status))

    def _all_known(self) -> bool:
        self.passes += 1
        return self.all_known

    def _check(self) -> None:
        if self.broken:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    async def becomes(self, *addresses: str) -> None:
        expected = set(addresses)
        await until(lambda: self.kernel == expected == self.announcer.exported)

    async def some_passes(self) -> None:
        """Wait until it had time to do something wrong."""
        enough = self.passes + 3
        await until(lambda: self.passes >= enough)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.announcer.run())
        yield world
        task.cancel()


async def test_exports_follow_what_is_served() -> None:
    async with running() as world:
        world.serve(A, B)
        await world.becomes(A, B)
        world.serve(B)
        await world.becomes(B)
        world.serve(A)
        await world.becomes(A)
        assert world.calls[-2:] == [f"withdraw {B}", f"add {A}"], "first it is withdrawn"
        assert world.announcer.reasons == {A: ""}


async def test_an_object_alone_changes_nothing() -> None:
    """Routes come from the next sync."""
    async with running() as world:
        world.serve(A)
        await world.becomes(A)
        calls = list(world.calls)
        world.announcer.object_changed(Service, ObjectName("default", "web"))
        await world.some_passes()
        assert world.calls == calls


async def test_what_was_removed_is_exported_again(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as world:
        world.serve(A, B)
        await world.becomes(A, B)
        world.kernel.discard(A)
        await world.becomes(A, B)
    assert "exports again 1 addresses whose routes were removed" in caplog.text


async def test_an_earlier_run_is_taken_over(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is withdrawn before all objects are known."""
    caplog.set_level(logging.INFO)
    async with running() as world:
        world.all_known = False
        world.kernel = {A, B}
        world.announcer.changed()
        await world.some_passes()
        assert world.kernel == {A, B}
        world.all_known = True
        world.serve(B)
        await world.becomes(B)
        assert world.calls == [f"withdraw {A}"]
    assert "took over the exported routes of an earlier run: 2" in caplog.text


async def test_draining_withdraws_all_at_once() -> None:
    async with running() as world:
        world.serve(A, B)
        await world.becomes(A, B)
        await world.announcer.release()
        assert world.kernel == set()
        world.serve(A, B)
        await world.some_passes()
        assert world.kernel == set()
        assert set(world.announcer.reasons.values()) == {"this node is draining"}


async def test_a_start_that_is_given_up_withdraws_what_another_run_left() -> None:
    async with running() as world:
        world.all_known = False
        world.kernel = {A}
        await world.announcer.release()
        assert world.kernel == set()


async def test_a_reason_of_this_node_withdraws_all() -> None:
    async with running() as world:
        world.serve(A)
        await world.becomes(A)
        world.refusal = "its network is unavailable"
        world.announcer.changed()
        await world.becomes()
        assert world.announcer.reasons == {A: "its network is unavailable"}


async def test_exports_of_another_uproxy_stay() -> None:
    """It runs on the same node, and would export them again after a few seconds only."""
    async with running() as world:
        world.kernel, world.owned, world.refusal = {A}, False, "another uproxy is here"
        world.serve(B)
        await until(lambda: world.announcer.reasons == {B: "another uproxy is here"})
        await world.some_passes()
        await world.announcer.release()
    assert world.kernel == {A}
    assert world.calls == []


async def test_a_route_of_another_program(caplog: pytest.LogCaptureFixture) -> None:
    """It is not ours to remove, and is told once."""
    async with running() as world:
        world.foreign = {A}
        world.serve(A, B)
        await world.becomes(B)
        await world.some_passes()
        assert "another program" in world.announcer.reasons[A]
        world.foreign = set()
        await world.becomes(A, B)
    assert caplog.text.count("cannot export addresses as routes") == 1


async def test_netlink_fails_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as world:
        world.serve(A)
        await world.becomes(A)
        world.broken = True
        world.serve(B)
        await until(lambda: B in world.announcer.reasons)
        assert world.announcer.reasons[B] == "No buffer space available"
        await world.some_passes()
        world.broken = False
        await world.becomes(B)
    assert caplog.text.count("cannot export addresses as routes: No buffer space") == 1


async def test_a_node_that_is_left_out_withdraws_all() -> None:
    """By label, unless all Nodes have it, or while its network is unavailable; at once, as Nodes
    change no route. Without any Node nothing speaks against it."""
    async with running() as world:
        world.serve(A)
        await world.becomes(A)
        world.node("n2")
        await world.becomes()
        assert world.announcer.reasons == {A: "there is no Node of this name"}
        world.node("n1")
        await world.becomes(A)
        world.node("n1", labels={EXCLUDED: ""})
        await world.becomes()
        assert world.announcer.reasons == {A: f"it has the label {EXCLUDED}"}
        world.node("n2", labels={EXCLUDED: ""})
        await world.becomes(A)
        conditions = (NodeCondition(type="NetworkUnavailable", status="True"),)
        world.node("n1", conditions=conditions)
        await world.becomes()
        assert "NetworkUnavailable" in world.announcer.reasons[A]
        world.node("n1")
        await world.becomes(A)
        world.node("n1", taints=(Taint(key=TO_BE_DELETED_TAINT),))
        await world.becomes()
        assert TO_BE_DELETED_TAINT in world.announcer.reasons[A]


async def test_what_the_status_says() -> None:
    async with running() as world:
        world.foreign = {A}
        world.serve(A, B)
        await world.becomes(B)
        by_address = {each.address: each for each in world.announcer.statuses()}
        assert by_address[B].here
        assert not by_address[B].reason
        assert not by_address[A].here
        assert "another program" in by_address[A].reason
