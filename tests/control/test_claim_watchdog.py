"""A claim that cuts this node off from the API server, at an address that nobody could know of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.faults.clock import Clock, VirtualLoop
from uproxy.control.claim_watchdog import ClaimWatchdog

GUILTY, GOOD = "203.0.113.13", "203.0.113.1"


class World:
    """A cluster, and a node that claims what it may."""

    def __init__(self, *, up: bool = True) -> None:
        self.up = up
        """Whether the API server runs."""
        self.claimed: set[str] = set()
        self.wanted: set[str] = set()
        self.unheard = 0
        """Seconds since the server was heard."""
        self.watchdog = ClaimWatchdog(self, self.claim)

    def claim(self) -> None:
        allowed = self.wanted - self.watchdog.held_back.keys()
        new, self.claimed = allowed - self.claimed, allowed
        self.watchdog.claimed(new)

    @property
    def reachable(self) -> bool:
        """A watch hears for a while that it hears nothing."""
        return self.unheard < 60

    async def answers(self) -> bool:
        await asyncio.sleep(0.1)
        return self.up and GUILTY not in self.claimed

    async def watch(self) -> None:
        """What the sources do."""
        while True:
            self.unheard = 0 if await self.answers() else self.unheard + 1
            await asyncio.sleep(1)


def run(main: Callable[[World], Awaitable[None]], *, up: bool = True) -> None:
    clock = Clock()

    async def beside() -> None:
        world = World(up=up)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each) for each in (world.watchdog.run(), world.watch())]
            await main(world)
            for each in running:
                each.cancel()

    with clock.instead_of_time():

        def new_loop() -> VirtualLoop:
            return VirtualLoop(clock, random.Random(0), lambda _: 0)

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(beside())


def test_it_is_released_within_ten_seconds_and_tried_less_and_less_often() -> None:
    async def main(world: World) -> None:
        world.wanted = {GUILTY}
        world.claim()
        seconds = in_a_row = 0
        for _ in range(4000):
            await asyncio.sleep(1)
            cut_off = GUILTY in world.claimed
            seconds += cut_off
            in_a_row = in_a_row + 1 if cut_off else 0
            assert in_a_row <= 10
        assert 0 < seconds < 60
        assert GUILTY in world.watchdog.held_back

    run(main)


def test_what_is_claimed_beside_it_is_claimed_in_the_end() -> None:
    async def main(world: World) -> None:
        world.wanted = {GUILTY, *(f"203.0.113.{number}" for number in range(100, 120))}
        world.claim()
        await asyncio.sleep(600)
        assert world.wanted - world.claimed == {GUILTY}

    run(main)


def test_a_claim_from_the_last_known_state_does_not_cut_the_server_off_for_good() -> None:
    async def main(world: World) -> None:
        world.unheard = 1000
        world.wanted = {GUILTY, GOOD}
        world.claim()
        world.up = True  # But who could tell?
        await asyncio.sleep(20)
        assert world.unheard > 1000
        await asyncio.sleep(300)
        assert world.unheard < 60
        assert world.claimed == {GOOD}

    run(main, up=False)


def test_while_the_server_is_really_away_there_are_few_gaps() -> None:
    async def main(world: World) -> None:
        world.unheard = 1000
        world.wanted = {GOOD}
        world.claim()
        gaps = 0
        for _ in range(3600):
            await asyncio.sleep(1)
            gaps += GOOD not in world.claimed
        assert gaps < 90
        world.up = True
        await asyncio.sleep(70)
        assert world.claimed == {GOOD}

    run(main, up=False)


def test_a_server_that_answers_leaves_claims_alone() -> None:
    async def main(world: World) -> None:
        world.wanted = {GOOD}
        world.claim()
        for _ in range(100):
            await asyncio.sleep(1)
            assert world.claimed == {GOOD}
        world.up = False
        await asyncio.sleep(100)
        assert world.claimed == {GOOD}, "it is too late to be to blame"

    run(main)
