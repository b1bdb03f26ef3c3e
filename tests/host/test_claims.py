"""Claims while netlink fails, and after it has recovered."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

import pytest

from tests.faults.clock import Clock, VirtualLoop
from tests.faults.injection import FaultInjector
from tests.faults.kernel import Kernel
from tests.faults.machine import Surroundings
from uproxy.host.claims import Claims

ADDRESS = "203.0.113.1"


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.faults = FaultInjector(random.Random(0))
        self.kernel = Kernel(self.clock, self.faults, lambda line: None)
        self.netlink = Surroundings(self.kernel, self.faults)
        self.available = 0

    def tell(self) -> None:
        self.available += 1


class Slow(random.Random):
    """Threads take the longest time that they may."""

    def choice(self, seq: Any) -> Any:
        return max(seq)


def run(main: Callable[[World, Claims], Awaitable[None]], *, broken: str = "") -> World:
    """`broken`: what fails from the beginning. Netlink takes 0.2 s each time."""
    world = World()
    if broken:
        world.faults.start([broken], 1.0)

    async def beside() -> None:
        made = Claims(enabled=True, calls=world.netlink.claim_calls())
        async with asyncio.TaskGroup() as tasks, made as claims:
            keeping = tasks.create_task(claims.maintain(world.tell))
            await main(world, claims)
            keeping.cancel()
        await asyncio.sleep(1)  # Threads go on, whoever has been cancelled.

    def new_loop() -> VirtualLoop:
        return VirtualLoop(world.clock, Slow(), world.kernel.readiness)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(beside())
    return world


@pytest.mark.parametrize("what", ["lock", "netlink"])
def test_a_shortage_at_the_start_does_not_last(what: str) -> None:
    """A shortage of descriptors, for example, may pass. Missing privileges do not."""

    async def main(world: World, claims: Claims) -> None:
        assert "cannot be claimed" in claims.reason
        await asyncio.sleep(20)
        assert world.available == 0
        world.faults.stop()
        await asyncio.sleep(10)
        assert claims.reason == ""
        assert world.available == 1
        assert await claims.claim([ADDRESS]) == {}

    assert run(main, broken=what).kernel.claims == set()


def test_missing_privileges_are_permanent() -> None:
    async def main(world: World, claims: Claims) -> None:
        assert claims.reason == "claiming it needs CAP_NET_ADMIN"
        await asyncio.sleep(20)
        assert claims.reason == "claiming it needs CAP_NET_ADMIN"

    refused = PermissionError(errno.EPERM, "Operation not permitted")
    with patch.object(Surroundings, "permission_error", lambda self: refused):
        run(main)


@pytest.mark.parametrize("what", ["netlink", "route", "bug"])
def test_what_cannot_be_released_is_released_later(what: str) -> None:
    async def main(world: World, claims: Claims) -> None:
        assert await claims.claim([ADDRESS]) == {}
        world.faults.start([what], 1.0)
        await claims.release([ADDRESS])
        assert claims.claimed == set()
        await asyncio.sleep(20)
        assert world.kernel.claims == {ADDRESS}
        world.faults.stop()
        await asyncio.sleep(10)
        assert world.kernel.claims == set()

    run(main)


@pytest.mark.parametrize("what", ["netlink", "route", "bug"])
def test_what_cannot_be_claimed_has_a_reason_and_nothing_else_fails(what: str) -> None:
    async def main(world: World, claims: Claims) -> None:
        world.faults.start([what], 1.0)
        assert (await claims.claim([ADDRESS])).keys() == {ADDRESS}
        assert claims.claimed == set()
        world.faults.stop()
        assert await claims.claim([ADDRESS]) == {}

    assert run(main).kernel.claims == set()


def test_what_could_not_be_released_and_is_wanted_again_stays() -> None:
    async def main(world: World, claims: Claims) -> None:
        await claims.claim([ADDRESS])
        world.faults.start(["netlink"], 1.0)
        await claims.release([ADDRESS])
        assert await claims.claim([ADDRESS]) == {}, "though netlink cannot be asked"
        world.faults.stop()
        await asyncio.sleep(20)
        assert world.kernel.claims == {ADDRESS}

    run(main)


@pytest.mark.parametrize("early", [0.0, 0.1, 0.2, 0.3])
def test_what_is_wanted_again_is_not_released_by_an_attempt_that_waits(early: float) -> None:
    """Whenever the claim comes, before or while what is left over is looked after."""

    async def main(world: World, claims: Claims) -> None:
        begin = world.clock.now
        await claims.claim([ADDRESS])
        world.faults.start(["netlink"], 1.0)
        await claims.release([ADDRESS])
        world.faults.stop()
        await asyncio.sleep(begin + 5.2 - early - world.clock.now)
        await claims.claim([ADDRESS, "203.0.113.2"])
        await asyncio.sleep(20)
        assert ADDRESS in claims.claimed
        assert ADDRESS in world.kernel.claims

    run(main)


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_a_claim_that_is_cancelled_while_it_is_made_is_released_at_the_end(again: bool) -> None:
    """SIGTERM during a sync. The second time is the end of the tasks, when draining takes none."""

    async def main(world: World, claims: Claims) -> None:
        async with asyncio.TaskGroup() as tasks:
            claiming = tasks.create_task(claims.claim([ADDRESS]))
            for _ in range(1 + again):
                await asyncio.sleep(0.05)
                claiming.cancel()
        assert claiming.cancelled()
        assert claims.claimed == set()

    assert run(main).kernel.claims == set()
