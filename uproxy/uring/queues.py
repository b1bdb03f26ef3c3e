"""The memory of an io_uring, and its system calls by ctypes."""

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
"""Entries; a flow has two or three in a batch. One that is larger goes in parts."""
_SYS_SETUP, _SYS_ENTER, _SYS_REGISTER = 425, 426, 427
"""Numbers of the system calls."""
_SETUP_FLAGS: Final = (
    1 << 3  # CQSIZE
    | 1 << 7  # SUBMIT_ALL: an operation that is refused does not hold up those behind it.
    | 1 << 8  # COOP_TASKRUN
    | 1 << 9  # TASKRUN_FLAG: it can be seen that there is something to be done for us.
    | 1 << 12  # SINGLE_ISSUER
    | 1 << 13  # DEFER_TASKRUN: nothing is received while we look at what was.
)
_ENTER_GETEVENTS: Final = 1
_OFF_SQES: Final = 0x1000_0000
_REGISTER_PBUF_RING: Final = 22
_FEAT_NODROP: Final = 1 << 1
_TEMPORARY: Final = frozenset({errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ENOMEM})

_call: Callable[..., int] = ctypes.CDLL(None, use_errno=True)["syscall"]
_call_quickly: Callable[..., int] = ctypes.PyDLL(None, use_errno=True)["syscall"]
"""For calls that do not wait: other threads do not get their turn."""
# Without argtypes: integers that fit an int go straight through, in 0.4 us instead of 1 us.


class RingQueues(Protocol):
    """What a ring needs of an io_uring, and may get from elsewhere."""

    fd: int
    """Negative when closed."""
    sqes: memoryview
    """Submissions, as bytes."""
    sqe_words: memoryview
    """The same, 8 bytes at a time."""
    cqes: memoryview
    """8 bytes at a time."""
    sq_mask: int
    cq_mask: int
    fields: memoryview
    """Heads and tails, and flags, 4 bytes at a time. What follows are indices into it."""
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
    """What is shared with the kernel: a queue of submissions, and one of completions.

    Only our own calls move the kernel's ends of the queues (DEFER_TASKRUN), so no memory barriers
    are needed.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        if sys.byteorder != "little":
            raise OSError(errno.ENOSYS, "only for little-endian machines")
        parameters = bytearray(120)
        struct.pack_into("=III", parameters, 0, _SQ_ENTRIES, _SQ_ENTRIES * 4, _SETUP_FLAGS)
        self.fd = _checked(_SYS_SETUP, _SQ_ENTRIES, address_of(parameters))
        self._maps: list[mmap.mmap] = []
        self._views: list[memoryview] = []
        try:
            self._map(parameters)
        except BaseException:
            self.close()
            raise

    def _map(self, parameters: bytearray) -> None:
        count, cq_entries, _, _, _, features = struct.unpack_from("=6I", parameters)
        if not features & _FEAT_NODROP:
            raise OSError(errno.ENOSYS, "completions could get lost")
        _, tail, _, _, flags, _, array = struct.unpack_from("=7I", parameters, 40)
        done_head, done_tail, _, _, _, done = struct.unpack_from("=6I", parameters, 80)
        ring = self._share(max(array + count * 4, done + cq_entries * 16), 0)
        entries = self._share(count * 64, _OFF_SQES)
        self.fields = self._view(ring, "I")
        for index in range(count):
            self.fields[array // 4 + index] = index
        self.sq_tail_at, self.sq_flags_at, self.cq_head_at, self.cq_tail_at = (
            each // 4 for each in (tail, flags, done_head, done_tail)
        )
        self.sqes, self.sqe_words = self._view(entries, "B"), self._view(entries, "Q")
        self.cqes = self._view(ring, "Q")[done // 8 : done // 8 + cq_entries * 2]
        self._views.append(self.cqes)
        self.sq_mask, self.cq_mask = count - 1, cq_entries - 1

    def enter(self, to_submit: int, *, get_events: bool) -> int:
        """Submit so many entries, and with `get_events` let the kernel do what it has put off for
        us. Returns how many it has taken, or -1."""
        flags = _ENTER_GETEVENTS if get_events else 0
        return _call_quickly(_SYS_ENTER, self.fd, to_submit, 0, flags, 0)

    def enter_and_wait(self, to_submit: int) -> int:
        """The same, and wait for a completion."""
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
    result = _call_quickly(number, *map(ctypes.c_long, arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
