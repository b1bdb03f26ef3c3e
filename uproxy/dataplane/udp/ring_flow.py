"""A UDP flow whose datagrams are moved by io_uring: they leave from the ring's buffers in which
they arrived, together with the datagrams of all other flows.

What happens when a backend refuses is the same as for any flow (flow.py), except that the kernel
reports it later. A send is queued, and counted at once; only a send that fails completes
(IOSQE_CQE_SKIP_SUCCESS). So a datagram that was counted, and then refused, is taken from the
counters again, and its bytes are found in the buffer, which is not reused until all sends of the
turn are decided (uring/ring.py).
"""

from __future__ import annotations

import errno
import os
from _socket import socket as Socket
from functools import partial
from typing import Final

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.backend_counts import BackendTally
from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.udp.flow import Listening, UdpFlow
from uproxy.dataplane.udp.keys import Address, Key
from uproxy.dataplane.udp.packing import NAME_ROOM, NAME_V4, NAME_V6, packed_control
from uproxy.dataplane.udp.ring_socket import RingSocket
from uproxy.net import pktinfo
from uproxy.uring.abi import (
    CQE_BUFFER_SHIFT,
    CQE_F_BUFFER,
    CQE_F_MORE,
    CQE_RES,
    DATAGRAM_SEND_FLAGS,
    OP_SEND,
    SEND_INCOMPLETE,
    USER_DATA_BID_SHIFT,
    USER_DATA_SEND,
    errno_of,
)
from uproxy.uring.buffers import address_of
from uproxy.uring.datagrams import BUFFER_SIZE

_REPLY: Final = 0x8000
"""Set beside the buffer id of a send that is a reply, for when it fails."""


