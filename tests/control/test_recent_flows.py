"""Flows that have ended are collected from workers, whatever becomes of these."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from tests.control.workers.world import Played, World, eventually, world
from tests.flow_records import record
from uproxy.control.recent_flows import RecentFlows
from uproxy.core.cluster.pod_history import Place
from uproxy.core.flows.flow_record import FlowRecord
from uproxy.core.report.flow_format import FlowFilter, FlowsView
from uproxy.net.messages import Records, RecordsWanted


def records(numbers: Iterable[int], start: float = 0) -> list[FlowRecord]:
    return [record(each, start=start + each) for each in numbers]


class Asking:
    """Asks workers that are played."""

    def __init__(self, made: World, tasks: asyncio.TaskGroup, patience: float) -> None:
        self.made = made
        self._tasks = tasks
        self.flows = RecentFlows(lambda: made.workers, lambda _: Place("web-0", "a"), patience)

    def ask(self, **wanted: Any) -> asyncio.Task[FlowsView]:
        return self._tasks.create_task(self.flows.find(FlowFilter(**wanted)))

    async def heard(self, worker: int, count: int = 1) -> RecordsWanted:
        process = self.process(worker)

        def asked() -> list[RecordsWanted]:
            return [each for each in process.heard if isinstance(each, RecordsWanted)]

        await eventually(lambda: len(asked()) >= count)
        return asked()[-1]

    def process(self, worker: int) -> Played:
        pid = self.made.workers.running[worker]
        return next(each for each in self.made.processes if each.pid == pid)

    async def answer(
        self, worker: int, *chunks: list[FlowRecord], count: int = 1, seen: int = 0
    ) -> None:
        wanted = await self.heard(worker, count)
        for at, chunk in enumerate(chunks):
            last = at == len(chunks) - 1
            seen = max((each.number for each in chunk), default=seen)
            answer = Records(chunk, wanted.request, last, seen=seen if last else 0)
            self.process(worker).channel.post(answer)


async def collected(made: World, tasks: asyncio.TaskGroup, patience: float = 15.0) -> Asking:
    found = Asking(made, tasks, patience)
    made.recorded = found.flows.received
    await made.workers.ready()
    return found


async def test_the_answers_of_all_workers_are_merged() -> None:
    async with world(2) as made, asyncio.TaskGroup() as tasks:
        asked = await collected(made, tasks)
        task = asked.ask()
        await asked.answer(0, records([1, 2]), records([3]))
        await asked.answer(1, records([1, 2], start=0.5))
        found = await task
    assert [(each.worker, each.number) for each in found.flows] == [
        (0, 1),
        (1, 1),
        (0, 2),
        (1, 2),
        (0, 3),
    ]
    assert found.flows[0].pod == "web-0"
    assert (found.left_out, found.missing) == (0, [])


async def test_workers_are_told_what_is_wanted() -> None:
    async with world(1) as made, asyncio.TaskGroup() as tasks:
        asked = await collected(made, tasks)
        task = asked.ask(namespace="default", service="web", bad=True, limit=7)
        wanted = await asked.heard(0)
        await asked.answer(0, [])
        assert (await task).flows == []
    assert (wanted.service, wanted.only_bad, wanted.most) == (("default", "web"), True, 7)
    assert wanted.after == 0


async def test_what_is_too_much_is_counted() -> None:
    async with world(2) as made, asyncio.TaskGroup() as tasks:
        asked = await collected(made, tasks)
        task = asked.ask(limit=3)
        await asked.answer(0, records([1, 2, 3]))
        wanted = await asked.heard(1)
        asked.process(1).channel.post(Records(records([4, 5]), wanted.request, left_out=40))
        found = await task
    assert [each.number for each in found.flows] == [3, 4, 5]
    assert found.left_out == 42


async def test_the_cursor_leads_to_what_comes_later() -> None:
    async with world(2) as made, asyncio.TaskGroup() as tasks:
        asked = await collected(made, tasks)
        task = asked.ask()
        await asked.answer(0, records([4, 9]))
        await asked.answer(1, [])
        first = await task
        task = asked.ask(after=first.cursor)
        assert (await asked.heard(0, 2)).after == 9
        assert (await asked.heard(1, 2)).after == 0
        await asked.answer(0, [], count=2, seen=9)
        await asked.answer(1, records([3]), count=2)
        second = await task
        task = asked.ask(after=second.cursor)
        assert (await asked.heard(0, 3)).after == 9
        assert (await asked.heard(1, 3)).after == 3
        task.cancel()


async def test_records_that_are_not_wanted_are_not_looked_at_again() -> None:
    async with world(1) as made, asyncio.TaskGroup() as tasks:
        asked = await collected(made, tasks)
        task = asked.ask(bad=True)
        await asked.answer(0, [], seen=9000)
        task = asked.ask(bad=True, after=(await task).cursor)
        assert (await asked.heard(0, 2)).after == 9000
        task.cancel()


async def test_the_successor_of_a_worker_begins_again() -> None:
    """It counts its own records, from 1."""
    async with world(1) as made, asyncio.TaskGroup() as tasks:
        asked = await collected(made, tasks)
        task = asked.ask()
        await asked.answer(0, records([500]))
        cursor = (await task).cursor
        made.processes[0].end(1)
        await eventually(lambda: len(made.processes) == 2 and made.workers.running)
        task = asked.ask(after=cursor)
        assert (await asked.heard(0)).after == 0
        await asked.answer(0, records([1]))
        found = await task
    assert [each.number for each in found.flows] == [1]
    assert found.cursor != cursor


async def test_a_worker_that_hangs_does_not_hang_the_answer() -> None:
    async with world(2) as made, asyncio.TaskGroup() as tasks:
        asked = await collected(made, tasks, patience=0.2)
        task = asked.ask()
        await asked.answer(1, records([1]))
        wanted = await asked.heard(0)
        asked.process(0).channel.post(Records(records([1]), wanted.request, last=False))
        found = await task
        assert [each.worker for each in found.flows] == [1]
        assert found.missing == ["worker 0 has not answered within 0.2 s"]
        assert found.cursor.startswith("1-"), "what it has is not skipped later"
        # What comes too late is dropped.
        asked.process(0).channel.post(Records(records([2]), wanted.request))
        task = asked.ask()
        await asked.answer(0, records([1, 2]), count=2)
        await asked.answer(1, [], count=2)
        assert [each.number for each in (await task).flows] == [1, 2]


async def test_a_worker_that_starts_is_not_waited_for() -> None:
    async with world(2) as made, asyncio.TaskGroup() as tasks:
        asked = await collected(made, tasks)
        made.plays = lambda process: process.listen()
        made.processes[0].end(1)
        await eventually(lambda: len(made.processes) == 3)
        task = asked.ask()
        await asked.answer(1, records([1]))
        found = await task
    assert (len(found.flows), found.missing) == (1, ["worker 0 is starting"])
