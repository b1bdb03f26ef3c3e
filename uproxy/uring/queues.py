"""The memory that an io_uring shares with its process, and its system calls, by ctypes.

Python has no memory barriers, and none are needed. With IORING_SETUP_DEFER_TASKRUN the kernel works
on the ring only inside io_uring_enter(2), and with IORING_SETUP_SINGLE_ISSUER only when the thread
that made the ring calls it (others get EEXIST). So the head of the SQ and the tail of
the CQ are moved by this thread itself, and it sees them in program order. There is one exception:
SQ_TASKRUN is set by whichever processor a packet arrives on. It is a bit of an aligned word, and
nothing is read because of it before the next call.

Without DEFER_TASKRUN a receive would also be carried out at the end of other system calls, and the
tail of the CQ would move while completions are looked at.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
from collections.abc import Callable
from typing import Final, Literal, Protocol

from uproxy.uring.buffers import address_of

_SQ_ENTRIES: Final = 1024
"""A flow queues two or three SQEs in a turn. If there are more, they are submitted in parts."""
_CQ_ENTRIES: Final = _SQ_ENTRIES * 8
"""More than the SQ has, as an SQE of a multishot receive has many CQEs. What does not fit is kept
by the kernel (IORING_FEAT_NODROP), but ends multishot receives. The kernel also derives from it how
it finds an operation to be cancelled: with 4096 entries in 128 chains, from 8192 on in 256. With
19,000 UDP flows, one that gives way to another costs 9 % less CPU (decision 0026)."""
_SYS_SETUP, _SYS_ENTER, _SYS_REGISTER = 425, 426, 427
"""Numbers of the system calls, on all architectures."""
_SETUP_FLAGS: Final = (
    1 << 3  # CQSIZE
    | 1 << 7  # SUBMIT_ALL: an SQE that is refused does not hold up those behind it.
    | 1 << 8  # COOP_TASKRUN
    | 1 << 9  # TASKRUN_FLAG: SQ_TASKRUN shows that there is task work (busy_poll.py).
    | 1 << 12  # SINGLE_ISSUER
    | 1 << 13  # DEFER_TASKRUN
)
_ENTER_GETEVENTS: Final = 1
_OFF_SQES: Final = 0x1000_0000
_REGISTER_PBUF_RING: Final = 22
_FEAT_NODROP: Final = 1 << 1
_TEMPORARY: Final = frozenset({errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ENOMEM})
"""A signal came (EINTR), memory was short (EAGAIN, ENOMEM), or the CQ overflowed (EBUSY, not in
current kernels). Nothing was taken, and the same call may succeed later."""

_call: Callable[..., int] = ctypes.CDLL(None, use_errno=True)["syscall"]
"""For calls that wait: it releases the GIL, so that other threads go on."""
_call_quickly: Callable[..., int] = ctypes.PyDLL(None, use_errno=True)["syscall"]
"""For calls that do not wait: it keeps the GIL, which saves handing it over twice."""
# Neither has argtypes. Then integers that fit an int go straight through: 0.45 us for a call in
# place of 1.0 us, which was the difference between 0.82 and 0.93 of HAProxy's rate over one
# connection (decision 0007). Pointers do not fit an int: see _checked.


class RingQueues(Protocol):
    """The queues as `Ring` uses them. The simulation (decision 0011) has its own."""

    fd: int
    """Negative when closed."""
    sqes: memoryview
    """The entries of the SQ, as bytes."""
    sqe_words: memoryview
    """The same, 8 bytes at a time: 8 words an entry."""
    cqes: memoryview
    """The entries of the CQ, 8 bytes at a time: 2 words an entry."""
    sq_mask: int
    cq_mask: int
    """The number of an entry, ANDed with this, is its place."""
    fields: memoryview
    """Heads, tails and flags, 4 bytes at a time. What follows are indices into it."""
    sq_tail_at: int
    sq_flags_at: int
    cq_head_at: int
    cq_tail_at: int

    def enter(self, to_submit: int, *, get_events: bool) -> int: ...

    def enter_and_wait(self, to_submit: int) -> int: ...

    def raise_unless_temporary(self) -> None: ...

    def register_buf_ring(self, address: int, entries: int, bgid: int) -> None: ...

    def close(self) -> None: ...


class Queues:
    """The kernel's queues: a new io_uring."""

    def __init__(self) -> None:
        """Raises OSError."""
        if sys.byteorder != "little":
            raise OSError(errno.ENOSYS, "only for little-endian machines")
        parameters = bytearray(120)  # struct io_uring_params
        struct.pack_into("=III", parameters, 0, _SQ_ENTRIES, _CQ_ENTRIES, _SETUP_FLAGS)
        self.fd = _checked(_SYS_SETUP, _SQ_ENTRIES, address_of(parameters))
        self._maps: list[mmap.mmap] = []
        self._views: list[memoryview] = []
        try:
            self._map(parameters)
        except BaseException:
            self.close()
            raise

    def _map(self, parameters: bytearray) -> None:
        """Map what io_uring_setup(2) has described in its parameters: both queues together
        (IORING_FEAT_SINGLE_MMAP), and the SQEs."""
        sq_entries, cq_entries, _, _, _, features = struct.unpack_from("=6I", parameters)
        if not features & _FEAT_NODROP:
            raise OSError(errno.ENOSYS, "completions could get lost")
        _, sq_tail, _, _, sq_flags, _, array = struct.unpack_from("=7I", parameters, 40)
        cq_head, cq_tail, _, _, _, cqes = struct.unpack_from("=6I", parameters, 80)
        ring = self._share(max(array + sq_entries * 4, cqes + cq_entries * 16), 0)
        entries = self._share(sq_entries * 64, _OFF_SQES)
        self.fields = self._view(ring, "I")
        # The SQ proper is an array of indices of SQEs. Here SQEs are used in the order in which
        # they lie, so each place names its own SQE once and for all.
        for index in range(sq_entries):
            self.fields[array // 4 + index] = index
        self.sq_tail_at, self.sq_flags_at, self.cq_head_at, self.cq_tail_at = (
            each // 4 for each in (sq_tail, sq_flags, cq_head, cq_tail)
        )
        self.sqes, self.sqe_words = self._view(entries, "B"), self._view(entries, "Q")
        self.cqes = self._view(ring, "Q")[cqes // 8 : cqes // 8 + cq_entries * 2]
        self._views.append(self.cqes)
        self.sq_mask, self.cq_mask = sq_entries - 1, cq_entries - 1

    def enter(self, to_submit: int, *, get_events: bool) -> int:
        """Submit `to_submit` SQEs, and with `get_events` have the task work done. Returns how many
        were taken, or -1. If that is not all, the kernel has done no task work."""
        flags = _ENTER_GETEVENTS if get_events else 0
        return _call_quickly(_SYS_ENTER, self.fd, to_submit, 0, flags, 0)

    def enter_and_wait(self, to_submit: int) -> int:
        """The same with `get_events`, and if all were taken, wait for a completion."""
        return _call(_SYS_ENTER, self.fd, to_submit, 1, _ENTER_GETEVENTS, 0)

    def raise_unless_temporary(self) -> None:
        """After an `enter` or `enter_and_wait` that has returned -1. Raises OSError."""
        code = ctypes.get_errno()
        if code not in _TEMPORARY:
            raise OSError(code, os.strerror(code))

    def register_buf_ring(self, address: int, entries: int, bgid: int) -> None:
        """Offer a ring of buffers. Raises OSError."""
        registration = bytearray(struct.pack("=QIHH24x", address, entries, bgid, 0))
        _checked(_SYS_REGISTER, self.fd, _REGISTER_PBUF_RING, address_of(registration), 1)

    def close(self) -> None:
        # Views first: a map cannot be closed while there is one of it.
        for view in reversed(self._views):
            view.release()
        for each in self._maps:
            each.close()
        os.close(self.fd)
        self.fd = -1

    def _share(self, size: int, offset: int) -> mmap.mmap:
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._maps.append(mmap.mmap(self.fd, size, flags, offset=offset))
        return self._maps[-1]

    def _view(self, memory: mmap.mmap, unit: Literal["B", "I", "Q"]) -> memoryview:
        with memoryview(memory) as whole:
            view: memoryview = whole.cast("B").cast(unit)
        self._views.append(view)
        return view


def _checked(number: int, *arguments: int) -> int:
    """A system call that may have pointers among its arguments, and raises OSError."""
    result = _call_quickly(number, *map(ctypes.c_long, arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
