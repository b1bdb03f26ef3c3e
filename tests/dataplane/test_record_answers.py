"""How a worker sends records of flows: those that it was asked for, and those for the flow log."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from tests.dataplane.peers import PATIENCE, eventually
from tests.dataplane.test_flow_records import record
from tests.dataplane.test_worker import SETTINGS, ControlledWorker, controlled_worker
from tests.ports import free_port
from uproxy.core.flows.flow_record import KEPT
from uproxy.dataplane.record_answers import CHUNK
from uproxy.net.messages import Records, RecordsWanted, Report


async def records(worker: ControlledWorker) -> list[Records]:
    """The next answer to a RecordsWanted, as far as its last message."""
    found: list[Records] = []
    async with asyncio.timeout(PATIENCE):
        while not found or not found[-1].last:
            found += [each for each, _ in worker.channel.receive() if isinstance(each, Records)]
            await asyncio.sleep(0)
    return found


async def test_records_of_flows_are_sent_in_chunks() -> None:
    """The channel takes less than all of them at once, and the worker waits for nothing."""
    async with controlled_worker() as c:
        kept = c.context.records
        for number in range(1, KEPT + 1):
            kept.number = number
            kept.add(record(number))
        c.worker.handle(RecordsWanted(request=7, after=0, most=KEPT), None)
        c.worker.handle(RecordsWanted(request=8, after=KEPT - 1, most=5), None)
        found = await records(c)
        assert [each.number for one in found for each in one.records] == list(range(1, KEPT + 1))
        assert {one.request for one in found} == {7}
        assert len(found) == KEPT // CHUNK
        (answer,) = await records(c)
        assert (answer.request, [each.number for each in answer.records]) == (8, [KEPT])


async def test_an_answer_without_records() -> None:
    async with controlled_worker() as c:
        c.worker.handle(RecordsWanted(request=1, after=0, most=5), None)
        assert await records(c) == [Records([], request=1)]


async def test_records_for_the_flow_log_follow_the_report() -> None:
    settings = msgspec.structs.replace(SETTINGS, flow_log_every=2)
    async with controlled_worker(settings) as c:
        route = c.route(free_port())
        c.open(route)
        for number in range(1, 5):
            client, backend = await c.connect(route)
            client.close()
            backend.close()
            await eventually(partial(c.has_recorded, number))
        report, logged = c.messages()
        assert isinstance(report, Report)
        assert sum(counts.flows for _, _, counts in report.backends) == 4
        assert isinstance(logged, Records)
        assert [(each.number, each.code) for each in logged.records] == [(2, "--"), (4, "--")]
        assert (logged.request, logged.left_out) == (0, 0)
