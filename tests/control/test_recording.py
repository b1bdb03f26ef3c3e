"""What is recorded for the page while the program runs."""

from __future__ import annotations

import asyncio

from tests.http.statuses import KUBIA
from uproxy.control.recording import Recording
from uproxy.core.flows.counters import Counters
from uproxy.core.report.problems import Event, Problem, Problems, Reference
from uproxy.core.route import ServicePortName

WEB = Reference("Service", "shop", "web")
PROBLEM = {Problem(WEB, "PortConflict"): Event(WEB, "Warning", "PortConflict", "Listen", "taken")}


class Program:
    def __init__(self) -> None:
        self.flows = 0
        self.wrong: Problems | None = None
        self.recording = Recording(
            "node-1",
            counters=self._counters,
            problems=lambda: self.wrong,
            exists=lambda _: True,
            period=0.001,
        )

    def _counters(self) -> dict[ServicePortName, Counters]:
        self.flows += 1
        return {KUBIA: Counters(flows=self.flows)}

    def reasons(self) -> list[str]:
        return [each.reason for each in self.recording.view(0).events]


async def test_it_samples_as_long_as_it_runs() -> None:
    program = Program()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(program.recording.run())
        while len(program.recording.view(0).samples) < 3:  # noqa: ASYNC110 - as it says
            await asyncio.sleep(0.001)
        running.cancel()
    samples = program.recording.view(0).samples
    assert all(each.flows > 0 for each in samples)
    assert program.recording.view(samples[-1].time).samples == []


def test_events_without_a_cluster() -> None:
    program = Program()
    assert program.reasons() == ["Starting"]
    program.recording.record()
    assert program.reasons() == ["Starting"]
    program.wrong = PROBLEM
    program.recording.record()
    program.wrong = {}
    program.recording.record()
    assert program.reasons() == ["Recovered", "PortConflict", "Starting"]


def test_events_of_other_parts() -> None:
    program = Program()
    program.recording.happened(PROBLEM.values())
    assert program.reasons() == ["PortConflict", "Starting"]
