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

from uproxy.dataplane.ring_buffers import Buffers, address_of

Completed = Callable[[int], None]
"""Takes a completion: the result in the lower 32 bits, the flags of the kernel above them."""

SIZE: Final = 16 * 1024
"""Bytes of a receive buffer. Nearly all requests and most answers fit."""

BUFFERS: Final = 512
"""Receive buffers of a worker. They only hold bytes between two calls of the kernel; a socket that
finds none free is asked again. Their 8 MiB are touched as far as messages are long."""

LARGE_SIZE: Final = 65_536 + 1024
"""Bytes: any datagram, with its name and control data."""
LARGE_BUFFERS: Final = 256

RESULT: Final = 0xFFFF_FFFF
FAILED: Final = 0x8000_0000
"""Set in a result that is an errno, negated."""
HAS_BUFFER: Final = 1 << 32
MORE: Final = 2 << 32
"""Set while a multishot operation goes on."""
LARGE: Final = 1
"""Set in keys of operations that receive into large buffers, to which they go back if nobody
wants what they hold."""
UNSENT: Final = 1 << 46
"""Set by us for a send that the kernel has not carried out completely."""
BUFFER_SHIFT: Final = 48

_SUBMISSIONS: Final = 4096
_SEND_FAILED: Final = 1 << 62
"""Set in the user data of sends, which complete only when something is left."""
_IGNORED: Final = 1 << 63
_KEY: Final = (1 << 44) - 1
_BUFFER_IN_KEY: Final = 44
_BUFFER: Final = 0xFFFF << _BUFFER_IN_KEY
_BUFFER_TO_COMPLETION: Final = 4
"""Sends of datagrams have the number of their buffer in their user data."""

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
_RECEIVE_MESSAGE: Final = 10 | _SELECT_BUFFER | _MULTISHOT
_SEND_MESSAGE: Final = 9 | _SKIP_SUCCESS
_CANCEL: Final = 14 | _SKIP_SUCCESS
_POLL, _TIMEOUT = 6, 11
"""Opcode, flags and priority: how an entry begins. The descriptor follows in the upper half."""
_ABSOLUTE: Final = 1
_DONTWAIT, _WAITALL, _MORE_FOLLOWS, _NOSIGNAL = 0x40, 0x100, 0x8000, 0x4000
_SEND_FLAGS: Final = (_DONTWAIT | _WAITALL | _NOSIGNAL) << 32
_DATAGRAM_FLAGS: Final = (_DONTWAIT | _NOSIGNAL) << 32

