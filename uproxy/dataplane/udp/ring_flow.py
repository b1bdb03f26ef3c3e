"""A UDP flow whose datagrams are moved by io_uring: they leave from the ring's buffers in which
they have arrived, together with the datagrams of all other flows.

What happens when a backend refuses is the same as for any flow (flow.py), except that the kernel
tells of it later. A send is queued, and counted at once; only a send that fails completes
(IOSQE_CQE_SKIP_SUCCESS). So a datagram that was counted, and then refused, is taken from the
counters again, and its bytes are found in the buffer, which is not reused until all sends of the
turn are decided (uring/ring.py).
"""

from __future__ import annotations

import errno
import os
from _socket import socket as Socket
from functools import partial

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.udp.flow import Listening, UdpFlow
from uproxy.dataplane.udp.keys import Address, Key
from uproxy.dataplane.udp.packing import NAME_ROOM, NAME_V4, NAME_V6, packed_control
from uproxy.dataplane.udp.ring_socket import RingSocket
from uproxy.net import pktinfo
from uproxy.uring.abi import (
    BUFFER_IN_KEY,
    BUFFER_SHIFT,
    DATAGRAM_FLAGS,
    HAS_BUFFER,
    MORE,
    RESULT,
    SEND,
    SEND_FAILED,
    UNSENT,
    errno_of,
)
from uproxy.uring.buffers import address_of
from uproxy.uring.datagrams import REPLY, SIZE


