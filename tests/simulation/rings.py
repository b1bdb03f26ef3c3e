"""io_uring, as the data plane uses it (Linux 6.1: io_uring/io_uring.c, net.c, poll.c, kbuf.c).

The queues are ordinary memory, and so are the buffers, at the addresses that the process says. What
the kernel puts off until it is asked for events (DEFER_TASKRUN) is in `_work`.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable
from typing import Final

from tests.simulation.files import Descriptors, File, fail
from tests.simulation.ring_operations import OP_ASYNC_CANCEL, Issued, Operation, start
from tests.simulation.world import Fault, Violation, World

_SQE: Final = struct.Struct("=BBHiQQIIQHHI")
"""struct io_uring_sqe up to addr_len: opcode, flags, ioprio, fd, off, addr, len, op flags,
user_data, group, personality, and addr_len or optlen."""
_CQE_SKIP_SUCCESS: Final = 1 << 6
_SQ_CQ_OVERFLOW, _SQ_TASKRUN = 1 << 1, 1 << 2
_TEMPORARY: Final = (errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ENOMEM)
CQE_F_BUFFER, CQE_F_MORE = 1, 2
_ROUNDS: Final = 3
"""How often Linux looks whether there is more to do, before it returns."""


class BufferRing:
    """Buffers that the process offers, in a ring of its own."""

    def __init__(self, address: int, count: int) -> None:
        self.count = count
        self.lent: set[int] = set(range(count))
        """Those that the process has, by number."""
        self._quads = (ctypes.c_uint64 * (count * 2)).from_address(address)
        self._halves = (ctypes.c_uint16 * (count * 8)).from_address(address)
        self._head = 0
        self._seen = 0

    def look(self) -> None:
        """What has come back is what was lent, and once."""
        tail = self._halves[7]
        while self._seen != tail:
            number = self._halves[(self._seen & self.count - 1) * 8 + 6]
            if number not in self.lent:
                raise Violation(f"buffer {number} of the ring is given back twice")
            self.lent.discard(number)
            self._seen = self._seen + 1 & 0xFFFF

    def take(self) -> tuple[int, int, int] | None:
        """Address, size and number of the next, if there is any."""
        self.look()
        if self._head == self._seen:
            return None
        at = self._head & self.count - 1
        number = self._halves[at * 8 + 6]
        if number in self.lent:
            raise Violation(f"buffer {number} is offered while a completion has it")
        return self._quads[at * 2], self._quads[at * 2 + 1] & 0xFFFF_FFFF, number

    def lend(self, number: int) -> None:
        self._head = self._head + 1 & 0xFFFF
        self.lent.add(number)


class RingFile(File):
    """What the descriptor of a ring refers to."""

    def __init__(self, world: World, queues: SimulatedQueues) -> None:
        super().__init__(world, "io_uring")
        self._queues = queues

    def release(self) -> None:
        self._queues.end()


class SimulatedQueues:
    """What a ring shares with the kernel, and its system calls."""

    sq_flags_at, sq_tail_at, cq_head_at, cq_tail_at = 0, 1, 2, 3

    def __init__(
        self,
        world: World,
        descriptors: Descriptors,
        *,
        entries: int,
        completions: int,
        limits: bool,
    ) -> None:
        self.world = world
        self.descriptors = descriptors
        self.limits = limits
        """Whether receives may have a limit (Linux 6.17)."""
        self._fields = bytearray(16)
        self._sqes = bytearray(entries * 64)
        self._cqes = bytearray(completions * 16)
        self.fields = memoryview(self._fields).cast("I")
        self.sqes = memoryview(self._sqes)
        self.sqe_words = self.sqes.cast("Q")
        self.cqes = memoryview(self._cqes).cast("Q")
        self.sq_mask, self.cq_mask = entries - 1, completions - 1
        self.buffer_rings: dict[int, BufferRing] = {}
        self.armed: dict[Operation, None] = {}
        """Operations under way."""
        self._head = 0
        self._cq_tail = 0
        self._work: dict[Operation, None] = {}
        """Operations for which something has happened."""
        self._overflow: list[tuple[int, int]] = []
        self._errno = 0
        self.fd = descriptors.install(RingFile(world, self))

    def enter(self, to_submit: int, *, get_events: bool) -> int:
        """As io_uring_enter(2)."""
        self.world.call()
        if self.world.chance(Fault.ENTER_REFUSED):
            self._errno = self.world.random.choice(_TEMPORARY)
            return -1
        taken = self._submit(to_submit)
        if get_events and taken == to_submit:  # Otherwise Linux returns at once.
            self._run_work()
        return taken

    def enter_and_wait(self, to_submit: int) -> int:
        """The same, and wait for a completion, if all was submitted."""
        taken = self.enter(to_submit, get_events=True)
        if taken == to_submit:
            while not self._ready and not self.world.chance(Fault.SPURIOUS_EVENT):
                self.world.wait(lambda: bool(self._work), None)
                self._run_work()
        return taken

    def raise_unless_temporary(self) -> None:
        if self._errno not in _TEMPORARY:
            raise fail(self._errno)

    def register_buf_ring(self, address: int, entries: int, bgid: int) -> None:
        self.buffer_rings[bgid] = BufferRing(address, entries)

    def close(self) -> None:
        for view in (self.cqes, self.sqe_words, self.sqes, self.fields):
            view.release()
        self.descriptors.close(self.fd)
        self.fd = -1

    def end(self) -> None:
        """The last descriptor of the ring is closed: operations end, and let go of their files."""
        for operation in list(self.armed):
            self.disarm(operation)

    def happened(self, operation: Operation) -> None:
        """There is something to be done for an operation, when we are asked next."""
        self._work[operation] = None
        if self.fd >= 0:
            self._show()

    def disarm(self, operation: Operation) -> None:
        """An operation is over."""
        self.armed.pop(operation, None)
        self._work.pop(operation, None)
        operation.let_go()

    def complete(self, user_data: int, result: int, flags: int = 0, bid: int = 0) -> None:
        """Report, at the end of the queue."""
        value = result & 0xFFFF_FFFF | (flags | bid << 16) << 32
        if self.world.trace is not None:
            self.world.note("ring", f"done  {_spelled(user_data)} {result} {_flags(flags, bid)}")
        if self._overflow or self._room < 1:
            self._overflow.append((user_data, value))
            self._show()
        else:
            self._put(user_data, value)

    @property
    def crowded(self) -> bool:
        """Whether completions have to wait for room: multishot operations then end."""
        return bool(self._overflow) or self._room < 1

    @property
    def _room(self) -> int:
        return self.cq_mask + 1 - (self._cq_tail - self.fields[self.cq_head_at] & 0xFFFF_FFFF)

    @property
    def _ready(self) -> bool:
        return self._cq_tail & 0xFFFF_FFFF != self.fields[self.cq_head_at]

    def _put(self, user_data: int, value: int) -> None:
        at = (self._cq_tail & self.cq_mask) * 2
        self.cqes[at], self.cqes[at + 1] = user_data, value
        self._cq_tail += 1
        self.fields[self.cq_tail_at] = self._cq_tail & 0xFFFF_FFFF

    def _submit(self, to_submit: int) -> int:
        there = self.fields[self.sq_tail_at] - self._head & 0xFFFF_FFFF
        if to_submit > there:
            raise Violation(f"{to_submit} operations are submitted, and {there} are there")
        if to_submit and self.world.chance(Fault.PART_SUBMITTED):
            to_submit = self.world.random.randrange(to_submit)
            if not to_submit:
                self._errno = errno.EAGAIN
                return -1
        for group in self.buffer_rings.values():
            group.look()
        late: list[Callable[[], None]] = []
        for _ in range(to_submit):
            fields = _SQE.unpack_from(self._sqes, (self._head & self.sq_mask) * 64)
            self._head += 1
            self._issue(Issued(*fields), late)
        for report in late:
            report()
        return to_submit

    def _issue(self, entry: Issued, late: list[Callable[[], None]]) -> None:
        if self.world.trace is not None:
            self.world.note("ring", f"begin {entry} {_spelled(entry.user_data)}")
        if entry.opcode == OP_ASYNC_CANCEL:
            self._cancel(entry)
            return
        result = start(self, entry)
        if result is None or (entry.is_done(result) and entry.flags & _CQE_SKIP_SUCCESS):
            return
        # Failures of what was done at once are reported behind what was received at once.
        late.append(lambda: self.complete(entry.user_data, result))

    def _cancel(self, entry: Issued) -> None:
        if entry.operation_flags:
            raise Violation("a cancellation has flags of something else")
        for operation in self.armed:
            if operation.entry.user_data == entry.address and not operation.cancelled:
                operation.cancelled = True
                self.happened(operation)
                return
        self.complete(entry.user_data, -errno.ENOENT)

    def _run_work(self) -> None:
        while self._overflow and self._room:
            self._put(*self._overflow.pop(0))
        for _ in range(_ROUNDS):
            self._run_once()
            if not self._work:
                break
        self._show()

    def _run_once(self) -> None:
        waiting = list(self._work)
        self._work.clear()
        if len(waiting) > 1 and self.world.chance(Fault.SHUFFLED_EVENTS):
            self.world.random.shuffle(waiting)
        for operation in waiting:
            if operation not in self.armed:
                continue
            if self.world.chance(Fault.LATE_WORK):
                self.happened(operation)
                continue
            operation.run()
            if len(waiting) > 1:
                self.world.call()  # Others go on meanwhile, and have their work done as well.

    def _show(self) -> None:
        """Let the process see what it might ask for."""
        work = _SQ_TASKRUN if self._work else 0
        self.fields[self.sq_flags_at] = work | (_SQ_CQ_OVERFLOW if self._overflow else 0)


def _spelled(user_data: int) -> str:
    if user_data >> 63:
        return "(ignored)"
    return f"user_data {user_data & (1 << 44) - 1}" + (" send" if user_data >> 62 else "")


def _flags(flags: int, bid: int) -> str:
    text = f"buffer {bid} " if flags & CQE_F_BUFFER else ""
    return text + ("more" if flags & CQE_F_MORE else "")
