"""Sends the records of flows that the control process has asked for."""

from __future__ import annotations

from collections import deque
from typing import Final

from uproxy.dataplane.flow_records import FlowRecords, Found
from uproxy.dataplane.reactor import Reactor
from uproxy.net.channel import Channel
from uproxy.net.messages import Records, RecordsWanted, ToWorker

CHUNK: Final = 500
"""Records in one message, about 75 KB: 0.5 ms of work."""

PAUSE: Final = 0.01
"""Seconds until the next look at a channel that is full."""


class RecordAnswers:
    """Answers in chunks: flows are served between two of them, and a chunk is sent only once the
    channel has taken the one before."""

    def __init__(self, channel: Channel[ToWorker], records: FlowRecords, reactor: Reactor) -> None:
        self._channel = channel
        self._records = records
        self._reactor = reactor
        self._waiting: deque[tuple[int, Found]] = deque()
        """What is left of each answer, with the number of its request."""

    def answer(self, wanted: RecordsWanted) -> None:
        """Send what is there now."""
        self._waiting.append((wanted.request, self._records.find(wanted)))
        if len(self._waiting) == 1:
            self._reactor.defer(self._send)

    def close(self) -> None:
        """Send nothing more."""
        self._waiting.clear()

    def _send(self) -> None:
        if not self._waiting or self._channel.ended:
            return
        self._channel.flush()
        if self._channel.wants_write:
            self._reactor.call_later(PAUSE, self._send)
            return
        request, found = self._waiting.popleft()
        rest = found.numbers[CHUNK:]
        records = self._records.records(found.numbers[:CHUNK])
        if rest:
            self._channel.post(Records(records, request, last=False))
            self._waiting.appendleft((request, found._replace(numbers=rest)))
        else:
            self._channel.post(Records(records, request, left_out=found.left_out, seen=found.seen))
        if self._waiting:
            self._reactor.defer(self._send)