class RingUdpFlow(UdpFlow):
    """A flow of a listener with a RingIntake, which calls `forward` for what the client sends."""

    __slots__ = ("_fd", "_memory", "_ring", "_ring_key", "_round", "_shared", "_tag",
                 "_to_backend", "control", "control_length", "name",
                 "name_length")  # fmt: skip

    def __init__(
        self,
        listener: Listening,
        shared: RingSocket,
        key: Key,
        name: bytes,
        client: Address,
        control: pktinfo.Control,
    ) -> None:
        """`shared` is the listener's socket, and `name` the client's struct sockaddr_in(6)."""
        super().__init__(listener, key, client, control)
        self._shared = shared
        self._ring = shared.ring
        self._ring_key = self._tag = 0
        """The key of this flow's operations, and the same with the mark of a send. Both change
        with the backend, so that what completes late is known to concern the previous socket."""
        self._to_backend = 0
        """How an SQE that sends on our socket begins."""
        self._round = -1
        """The round of the ring in which an operation was last queued that names our socket or
        memory. The kernel looks both up when it is submitted."""
        self.name_length = NAME_V6 if len(client) == 4 else NAME_V4
        ancillary = packed_control(control)
        self.control_length = len(ancillary)
        self._memory = bytearray(name.ljust(NAME_ROOM, b"\0") + ancillary)
        self.name = address_of(self._memory)
        self.control = self.name + NAME_ROOM

    def forward(self, buffer: int, begin: int, count: int) -> None:
        """Send a datagram of the client from a buffer of the ring."""
        shared = self._shared
        self.last = shared.now
        shared.queue(
            self._to_backend, 0, shared.base + buffer * SIZE + begin, count | DATAGRAM_FLAGS,
            self._tag | buffer << BUFFER_IN_KEY,
        )  # fmt: skip
        shared.use(buffer)
        self._round = shared.round
        counters = self.counters
        counters.client_bytes += count
        counters.client_datagrams += 1
        if self._young:
            self._look_at(shared.buffers.view(buffer, begin, begin + count))

    def _start_receiving(self, sock: Socket) -> None:
        self._fd = sock.fileno()
        self._ring_key = self._shared.datagrams.add(self._arrived)
        self._tag = self._ring_key | SEND_FAILED
        self._to_backend = SEND | self._fd << 32
        self._arm()

    def _stop_receiving(self, sock: Socket) -> None:
        ring, key = self._ring, self._ring_key
        # What was queued in the previous round is among the completions that are being looked at
        # now, so its sends may still turn out to have failed.
        if self._round < ring.round - 1:
            ring.remove(key)
        else:
            ring.bequeath(key, partial(self._too_late, tuple(self._kept)))
        # Ends the receive, which would otherwise keep the socket open in the kernel.
        ring.cancel(key)
        # The kernel looks up descriptors when it takes an operation. The socket is closed next, and
        # what is still queued would reach the next socket that gets its number.
        if self._round == ring.round:
            ring.flush()

    def _arm(self) -> None:
        self._round = self._ring.round
        self._shared.datagrams.receive(self._fd, self._ring_key)

    def _arrived(self, completion: int) -> None:
        """A reply has come, or something else has happened to an operation of this flow."""
        if not completion & MORE:
            self._unusual(completion)
            return
        shared = self._shared
        round_ = self._round = self._ring.round
        self.last = shared.now if shared.round == round_ else shared.tick()
        if not self._replied:
            self._first_reply(self.last)
        buffer, count = completion >> BUFFER_SHIFT, completion & RESULT
        shared.counts[buffer] = count
        tag = self._tag | (buffer | REPLY) << BUFFER_IN_KEY
        if self.control_length:
            shared.queue(
                shared.reply_message, 0, shared.message(buffer, count, self),
                1 | DATAGRAM_FLAGS, tag,
            )  # fmt: skip
        else:
            shared.queue(
                shared.reply, self.name, shared.base + buffer * SIZE, count | DATAGRAM_FLAGS, tag,
                self.name_length << 32,
            )  # fmt: skip
        shared.use(buffer)
        counters = self.counters
        counters.backend_bytes += count
        counters.backend_datagrams += 1

    def _unusual(self, completion: int) -> None:
        """A send has failed, or the receive has ended: with a reply, an error, or for want of a
        buffer."""
        if completion & UNSENT:
            self._unsent(completion)
            return
        code, key = errno_of(completion), self._ring_key
        if completion & HAS_BUFFER and completion & RESULT:
            # A multishot receive ends with a reply where completions have no room in their queue.
            self._arrived(completion | MORE)
        elif completion & HAS_BUFFER:
            self._shared.buffers.free(completion >> BUFFER_SHIFT)
        if not completion & RESULT:
            # An empty datagram. The kernel takes it for the end of a stream, and stops receiving.
            self._to_client(memoryview(b""))
        elif code and code != errno.ENOBUFS:
            self._recover(OSError(code, os.strerror(code)), None)
        # Not at once: buffers are free again only when the sends of this turn are decided.
        self._ring.again(lambda: self._arm_again(key))

    def _arm_again(self, key: int) -> None:
        # A flow that has moved meanwhile is armed already, with another key. Two receives with one
        # key would be one too many: cancelling the key ends one of them, and the other keeps the
        # socket open (it was found so; decision 0011).
        if self._sock is not None and self._ring_key == key:
            self._arm()

    def _unsent(self, completion: int) -> None:
        """The kernel has not taken a datagram."""
        data, code = self._uncounted(completion), errno_of(completion)
        if data is None:
            return
        if code == errno.EAGAIN:
            self.counters.drop(DropReason.BUFFER_FULL)
            return
        # What was kept is sent again when the flow moves, and must not be sent twice. After
        # EMSGSIZE the flow does not move, and the datagram itself is tried again.
        kept = code != errno.EMSGSIZE and bytes(data) in self._kept
        if self._recover(OSError(code, os.strerror(code)), None if kept else data):
            self._count(data)

    def _too_late(self, kept: tuple[bytes, ...], completion: int) -> None:
        """A completion for a socket that the flow has left. `kept` is what the flow had kept when
        it left, and has sent to its next backend.

        Many datagrams may be refused in one turn, and the first of them has moved the flow.
        """
        if not completion & UNSENT:
            if completion & HAS_BUFFER:
                self._shared.buffers.free(completion >> BUFFER_SHIFT)
            return
        data, code = self._uncounted(completion), errno_of(completion)
        if data is None:
            return
        if code == errno.EAGAIN or code in RESOURCE_ERRORS:
            self.counters.drop(DropReason.BUFFER_FULL)
        elif self._sock is None:
            self.counters.drop(DropReason.SEND_FAILED)
        elif bytes(data) in kept:
            self._count(data)
        else:
            self.to_backend(data)

    def _uncounted(self, completion: int) -> memoryview | None:
        """Take a datagram that was not sent from the counters. Returns it if it is the client's;
        a reply is lost, since the client's socket has no other way to it."""
        number, code, counters = completion >> BUFFER_SHIFT, errno_of(completion), self.counters
        if number & REPLY:
            counters.backend_datagrams -= 1
            counters.backend_bytes -= self._shared.counts[number & ~REPLY]
            full = code in RESOURCE_ERRORS or code == errno.EAGAIN
            counters.drop(DropReason.BUFFER_FULL if full else DropReason.SEND_FAILED)
            return None
        data = self._shared.payload(number)
        counters.client_bytes -= len(data)
        counters.client_datagrams -= 1
        return data

    def _count(self, data: memoryview) -> None:
        self.counters.client_bytes += len(data)
        self.counters.client_datagrams += 1