_ENTRY: Final = struct.Struct("=QQQQQQ16x")
"""struct io_uring_sqe: opcode, flags, ioprio and fd; off; addr; len and op flags; user_data; group
of buffers and length of an address. The rest is 0."""
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
        self._keys = itertools.count(2, 2)
        self._callbacks: dict[int, Completed] = {}
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
        self._time = bytearray(16)
        self._time_address = address_of(self._time)
        self.buffers = Buffers(self._register_buffers, group=0, count=BUFFERS, size=SIZE)
        """For streams."""
        self._base = self.buffers.base
        self._used = self.buffers.used
        self._large: Buffers | None = None

    @property
    def large(self) -> Buffers:
        """Buffers for datagrams of any length; made when they are first needed."""
        if self._large is None:
            self._large = Buffers(
                self._register_buffers, group=1, count=LARGE_BUFFERS, size=LARGE_SIZE
            )
        return self._large

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

    def receive_datagrams(self, fd: int, key: int) -> None:
        """Like `receive`, for a connected datagram socket, into large buffers. An empty datagram
        is a completion without MORE."""
        self._queue(_RECEIVE | fd << 32, 0, 0, 0, key, 1)

    def receive_messages(self, fd: int, key: int, header: int) -> None:
        """Like `receive`, for a datagram socket that is not connected. `header`: address of a
        struct msghdr that says how much room names and control data get in each buffer, which
        begins with 16 bytes, a name and control data."""
        assert self.large is not None  # Made now, if there were none.
        self._queue(_RECEIVE_MESSAGE | fd << 32, 0, header, 0, key, 1)

    def send_datagram(
        self, fd: int, key: int, buffer: int, begin: int, count: int,
        *, name: int = 0, length: int = 0, mark: int = 0,
    ) -> None:  # fmt: skip
        """Queue bytes of a large buffer, which it frees. `name`: address of a struct sockaddr of
        `length` bytes, which must stay until the next turn; none for a connected socket. The
        completion of a failure has the number of the buffer, with `mark`."""
        large = self.large
        self._queue(
            _SEND | fd << 32, name, large.base + buffer * LARGE_SIZE + begin,
            count | _DATAGRAM_FLAGS, key | _SEND_FAILED | (buffer | mark) << _BUFFER_IN_KEY,
            length << 32,
        )  # fmt: skip
        large.used.append(buffer)

    def send_message(self, fd: int, key: int, buffer: int, header: int, *, mark: int = 0) -> None:
        """Queue what the struct msghdr at an address describes, of a large buffer, which it
        frees."""
        self._queue(
            _SEND_MESSAGE | fd << 32, 0, header,
            1 | _DATAGRAM_FLAGS, key | _SEND_FAILED | (buffer | mark) << _BUFFER_IN_KEY,
        )  # fmt: skip
        self.large.used.append(buffer)

    def cancel(self, key: int) -> None:
        """End an operation early; it completes with ECANCELED if it had not completed before."""
        self._queue(_CANCEL, 0, key, 0, _IGNORED)

    def add(self, callback: Completed, flag: int = 0) -> int:
        """A key for operations; `flag`: LARGE for those that receive into large buffers."""
        key = next(self._keys) | flag
        self._callbacks[key] = callback
        return key

    def remove(self, key: int) -> None:
        """Call back for a key no more. Unknown ones are fine."""
        self._callbacks.pop(key, None)

    def again(self, callback: Callable[[], None]) -> None:
        """Call once when the sends queued so far are decided."""
        self._again.append(callback)

    def flush(self) -> None:
        """Submit what is queued; nobody is called back."""
        while self._tail != self._submitted and self._submit(0) > 0:
            pass

    def finish_cancelled(self) -> None:
        """Have the kernel let go of what was cancelled; nobody is called back."""
        self._submit(_GET_EVENTS)

    def _submit(self, flags: int) -> int:
        self._numbers[self._tail_at] = self._tail & RESULT
        queued = self._tail - self._submitted
        return self._took(_call_quickly(_ENTER, self.fd, queued, 0, flags, 0))

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
            used = self._used.copy()
            self._used.clear()
            used_large = self._large.take_used() if self._large is not None else ()
            again, self._again = self._again, []
        else:
            used, used_large, again = [], (), []
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
        # Not before: owners of failed sends have looked at what is left.
        for buffer in used:
            self.buffers.free(buffer)
        for buffer in used_large:
            self.large.free(buffer)
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
        self.buffers.close()
        if self._large is not None:
            self._large.close()

    def _unusual(self, key: int, completion: int) -> None:
        """A completion that is not of an operation with an owner."""
        if completion & HAS_BUFFER:
            group = self.large if key & LARGE else self.buffers
            group.free(completion >> BUFFER_SHIFT)
        if key & _SEND_FAILED:
            callback = self._callbacks.get(key & _KEY)
            if callback is not None:
                callback(completion | UNSENT | (key & _BUFFER) << _BUFFER_TO_COMPLETION)

    def _queue(
        self, head: int, offset: int, address: int, length: int, key: int, rest: int = 0
    ) -> None:
        if self._tail - self._submitted > self._mask:
            self.flush()
        _ENTRY.pack_into(self._entries, (self._tail & self._mask) << 6,
                         head, offset, address, length, key, rest)  # fmt: skip
        self._tail += 1

    def _register_buffers(self, address: int, count: int, group: int) -> None:
        registration = bytearray(struct.pack("=QIHH24x", address, count, group, 0))
        _checked(_REGISTER, self.fd, _REGISTER_BUFFERS, address_of(registration), 1)

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
    return _ENTRY.pack(_SEND | fd << 32, 0, 0, 0, key | _SEND_FAILED, 0)


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
        self.fd = _checked(_SETUP, _SUBMISSIONS, address_of(parameters))
        self._maps: list[mmap.mmap] = []
        self._views: list[memoryview] = []
        try:
            self._map(parameters)
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


def _log(callback: Callable[..., None], error: Exception) -> None:
    logger.error("%r failed", callback, exc_info=error)