class RingUdpFlow(UdpFlow):
    """A flow of a listener with a RingIntake, which calls `forward` for what the client sends."""

    __slots__ = ("_fd", "_memory", "_ring", "_shared", "_tag", "_to_backend", "_turn", "_user_data",
                 "control", "control_length", "name", "name_length")  # fmt: skip

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
        self._user_data = self._tag = 0
        """The user_data of this flow's operations, and the same with the mark of a send. Both
        change with the backend, so that what completes late is known to concern the previous
        socket."""
        self._to_backend = 0
        """How an SQE that sends on our socket begins."""
        self._turn = -1
        """The turn of the ring in which an operation was last queued that names our socket or
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
            self._to_backend, 0, shared.base + buffer * BUFFER_SIZE + begin,
            count | DATAGRAM_SEND_FLAGS, self._tag | buffer << USER_DATA_BID_SHIFT,
        )  # fmt: skip
        shared.use(buffer)
        self._turn = shared.turn
        self.client_bytes += count
        self.client_datagrams += 1
        if self._inspecting:
            self._inspect(shared.buffers.view(buffer, begin, begin + count))

    def _start_receiving(self, sock: Socket) -> None:
        self._fd = sock.fileno()
        self._user_data = self._shared.datagrams.add_callback(self._arrived)
        self._tag = self._user_data | USER_DATA_SEND
        self._to_backend = OP_SEND | self._fd << 32
        self._arm()

    def _stop_receiving(self, sock: Socket) -> None:
        ring, user_data = self._ring, self._user_data
        # What was queued in the previous turn is among the completions that are being looked at
        # now, so its sends may still turn out to have failed (refused-after-the-move).
        if self._turn < ring.turn - 1:
            ring.remove_callback(user_data)
        else:
            ring.redirect(user_data, partial(self._too_late, tuple(self._kept), self._tally))
        # Ends the receive, which would otherwise keep the socket open in the kernel.
        ring.cancel(user_data)
        # The kernel looks up descriptors when it takes an operation. The socket is closed next, and
        # what is still queued would reach the next socket that gets its number.
        if self._turn == ring.turn:
            ring.submit()

    def _arm(self) -> None:
        self._turn = self._ring.turn
        self._shared.datagrams.recv(self._fd, self._user_data)

    def _arrived(self, completion: int) -> None:
        """A reply has come, or something else has happened to an operation of this flow."""
        if not completion & CQE_F_MORE:
            self._unusual(completion)
            return
        shared = self._shared
        turn = self._turn = self._ring.turn
        self.last = shared.now if shared.turn == turn else shared.tick()
        if not self._confirmed:
            self._first_reply(self.last)
        buffer, count = completion >> CQE_BUFFER_SHIFT, completion & CQE_RES
        shared.counts[buffer] = count
        tag = self._tag | (buffer | _REPLY) << USER_DATA_BID_SHIFT
        if self.control_length:
            shared.queue(
                shared.reply_message, 0, shared.message(buffer, count, self),
                1 | DATAGRAM_SEND_FLAGS, tag,
            )  # fmt: skip
        else:
            shared.queue(
                shared.reply, self.name, shared.base + buffer * BUFFER_SIZE,
                count | DATAGRAM_SEND_FLAGS, tag, self.name_length << 32,
            )  # fmt: skip
        shared.use(buffer)
        self.backend_bytes += count
        self.backend_datagrams += 1

    def _unusual(self, completion: int) -> None:
        """A send has failed, or the receive has ended: with a reply, an error, or for lack of a
        buffer."""
        if completion & SEND_INCOMPLETE:
            self._unsent(completion)
            return
        code, user_data = errno_of(completion), self._user_data
        if completion & CQE_F_BUFFER and completion & CQE_RES:
            # A multishot receive ends with a reply where completions have no room in their queue.
            self._arrived(completion | CQE_F_MORE)
        elif completion & CQE_F_BUFFER:
            self._shared.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
        if not completion & CQE_RES:
            # An empty datagram. The kernel takes it for the end of a stream, and stops receiving.
            self._to_client(memoryview(b""))
        elif code and code != errno.ENOBUFS:
            self._recover(OSError(code, os.strerror(code)), None)
        # Not at once: buffers are free again only when the sends of this turn are decided.
        self._ring.call_after_turn(lambda: self._arm_again(user_data))

    def _arm_again(self, user_data: int) -> None:
        # A flow that has moved meanwhile is armed already, with another user_data. Two receives
        # with one would be one too many: cancelling it ends one of them, and the other keeps the
        # socket open (docs/decisions/0011-simulated-kernel.md).
        if self._sock is not None and self._user_data == user_data:
            self._arm()

    def _unsent(self, completion: int) -> None:
        """The kernel has not sent a datagram, of the client or of the backend."""
        data, code = self._uncounted(completion), errno_of(completion)
        if data is None:
            return
        if code == errno.EAGAIN:
            self.counters.drop(DropReason.BUFFER_FULL)
            return
        # What was kept is sent again when the flow moves, and must not be sent twice. After
        # EMSGSIZE the flow does not move, and the datagram itself is tried again.
        kept, tally = code != errno.EMSGSIZE and bytes(data) in self._kept, self._tally
        if self._recover(OSError(code, os.strerror(code)), None if kept else data):
            self.account()
            self._count(data)
            self._account_for(tally if kept else self._tally)  # As in `_too_late`.

    def _too_late(self, kept: tuple[bytes, ...], tally: BackendTally, completion: int) -> None:
        """A completion for a socket that the flow has left. `kept` is what the flow had kept when
        it left, and has sent to its next backend; `tally` is that of the backend that it has left.

        Many datagrams may be refused in one turn, and the first of them has moved the flow.
        """
        if not completion & SEND_INCOMPLETE:
            if completion & CQE_F_BUFFER:
                self._shared.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
            return
        self.account()
        data, code = self._uncounted(completion), errno_of(completion)
        self._account_for(tally)
        if data is None:
            return
        if code == errno.EAGAIN or code in RESOURCE_ERRORS:
            self.counters.drop(DropReason.BUFFER_FULL)
        elif self._sock is None:
            self.counters.drop(DropReason.SEND_FAILED)
        elif bytes(data) in kept:
            self._count(data)
            self._account_for(tally)  # `_recover` has moved it from there to the next backend.
        else:
            self.to_backend(data)

    def _uncounted(self, completion: int) -> memoryview | None:
        """Take a datagram that was not sent from the counters again. Returns the client's datagram;
        None for a reply, which is lost."""
        number, code = completion >> CQE_BUFFER_SHIFT, errno_of(completion)
        if number & _REPLY:
            self.backend_datagrams -= 1
            self.backend_bytes -= self._shared.counts[number & ~_REPLY]
            full = code in RESOURCE_ERRORS or code == errno.EAGAIN
            self.counters.drop(DropReason.BUFFER_FULL if full else DropReason.SEND_FAILED)
            return None
        data = self._shared.payload(number)
        self.client_bytes -= len(data)
        self.client_datagrams -= 1
        return data

    def _account_for(self, tally: BackendTally) -> None:
        """Like `account`, for a backend that the flow has left, or when the flow is over."""
        present, self._tally = self._tally, tally
        self.account()
        self._tally = present

    def _count(self, data: memoryview) -> None:
        self.client_bytes += len(data)
        self.client_datagrams += 1
