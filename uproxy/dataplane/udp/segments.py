"""Several datagrams of one flow that leave by one send of the ring (UDP_SEGMENT, net/segments.py).

A flow queues a send for each datagram. If it gets a third one before the kernel has taken those,
the second send is changed where it is in the queue: it becomes the send of a message that points to
both datagrams, in the buffers in which they have arrived, and those that follow join in it. Nothing
waits for this: what joins has arrived in the same turn anyway. A datagram that joins costs the
kernel 0.4 us in place of 2.7 us (docs/decisions/0026-datagrams-in-batches.md).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Final, Protocol

from uproxy.dataplane.udp.packing import NAME_ROOM
from uproxy.net.segments import MOST_BYTES, MOST_SEGMENTS, SOL_UDP, UDP_SEGMENT
from uproxy.uring.abi import DATAGRAM_SEND_FLAGS, OP_SENDMSG, SQE, USER_DATA_BID_SHIFT
from uproxy.uring.buffers import address_of
from uproxy.uring.datagrams import BUFFER_SIZE, DatagramReceiver

SEVERAL: Final = 0x4000
"""Set beside the buffer id of a send of several datagrams: that of the first of them."""
BID: Final = SEVERAL - 1
"""A buffer id without marks."""

_SEVERAL: Final = SEVERAL << USER_DATA_BID_SHIFT
_MESSAGE: Final = struct.Struct("=7QQiiQ40s4Q")
"""struct msghdr; the control data of UDP_SEGMENT, and behind it room for an in6_pktinfo; and the
first two of MOST_SEGMENTS struct iovec."""
_CONTROL: Final = 56
_CMSG_LENGTH, _CMSG_SPACE = 18, 24
"""CMSG_LEN and CMSG_SPACE of the 16 bits of UDP_SEGMENT."""
_VECTORS: Final = 120
_SIZE: Final = _VECTORS + 16 * MOST_SEGMENTS
_LONG: Final = MOST_BYTES // MOST_SEGMENTS
"""Of longer datagrams, the bytes in one call are what limits how many join."""
_FD: Final = 0xFFFF_FFFF << 32
"""Where a descriptor is in the first word of an SQE."""
_COUNT_QUAD: Final = 3
"""Where the number of vectors is in a message, in units of 8 bytes."""
_LENGTH_QUAD: Final = 1
"""The same for the length of the datagram in a buffer (packing.py)."""


class Replying(Protocol):
    """What a message needs of a flow to reach its client."""

    name: int
    """Address of the struct sockaddr_in(6) of its client."""
    name_length: int
    control_length: int
    """Bytes of the control data in `memory`."""
    memory: bytearray
    """The struct sockaddr_in(6), with room for either, and the control data that names the local
    address which replies leave from. It stays where it is as long as the flow."""


class SegmentedSends:
    """A message for each buffer of the ring: several datagrams, of which the first is in that
    buffer, leave with it. The kernel reads it when the send is submitted, and until the buffer is
    given back after that, no other send can begin with the same buffer."""

    def __init__(self, datagrams: DatagramReceiver) -> None:
        ring, buffers, count = datagrams.ring, datagrams.buffers, datagrams.count
        self._queue_sqe = ring.queue_sqe
        self._sqes, self._words, self._mask = ring.sqes, ring.sqe_words, ring.sq_mask
        self._buffers, self._base, self._buffer_quads = buffers, buffers.base, buffers.quads
        # By mmap, as most of it is never used, and memory is not taken before it is.
        self._memory = mmap.mmap(-1, count * _SIZE)
        self._messages = address_of(self._memory)
        self._quads = memoryview(self._memory).cast("B").cast("Q")
        self._sizes = [0] * count
        """Of each message, how long its datagrams are. The last may be shorter."""
        self._rooms = [0] * count
        """How many bytes may still join; none behind a datagram that is shorter."""

    def join(
        self, number: int, begin: int, address: int, count: int, most: int, to: Replying | None
    ) -> int:
        """Let a datagram leave by a send that is queued. Returns how many have joined in it by
        then, and 0 if this one cannot.

        `number` is that of the send's SQE, which is not submitted yet, and `begin` is where in its
        buffer the first datagram is. `most` is how long segments may be. Without `to`, they are for
        the peer of a connected socket.
        """
        words, at = self._words, (number & self._mask) << 3
        user_data = words[at + 4]
        bid = user_data >> USER_DATA_BID_SHIFT & BID
        if user_data & _SEVERAL:
            return self._append(bid, address, count)
        size = self._buffer_quads[bid * (BUFFER_SIZE // 8) + _LENGTH_QUAD] & 0xFFFF_FFFF
        if not 0 < count <= size <= most:
            return 0
        room = MOST_BYTES if size > _LONG else size * MOST_SEGMENTS
        room -= size + count
        if room < 0:
            return 0
        self._sizes[bid] = size
        self._rooms[bid] = room if count == size else 0
        message = self._write(
            bid, to, 2, self._base + bid * BUFFER_SIZE + begin, size, address, count
        )
        SQE.pack_into(
            self._sqes, at << 3, words[at] & _FD | OP_SENDMSG, 0, message,
            1 | DATAGRAM_SEND_FLAGS, user_data | _SEVERAL, 0,
        )  # fmt: skip
        return 2

    def queue(
        self, fd: int, begin: int, count: int, size: int, user_data: int, to: Replying | None
    ) -> int:
        """Queue a send of what has come as one message: datagrams of `size` bytes, from `begin` on
        in the buffer that the user_data of the send names. Returns the number of the SQE."""
        bid = user_data >> USER_DATA_BID_SHIFT & BID
        self._sizes[bid] = size
        room = min(size * MOST_SEGMENTS, MOST_BYTES) - count
        self._rooms[bid] = 0 if count % size else max(0, room)
        first = self._base + bid * BUFFER_SIZE + begin
        message = self._write(bid, to, 1, first, count, 0, 0)
        return self._queue_sqe(
            OP_SENDMSG | fd << 32, 0, message, 1 | DATAGRAM_SEND_FLAGS, user_data | _SEVERAL
        )

    def datagrams(self, bid: int) -> Iterator[memoryview]:
        """The datagrams of a send that has several, in order."""
        size, at = self._sizes[bid], bid * _SIZE // 8
        for vector in range(self._quads[at + _COUNT_QUAD]):
            where = at + _VECTORS // 8 + 2 * vector
            buffer, begin = divmod(self._quads[where] - self._base, BUFFER_SIZE)
            end = begin + self._quads[where + 1]
            for first in range(begin, end, size):
                yield self._buffers.view(buffer, first, min(first + size, end))

    def _append(self, bid: int, address: int, count: int) -> int:
        size, room, quads, at = self._sizes[bid], self._rooms[bid], self._quads, bid * _SIZE // 8
        if not 0 < count <= size or count > room:
            return 0
        vectors = quads[at + _COUNT_QUAD]
        where = at + _VECTORS // 8 + 2 * vectors
        quads[where], quads[where + 1] = address, count
        quads[at + _COUNT_QUAD] = vectors + 1
        self._rooms[bid] = room - count if count == size else 0
        return vectors + 1

    def _write(
        self, bid: int, to: Replying | None, vectors: int, first: int, size: int,
        second: int, count: int,
    ) -> int:  # fmt: skip
        """Write a message with one vector or two. Returns its address."""
        name, name_length, others, control = 0, 0, b"", _CMSG_SPACE
        if to is not None:
            name, name_length = to.name, to.name_length
            if to.control_length:
                others = bytes(to.memory[NAME_ROOM:])
                control += to.control_length
        at = bid * _SIZE
        message = self._messages + at
        _MESSAGE.pack_into(
            self._memory, at,
            name, name_length, message + _VECTORS, vectors, message + _CONTROL, control, 0,
            _CMSG_LENGTH, SOL_UDP, UDP_SEGMENT, self._sizes[bid], others,
            first, size, second, count,
        )  # fmt: skip
        return message
