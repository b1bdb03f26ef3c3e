"""Asks all workers for the flows that have ended, and puts their answers together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from uproxy.control.time_slices import TimeSlices
from uproxy.core.cluster.pod_history import Place
from uproxy.core.flows.flow_record import FlowRecord
from uproxy.core.report.flow_format import (
    Cursor,
    Ended,
    FlowFilter,
    FlowsView,
    FlowView,
    Position,
    cursor_text,
    flow_view,
    merged,
    parse_cursor,
)
from uproxy.net.messages import Records, RecordsWanted, ToWorker

_PATIENCE: Final = 2.0
"""Seconds. A worker answers in a few milliseconds; one that hangs must not hang the others'
answers."""


class AskedWorkers(Protocol):
    """The part of Workers that is used here."""

    @property
    def count(self) -> int: ...
    @property
    def running(self) -> Mapping[int, int]: ...
    def send(self, worker: int, message: ToWorker) -> None: ...


@dataclass(eq=False)
class _Answer:
    """What one worker has sent so far."""

    pid: int
    records: list[FlowRecord] = field(default_factory=list)
    left_out: int = 0
    seen: int = 0
    """The number of the last record that the worker has."""
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class RecentFlows:
    """Workers keep the records, and send them only when they are asked to."""

    def __init__(
        self,
        workers: Callable[[], AskedWorkers],
        place: Callable[[FlowRecord], Place],
        patience: float = _PATIENCE,
    ) -> None:
        """`place` says where the backend of a flow ran."""
        self._workers = workers
        self._place = place
        self._patience = patience
        self._request = 0
        self._asked: dict[tuple[int, int], _Answer] = {}
        """By worker and request."""

    async def find(self, wanted: FlowFilter) -> FlowsView:
        """The flows that are wanted, as far as workers answer in time."""
        before = parse_cursor(wanted.after)
        self._request += 1
        request = self._request
        workers = self._workers()
        answers = {worker: _Answer(pid) for worker, pid in workers.running.items()}
        self._asked |= {(worker, request): answer for worker, answer in answers.items()}
        try:
            for worker, answer in answers.items():
                workers.send(worker, _message(request, wanted, before, worker, answer.pid))
            await self._wait_for(answers)
        finally:
            for worker in answers:
                del self._asked[worker, request]
        return await self._put_together(wanted, before, answers)

    def received(self, worker: int, records: Records) -> None:
        """A part of an answer has arrived; it may be too late."""
        answer = self._asked.get((worker, records.request))
        if answer is not None:
            answer.records += records.records
            if records.last:
                answer.left_out, answer.seen = records.left_out, records.seen
                answer.complete.set()

    async def _wait_for(self, answers: Mapping[int, _Answer]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                for answer in answers.values():
                    await answer.complete.wait()
        except TimeoutError:
            return

    async def _put_together(
        self, wanted: FlowFilter, before: Cursor, answers: Mapping[int, _Answer]
    ) -> FlowsView:
        complete = {index: each for index, each in answers.items() if each.complete.is_set()}
        found, too_many = merged(
            ([Ended(each, index) for each in answer.records] for index, answer in complete.items()),
            wanted.limit,
        )
        flows: list[FlowView] = []
        slices = TimeSlices()
        for each in found:
            flows.append(flow_view(each, self._place(each.record)))
            await slices.pause_if_due()
        return FlowsView(
            flows,
            cursor_text(_cursor(before, complete)),
            too_many + sum(each.left_out for each in complete.values()),
            [self._why_missing(index, answers) for index in self._missing(complete)],
        )

    def _missing(self, complete: Mapping[int, _Answer]) -> list[int]:
        return [index for index in range(self._workers().count) if index not in complete]

    def _why_missing(self, worker: int, answers: Mapping[int, _Answer]) -> str:
        if worker in answers:
            return f"worker {worker} has not answered within {self._patience:g} s"
        return f"worker {worker} is starting"


def _message(
    request: int, wanted: FlowFilter, before: Cursor, worker: int, pid: int
) -> RecordsWanted:
    selects = wanted.namespace or wanted.service
    return RecordsWanted(
        request=request,
        after=_after(before, worker, pid),
        most=wanted.limit,
        only_bad=wanted.bad,
        service=(wanted.namespace, wanted.service) if selects else None,
    )


def _after(before: Cursor, worker: int, pid: int) -> int:
    """A process counts its own records, so that the numbers of its predecessor mean nothing."""
    position = before.get(worker)
    return position.number if position is not None and position.pid == pid else 0


def _cursor(before: Cursor, answers: Mapping[int, _Answer]) -> Cursor:
    return {
        **before,
        **{worker: Position(answer.pid, answer.seen) for worker, answer in answers.items()},
    }
