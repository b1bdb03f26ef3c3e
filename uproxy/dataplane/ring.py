"""io_uring(7): sockets that report what they have received, and sends that leave in batches.

An event of epoll says that a socket can be read; then it has to be, and what was read has to be
sent: two system calls for each of many sockets. A completion of io_uring carries the bytes along,
and one call sends the answers to all of them. (Measured, requests over 64 connections: 25 % less
CPU than recv and send, see docs/decisions/0007-io-uring.md.)

What the kernel has to offer differs: Linux 6.1 is needed, and the seccomp profiles of container
runtimes often refuse the calls. Then `Ring` raises OSError, and epoll does all the work.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import mmap
import os
import struct
from collections.abc import Callable
from typing import Final

Completed = Callable[[int], None]
"""Takes a completion: the result in the lower 32 bits, the flags of the kernel above them."""

SIZE: Final = 16 * 1024
"""Bytes of a receive buffer. Nearly all requests and most answers fit."""

BUFFERS: Final = 512
"""Receive buffers of a worker. They only hold bytes between two calls of the kernel; a socket that
finds none free is asked again. Their 8 MiB are touched as far as messages are long."""

RESULT: Final = 0xFFFF_FFFF
FAILED: Final = 0x8000_0000
"""Set in a result that is an errno, negated."""
HAS_BUFFER: Final = 1 << 32
MORE: Final = 2 << 32
"""Set while a multishot operation goes on."""
UNSENT: Final = 1 << 46
"""Set by us for a send that the kernel has not carried out completely."""
BUFFER_SHIFT: Final = 48

_SUBMISSIONS: Final = 4096
_SEND_FAILED: Final = 1 << 62
"""Set in the user data of sends, which complete only when something is left."""
_IGNORED: Final = 1 << 63

_SETUP, _ENTER, _REGISTER = 425, 426, 427
"""Numbers of the system calls, the same on all architectures."""
_SETUP_FLAGS: Final = (
    1 << 3  # CQSIZE
    | 1 << 7  # SUBMIT_ALL: an operation that is refused does not hold up those behind it.
    | 1 << 8  # COOP_TASKRUN
    | 1 << 12  # SINGLE_ISSUER
    | 1 << 13  # DEFER_TASKRUN: nothing is received while we look at what was.
)
_GET_EVENTS: Final = 1
_OFFSET_SUBMISSIONS: Final = 0x1000_0000
_REGISTER_BUFFERS: Final = 22
_NODROP: Final = 1 << 1

_SELECT_BUFFER: Final = 1 << 13
_SKIP_SUCCESS: Final = 1 << 14
_MULTISHOT: Final = 2 << 16
_POLL_FIRST: Final = 1 << 16
_RECEIVE: Final = 27 | _SELECT_BUFFER | _MULTISHOT
_RECEIVE_LATER: Final = _RECEIVE | _POLL_FIRST
_SEND: Final = 26 | _SKIP_SUCCESS
_CANCEL: Final = 14 | _SKIP_SUCCESS
_POLL, _TIMEOUT = 6, 11
"""Opcode, flags and priority: how an entry begins. The descriptor follows in the upper half."""
_ABSOLUTE: Final = 1
_DONTWAIT, _WAITALL, _MORE_FOLLOWS, _NOSIGNAL = 0x40, 0x100, 0x8000, 0x4000
_SEND_FLAGS: Final = (_DONTWAIT | _WAITALL | _NOSIGNAL) << 32

_ENTRY: Final = struct.Struct("=QQQQQ24x")
"""struct io_uring_sqe: opcode, flags, ioprio and fd; off; addr; len and op flags; user_data. The
rest, with the group of buffers, is 0."""
_LATER: Final = frozenset({errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ENOMEM})

logger = logging.getLogger(__name__)

_call = ctypes.CDLL(None, use_errno=True)["syscall"]
_call_quickly = ctypes.PyDLL(None, use_errno=True)["syscall"]
"""For calls that do not wait: other threads do not get their turn."""
# Without argtypes: integers that fit an int go straight through, in 0.4 us instead of 1 us.


class Ring:
    """A submission queue, a completion queue, and buffers for what is received.

    A send is either complete when `run` calls back for the first time after it was queued, or its
    owner is told what is left of it: sends never wait in the kernel. So the buffer that it sends
    from is free again, and bytes of a stream cannot overtake each other as long as its owner
    queues one send in each `round`.

    Descriptors are looked up when an operation is submitted: `flush` before closing one that was
    named by an operation of this `round`.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self.round = 0
        """Number of the batch of submissions that is being put together."""
        self.failed: Callable[[Callable[..., None], Exception], None] = _log
        """Told what a callback raised."""
        self._keys = itertools.count(1)
        self._callbacks: dict[int, Completed] = {}
        self._used: list[int] = []
        """Buffers of sends that were queued."""
        self._again: list[Callable[[], None]] = []
        self._memory = memory = _Memory()
        self.fd = memory.fd
        self._numbers = memory.numbers
        self._tail_at = memory.tail_at
        self._entries, self._words = memory.entries, memory.words
        self._mask = memory.mask
        self._tail = self._submitted = 0
        self._done_head_at, self._done_tail_at = memory.done_head_at, memory.done_tail_at
        self._completions = memory.completions
        self._done_mask = memory.done_mask
        self._done = 0
        self._pool, self._base = memory.pool, memory.base
        self._offered, self._halves = memory.offered, memory.halves
        self._offers = 0
        self._time = bytearray(16)
        self._time_address = _address(self._time)
        for buffer in range(BUFFERS):
            self.free(buffer)

    def receive(self, fd: int, key: int, *, empty: bool = False) -> None:
        """Call back for all that a socket receives, until a completion without MORE. `empty`:
        nothing is expected to be there yet."""
        self._queue((_RECEIVE_LATER if empty else _RECEIVE) | fd << 32, 0, 0, 0, key)

    def send(self, entry: bytes, buffer: int, count: int) -> int:
        """Queue a `send_entry` for the first bytes of a receive buffer, which it frees. Returns
        the place for `more_follows`."""
        tail = self._tail
        if tail - self._submitted > self._mask:
            self.flush()
        slot = tail & self._mask
        at = slot << 6
        self._entries[at : at + 64] = entry
        at >>= 3
        self._words[at + 2] = self._base + buffer * SIZE
        self._words[at + 3] = count | _SEND_FLAGS
        self._tail = tail + 1
        self._used.append(buffer)
        return slot

    def more_follows(self, slot: int) -> None:
        """Have a send that was queued in this round wait for what is written next, as a FIN."""
        self._words[(slot << 3) + 3] |= _MORE_FOLLOWS << 32

    def poll(self, fd: int, events: int, callback: Completed) -> int:
        """Call back once when a descriptor is ready. Returns the key."""
        key = self.add(callback)
        self._queue(_POLL | fd << 32, 0, 0, events << 32, key)
        return key

    def wake_at(self, when: float, callback: Completed) -> None:
        """Call back once when the monotonic clock says so."""
        struct.pack_into("=qq", self._time, 0, int(when), int(when % 1 * 1e9))
        self._queue(_TIMEOUT, 0, self._time_address, 1 | _ABSOLUTE << 32, self.add(callback))
        self.flush()

    def cancel(self, key: int) -> None:
        """End an operation early; it completes with ECANCELED if it had not completed before."""
        self._queue(_CANCEL, 0, key, 0, _IGNORED)

    def add(self, callback: Completed) -> int:
        """A key for operations."""
        key = next(self._keys)
        self._callbacks[key] = callback
        return key

    def remove(self, key: int) -> None:
        """Call back for a key no more. Unknown ones are fine."""
        self._callbacks.pop(key, None)

    def again(self, callback: Callable[[], None]) -> None:
        """Call once when the sends queued so far are decided."""
        self._again.append(callback)

    def view(self, buffer: int, begin: int, end: int) -> memoryview:
        """Bytes in a receive buffer; valid until `run` calls the kernel."""
        at = buffer * SIZE
        return self._pool[at + begin : at + end]

    def free(self, buffer: int) -> None:
        """A receive buffer can be used again."""
        at = self._offers & (BUFFERS - 1)
        self._offered[at << 1] = self._base + buffer * SIZE
        self._halves[(at << 3) + 6] = buffer
        self._offers += 1
        self._halves[7] = self._offers & 0xFFFF  # The tail lies in the first entry's padding.

    def flush(self) -> None:
        """Submit what is queued; nobody is called back."""
        while (queued := self._tail - self._submitted) > 0:
            self._numbers[self._tail_at] = self._tail & RESULT
            if self._took(_call_quickly(_ENTER, self.fd, queued, 0, 0, 0)) <= 0:
                return

    def turn(self, wait: bool) -> None:
        """Submit what is queued, wait for a completion if that is wanted, and call back for all
        there are."""
        queued = self._tail - self._submitted
        if queued:
            self._numbers[self._tail_at] = self._tail & RESULT
        if wait and not self._again:
            taken = _call(_ENTER, self.fd, queued, 1, _GET_EVENTS, 0)
        else:
            taken = _call_quickly(_ENTER, self.fd, queued, 0, _GET_EVENTS, 0)
        if taken == queued:
            self._submitted = self._tail
        else:
            self._took(taken)
            self.flush()
        if self._submitted == self._tail:
            self.round += 1
            used, self._used = self._used, []
            again, self._again = self._again, []
        else:
            used, again = [], []
        head, tail = self._done, self._numbers[self._done_tail_at]
        if head != tail:
            completions, mask, find = self._completions, self._done_mask, self._callbacks.get
            while head != tail:
                at = (head & mask) << 1
                completion = completions[at + 1]
                callback = find(completions[at])
                head = (head + 1) & RESULT
                try:
                    if callback is not None:
                        callback(completion)
                    else:
                        self._unusual(completions[at], completion)
                except Exception as error:
                    self.failed(callback, error)
            self._done = self._numbers[self._done_head_at] = head
        for buffer in used:  # Not before: owners of failed sends have looked at what is left.
            self.free(buffer)
        for callback in again:
            try:
                callback()
            except Exception as error:
                self.failed(callback, error)

    def close(self) -> None:
        """Give everything back. Operations end, their sockets stay open."""
        if self._memory.fd < 0:
            return
        self.turn(wait=False)  # Lets go of sockets that were closed.
        self._callbacks.clear()
        self._again.clear()
        self._memory.close()

    def _unusual(self, key: int, completion: int) -> None:
        """A completion that is not of an operation with an owner."""
        if completion & HAS_BUFFER:
            self.free(completion >> BUFFER_SHIFT)
        callback = self._callbacks.get(key ^ _SEND_FAILED)
        if callback is not None:
            callback(completion | UNSENT)

    def _queue(self, head: int, offset: int, address: int, length: int, key: int) -> None:
        if self._tail - self._submitted > self._mask:
            self.flush()
        _ENTRY.pack_into(self._entries, (self._tail & self._mask) << 6,
                         head, offset, address, length, key)  # fmt: skip
        self._tail += 1

    def _took(self, taken: int) -> int:
        """How many operations the kernel has taken. Raises OSError."""
        if taken < 0:
            code = ctypes.get_errno()
            if code not in _LATER:
                raise OSError(code, os.strerror(code))
            return 0
        self._submitted += taken
        return taken


