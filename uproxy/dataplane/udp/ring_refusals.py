"""What becomes of datagrams that the ring could not send, and of those that have to leave one at a
time because their path takes no segments.

What happens when a backend refuses is the same as for any flow (flow.py), except that the kernel
reports it later. A send is queued, and counted at once; only a send that fails completes
(IOSQE_CQE_SKIP_SUCCESS). So what was counted, and then refused, is taken from the counters again,
and its bytes are found in the buffers, which are not reused until all sends of the turn are decided
(uring/ring.py).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Final

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.backend_counts import BackendTally
from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.udp.flow import Listening, UdpFlow
from uproxy.dataplane.udp.keys import Address, Key
from uproxy.dataplane.udp.packing import REPLY_BEGIN
from uproxy.dataplane.udp.ring_socket import RingSocket
from uproxy.dataplane.udp.segments import SEVERAL
from uproxy.net import pktinfo
from uproxy.net.segments import REFUSALS, segments_of
from uproxy.uring.abi import CQE_BUFFER_SHIFT, CQE_F_BUFFER, SEND_INCOMPLETE, errno_of

REPLY: Final = 0x8000
"""Set beside the buffer id of a send that is a reply, for when it fails."""


class RingRefusals(UdpFlow):
    """The part of a flow of the ring that is rarely needed."""

    __slots__ = ("_most_back", "_most_forth", "_ring", "_shared", "_tag", "_turn", "_user_data")

    def __init__(
        self,
        listener: Listening,
        shared: RingSocket,
        key: Key,
        client: Address,
        control: pktinfo.Control,
    ) -> None:
        super().__init__(listener, key, client, control)
        self._shared = shared
        self._ring = shared.ring
        self._user_data = self._tag = 0
        """The user_data of this flow's operations, and the same with the mark of a send. Both
        change with the backend, so that what completes late is known to concern the previous
        socket."""
        self._turn = -1
        """The turn of the ring in which an operation was last queued that names our socket or
        memory. The kernel looks both up when it is submitted."""
        self._most_forth = self._most_back = 0
        """How long segments may be towards the backend and towards the client; -1: the path has
        refused segments. A single datagram shows it, which is sent as a segment by a system call.
        If the ring sent it, a failure would be known only when later datagrams are on their way,
        and these would overtake it."""

    def _prove_segments(self, datagrams: Sequence[memoryview]) -> None:
        """Send datagrams of the client one at a time, behind what is queued, and find out by the
        first whether the path takes segments of that size."""
        self._ring.submit()
        if self._most_forth >= 0 and self._sock is not None:
            self._send = self._send_segment
        for data in datagrams:
            if self._sock is None:
                self.counters.drop(DropReason.SEND_FAILED)
            else:
                self.to_backend(data)

    def _send_segment(self, data: bytes | memoryview) -> int:
        """Send a datagram as a segment. Raises OSError."""
        assert self._sock is not None
        self._send = self._sock.send
        try:
            sent = self._sock.sendmsg([data], [segments_of(len(data))])
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            self._most_forth = -1
            return self._send(data)
        self._most_forth = len(data)
        return sent

    def _prove_reply_segments(self, datagrams: Iterable[memoryview]) -> None:
        """The same for replies."""
        self._ring.submit()
        for data in datagrams:
            if not 0 <= self._most_back < len(data):
                self._to_client(data)
                continue
            control = [*self._control, segments_of(len(data))]
            try:
                self._listener.sock.sendmsg([data], control, 0, self._client)
            except OSError as error:
                if error.errno in REFUSALS:
                    self._most_back = -1
                self._to_client(data)
            else:
                self._most_back = len(data)
                self.backend_bytes += len(data)
                self.backend_datagrams += 1

    def _unsent(self, completion: int) -> None:
        """The kernel has not sent one datagram or several, of the client or of the backend."""
        number, code, user_data = (
            completion >> CQE_BUFFER_SHIFT,
            errno_of(completion),
            self._user_data,
        )
        if number & REPLY:
            self._reply_unsent(number, code)
            return
        kept, tally = tuple(self._kept), self._tally
        if number & SEVERAL and code in REFUSALS:
            self._most_forth, code = -1, errno.EMSGSIZE
        for data in self._shared.datagrams_in(number, self._shared.begin):
            # The first of several may move the flow, and the others are late then.
            if self._sock is not None and self._user_data == user_data:
                self._refused(data, code)
            else:
                self._refused_late(kept, tally, data, code)

    def _refused(self, data: memoryview, code: int) -> None:
        self._uncount(data)
        if code == errno.EAGAIN:
            self.counters.drop(DropReason.BUFFER_FULL)
            return
        # What was kept is sent again when the flow moves, and must not be sent twice. After
        # EMSGSIZE the flow does not move, and the datagram itself is tried again.
        kept, tally = code != errno.EMSGSIZE and bytes(data) in self._kept, self._tally
        if self._recover(OSError(code, os.strerror(code)), None if kept else data):
            self.account()
            self._count(data)
            self._account_for(tally if kept else self._tally)  # As in `_refused_late`.

    def _too_late(self, kept: tuple[bytes, ...], tally: BackendTally, completion: int) -> None:
        """A completion for a socket that the flow has left. `kept` is what the flow had kept when
        it left, and has sent to its next backend; `tally` is that of the backend that it has left.

        Many datagrams may be refused in one turn, and the first of them has moved the flow.
        """
        if not completion & SEND_INCOMPLETE:
            if completion & CQE_F_BUFFER:
                self._shared.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
            return
        number, code = completion >> CQE_BUFFER_SHIFT, errno_of(completion)
        self.account()
        if number & REPLY:
            self._reply_unsent(number, code)
            self._account_for(tally)
            return
        for data in self._shared.datagrams_in(number, self._shared.begin):
            self._refused_late(kept, tally, data, code)

    def _refused_late(
        self, kept: tuple[bytes, ...], tally: BackendTally, data: memoryview, code: int
    ) -> None:
        self.account()
        self._uncount(data)
        self._account_for(tally)
        if code == errno.EAGAIN or code in RESOURCE_ERRORS:
            self.counters.drop(DropReason.BUFFER_FULL)
        elif self._sock is None:
            self.counters.drop(DropReason.SEND_FAILED)
        elif bytes(data) in kept:
            self._count(data)
            self._account_for(tally)  # `_recover` has moved it from there to the next backend.
        else:
            self.to_backend(data)

    def _reply_unsent(self, number: int, code: int) -> None:
        """Replies were not sent. Where it was only that they cannot be sent as segments, they are
        sent one at a time."""
        replies = self._shared.datagrams_in(number, REPLY_BEGIN)
        self.backend_datagrams -= len(replies)
        self.backend_bytes -= sum(map(len, replies))
        if number & SEVERAL and code in REFUSALS and self._sock is not None and self._confirmed:
            self._most_back = -1
            for data in replies:
                self._to_client(data)
            return
        full = code in RESOURCE_ERRORS or code == errno.EAGAIN
        for _ in replies:
            self.counters.drop(DropReason.BUFFER_FULL if full else DropReason.SEND_FAILED)

    def _account_for(self, tally: BackendTally) -> None:
        """Like `account`, for a backend that the flow has left, or when the flow is over."""
        present, self._tally = self._tally, tally
        self.account()
        self._tally = present

    def _count(self, data: memoryview) -> None:
        self.client_bytes += len(data)
        self.client_datagrams += 1

    def _uncount(self, data: memoryview) -> None:
        self.client_bytes -= len(data)
        self.client_datagrams -= 1
