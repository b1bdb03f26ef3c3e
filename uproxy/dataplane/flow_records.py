"""The records of flows that have ended, which a worker keeps, and those that go to the flow log."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Final, NamedTuple

from uproxy.core.flows.flow_record import COMPLETE, KEPT, FlowRecord
from uproxy.core.route import Backend, Frontend, ServicePortName
from uproxy.net.messages import Records, RecordsWanted

LOGGED: Final = 400
"""Records of each kind, good and bad, that go to the flow log with one report, about 60 KB: so a
flood of refused clients fills neither the channel nor the log, and keeps no good flow out."""

COMPLETED: Final = struct.Struct("=dddqqHB56s")
"""What is particular to one TCP flow that both ends have closed: when it began, ended and got its
backend, in monotonic seconds; the bytes of client and backend; the client's port; the index of the
attempt that has succeeded; the client's address, which has up to 55 characters with a zone."""


class Found(NamedTuple):
    """What is there of the records that are wanted."""

    numbers: list[int]
    left_out: int
    """See Records.left_out."""
    seen: int
    """See Records.seen."""


class FlowRecords:
    """Owned by the worker."""

    def __init__(self, every: int = 0, clock: Callable[[], float] = monotonic) -> None:
        """`every`: see Settings.flow_log_every."""
        self.monotonic = clock
        """The clock of when flows begin and end. Reactors look at it less often."""
        self.clock_offset = 0.0
        """From its seconds to Unix seconds, as of the last report: the latter may be set."""
        self.number = 0
        """Of the last record. Whoever adds one counts it."""
        self.entries: list[FlowRecord | Frontend | None] = [None] * KEPT
        """At the number modulo KEPT: the record, or the frontend of a flow whose record is made
        when it is wanted. Most flows end like this; what their records are made of is in the next
        three, at the same place (docs/decisions/0021-flow-records.md). A route must not be kept, as
        it may have a thousand backends."""
        self.owners: list[ServicePortName | None] = [None] * KEPT
        self.backends: list[Backend | None] = [None] * KEPT
        self.completed = bytearray(KEPT * COMPLETED.size)
        """See COMPLETED."""
        self.next_logged = sys.maxsize
        """The first good record from this number on goes to the log."""
        self.log_every(every)
        self._bad_room = self._good_room = LOGGED
        self._left_out = 0
        self._log: list[FlowRecord] = []

    def log_every(self, every: int) -> None:
        """Choose from now on one of so many good flows for the log; 0: there is no log."""
        self._every = every
        self.next_logged = self.number + every if every else sys.maxsize

    def add(self, record: FlowRecord) -> None:
        """Keep a record, and see whether it goes to the log."""
        self.entries[record.number % KEPT] = record
        if not self._every:
            return
        if record.is_bad:
            self._bad_room -= 1
            room = self._bad_room
        elif record.number >= self.next_logged:
            self.next_logged = record.number + self._every
            self._good_room -= 1
            room = self._good_room
        else:
            return
        if room >= 0:
            self._log.append(record)
        else:
            self._left_out += 1

    def take_log(self) -> Records | None:
        """What goes to the flow log with this report; None: nothing."""
        if not self._log and not self._left_out:
            return None
        taken = Records(self._log, left_out=self._left_out)
        self._log, self._left_out = [], 0
        self._bad_room = self._good_room = LOGGED
        return taken

    def find(self, wanted: RecordsWanted) -> Found:
        """The numbers of the records that are wanted, in order: 2 ms of work."""
        gone = max(self.number - KEPT, 0)
        # A higher number comes from a former process with the same pid, which is common in a
        # container that is started again.
        after = wanted.after if wanted.after <= self.number else 0
        found: Iterable[int] = range(max(gone, after) + 1, self.number + 1)
        if wanted.only_bad:
            found = (each for each in found if self._is_bad(each))
        if wanted.service is not None:
            namespace, name = wanted.service
            found = (each for each in found if self._is_of(each, namespace, name))
        numbers = list(found)
        shown = numbers[max(len(numbers) - wanted.most, 0) :]
        left_out = len(numbers) - len(shown)
        if after and not wanted.only_bad and wanted.service is None:
            left_out += max(gone - after, 0)
        return Found(shown, left_out, self.number)

    def records(self, numbers: Sequence[int]) -> list[FlowRecord]:
        """The records with these numbers that are still kept."""
        return [self._record(each) for each in numbers if each > self.number - KEPT]

    def _is_bad(self, number: int) -> bool:
        entry = self.entries[number % KEPT]
        return isinstance(entry, FlowRecord) and entry.is_bad

    def _is_of(self, number: int, namespace: str, name: str) -> bool:
        owner = self._owner(number)
        return namespace in ("", owner.namespace) and name in ("", owner.name)

    def _owner(self, number: int) -> ServicePortName:
        entry = self.entries[number % KEPT]
        owner = entry.owner if isinstance(entry, FlowRecord) else self.owners[number % KEPT]
        assert owner is not None
        return owner

    def _record(self, number: int) -> FlowRecord:
        at = number % KEPT
        entry, owner = self.entries[at], self.owners[at]
        if isinstance(entry, FlowRecord):
            return entry
        assert entry is not None
        assert owner is not None
        began, ended, answered, sent, received, port, attempt, client = COMPLETED.unpack_from(
            self.completed, at * COMPLETED.size
        )
        return FlowRecord(
            number=number,
            start=began + self.clock_offset,
            duration=ended - began,
            client=client.rstrip(b"\0").decode(),
            client_port=port,
            frontend=entry,
            owner=owner,
            backend=self.backends[at],
            client_bytes=sent,
            backend_bytes=received,
            dial_time=answered - began,
            attempts=attempt + 1,
            code=COMPLETE,
        )
