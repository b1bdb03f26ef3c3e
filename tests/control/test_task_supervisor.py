"""Tasks that must not end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from tests.faults.clock import Clock, VirtualLoop
from tests.faults.injection import Bug
from uproxy.control.task_supervisor import TaskSupervisor


class Refused(Exception):
    """What a task may say at first."""


def run(main: Callable[[TaskSupervisor, asyncio.TaskGroup], Awaitable[None]]) -> None:
    clock = Clock()

    async def beside() -> None:
        async with asyncio.TaskGroup() as tasks:
            await main(TaskSupervisor(), tasks)

    with (
        clock.instead_of_time(),
        asyncio.Runner(
            loop_factory=lambda: VirtualLoop(clock, random.Random(0), lambda _: 0)
        ) as runner,
    ):
        runner.run(beside())


def test_what_ends_a_task_is_told_and_the_task_begins_again() -> None:
    begun: list[float] = []
    lasts = [1.0]

    async def fails() -> None:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(lasts[-1])
        raise Bug("nobody has thought of it")

    async def main(supervisor: TaskSupervisor, tasks: asyncio.TaskGroup) -> None:
        running = tasks.create_task(supervisor.run("source", fails))
        await asyncio.sleep(0.5)
        assert list(supervisor.reasons) == []
        await asyncio.sleep(0.6)
        failure = "unexpected Bug: nobody has thought of it"
        told = [f"the source task failed ({failure}); it is being restarted"]
        assert list(supervisor.reasons) == told
        await asyncio.sleep(1)
        assert len(begun) == 2, "it runs again"
        assert list(supervisor.reasons) == told, "but not for long enough"
        await asyncio.sleep(400)
        pauses = [later - earlier for earlier, later in pairwise(begun)]
        assert pauses[0] < 3
        assert 20 < pauses[-1] < 32, "it does not keep the machine busy"
        lasts.append(1000.0)
        await asyncio.sleep(60)
        assert list(supervisor.reasons) == []
        running.cancel()

    run(main)


def test_a_task_that_ends_by_itself_begins_again() -> None:
    begun = asyncio.Semaphore(0)

    async def ends() -> None:
        begun.release()

    async def main(supervisor: TaskSupervisor, tasks: asyncio.TaskGroup) -> None:
        running = tasks.create_task(supervisor.run("source", ends))
        for _ in range(3):
            await begun.acquire()
        (reason,) = supervisor.reasons
        assert reason == "the source task failed (it ended); it is being restarted"
        running.cancel()

    run(main)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_task_may_refuse_to_begin_but_not_later(grouped: bool) -> None:
    begun: list[int] = []

    async def refuses() -> None:
        begun.append(1)
        refused = Refused("no such file")
        raise ExceptionGroup("in a group", [refused]) if grouped else refused

    async def main(supervisor: TaskSupervisor, tasks: asyncio.TaskGroup) -> None:
        with pytest.raises((Refused, ExceptionGroup)):
            await supervisor.run("source", refuses, refusal=Refused)
        assert len(begun) == 1

        async def first_fails() -> None:
            if len(begun) == 1:
                begun.append(1)
                raise Bug("this first")
            await refuses()

        running = tasks.create_task(supervisor.run("source", first_fails, refusal=Refused))
        await asyncio.sleep(60)
        assert not running.done()
        assert len(begun) > 3
        running.cancel()

    run(main)