def send_entry(fd: int, key: int) -> bytes:
    """What `Ring.send` needs to send to a socket on behalf of a key."""
    return _ENTRY.pack(_SEND | fd << 32, 0, 0, 0, key | _SEND_FAILED)


def errno_of(completion: int) -> int:
    """0 for a completion that is none of a failure."""
    result = completion & RESULT
    return (1 << 32) - result if result & FAILED else 0


class _Memory:
    """What is shared with the kernel: three queues, and a pool of buffers.

    Only our own calls move the kernel's ends of the queues (DEFER_TASKRUN), so no memory barriers
    are needed.
    """

    def __init__(self) -> None:
        parameters = bytearray(120)
        struct.pack_into("=III", parameters, 0, _SUBMISSIONS, _SUBMISSIONS * 4, _SETUP_FLAGS)
        self.fd = _checked(_SETUP, _SUBMISSIONS, _address(parameters))
        self._maps: list[mmap.mmap] = []
        self._views: list[memoryview] = []
        try:
            self._map(parameters)
            self._register()
        except BaseException:
            self.close()
            raise

    def _map(self, parameters: bytearray) -> None:
        count, done_count, _, _, _, features = struct.unpack_from("=6I", parameters)
        if not features & _NODROP:
            raise OSError(errno.ENOSYS, "completions could get lost")
        _, tail, _, _, _, _, array = struct.unpack_from("=7I", parameters, 40)
        done_head, done_tail, _, _, _, done = struct.unpack_from("=6I", parameters, 80)
        ring = self._share(max(array + count * 4, done + done_count * 16), 0)
        entries = self._share(count * 64, _OFFSET_SUBMISSIONS)
        self.numbers = self._view(ring, "I")
        for index in range(count):
            self.numbers[array // 4 + index] = index
        self.tail_at, self.done_head_at, self.done_tail_at = (
            each // 4 for each in (tail, done_head, done_tail)
        )
        self.entries, self.words = self._view(entries, "B"), self._view(entries, "Q")
        self.completions = self._view(ring, "Q")[done // 8 : done // 8 + done_count * 2]
        self._views.append(self.completions)
        self.mask, self.done_mask = count - 1, done_count - 1

    def _register(self) -> None:
        """Tell the kernel where buffers will be offered."""
        pool, offered = self._add(BUFFERS * SIZE), self._add(BUFFERS * 16)
        self.pool, self.base = self._view(pool, "B"), _address(pool)
        self.offered, self.halves = self._view(offered, "Q"), self._view(offered, "H")
        for index in range(BUFFERS):
            struct.pack_into("=QIH", offered, index * 16, 0, SIZE, 0)
        registration = bytearray(struct.pack("=QIHH24x", _address(offered), BUFFERS, 0, 0))
        _checked(_REGISTER, self.fd, _REGISTER_BUFFERS, _address(registration), 1)

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

    def _add(self, size: int) -> mmap.mmap:
        self._maps.append(mmap.mmap(-1, size))
        return self._maps[-1]

    def _view(self, memory: mmap.mmap, unit: str) -> memoryview:
        with memoryview(memory) as whole:
            view = whole.cast("B").cast(unit)
        self._views.append(view)
        return view


def _checked(number: int, *arguments: int) -> int:
    result = int(_call_quickly(number, *map(ctypes.c_long, arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _address(memory: bytearray | mmap.mmap) -> int:
    """Where it is; it cannot be resized from then on while somebody looks at it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _log(callback: Callable[..., None], error: Exception) -> None:
    logger.error("%r failed", callback, exc_info=error)
