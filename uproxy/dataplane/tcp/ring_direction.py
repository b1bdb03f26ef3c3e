"""Moving bytes between the two sockets of a TCP flow by io_uring.

A message that arrives is in a buffer of the ring already; the answer to its completion is a send
from that buffer, which leaves with those of all other flows. In the usual case that is all.

What needs thought is left to `Side`: a flow whose receiver is slow, that carries bulk (which is
spliced) or that stays half-closed leaves the ring for epoll, and does not return.
"""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket
from typing import Final, Protocol

from uproxy.dataplane.tcp.half_closed import HalfClosed
from uproxy.dataplane.tcp.shared_buffers import Ends
from uproxy.uring.abi import (
    CQE_BUFFER_SHIFT,
    CQE_F_BUFFER,
    CQE_F_MORE,
    CQE_RES,
    CQE_RES_ERROR,
    SEND_INCOMPLETE,
    errno_of,
)
from uproxy.uring.ring import BUFFER_SIZE, Ring
from uproxy.uring.submission_queue import send_sqe

BULK: Final = 8
"""Full buffers in a row after which a flow leaves the ring: 128 KiB."""


_PASSING: Final = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
"""Why nothing could be received, though the socket is sound: ask again."""


class RingFlow(Ends, Protocol):
    """What a flow does for its sides."""

    ended: bool

    def leave_ring(self) -> None:
        """Nothing is on its way through the ring: go on by epoll."""


class RingSide:
    """One socket of a flow, and the direction of the bytes that are read from it, by a ring.

    Of each direction one send at most is undecided. What arrives meanwhile waits in `_waiting`, in
    the ring's buffers, a turn for each. As nothing is received until all before is delivered, no
    more than ring.RECV_LIMIT bytes are ever held.
    """

    __slots__ = ("_armed", "_ending", "_half_closed", "_last", "_leaving", "_number", "_ring",
                 "_sqe", "_streak", "_streak_end", "_turn", "_user_data", "_usual", "_waiting",
                 "broken", "closed", "eof", "fd", "flow", "held", "peer", "rejected", "reported",
                 "sock", "special", "total")  # fmt: skip

    peer: RingSide
    """The other socket; gone when closed, so that no reference cycle stays."""

    def __init__(
        self, ring: Ring, half_closed: HalfClosed, flow: RingFlow, sock: Socket, target: int
    ) -> None:
        """`target`: descriptor of the other socket."""
        self.flow = flow
        self.sock = sock
        self.fd = sock.fileno()
        self.total = 0
        """Bytes read."""
        self.reported = 0
        """Bytes that the counters of the port know about already."""
        self.held: bytes | bytearray = b""
        """Bytes read that the peer has not taken, for who goes on by epoll."""
        self.eof = False
        self.special = False
        """Whether anything but "send what comes" is to be done; the only state that is looked at
        for each message."""
        self.broken = False
        """Whether reading has failed."""
        self.rejected = False
        """Whether writing to the peer has failed."""
        self.closed = False
        self._ring = ring
        self._half_closed = half_closed
        self._user_data = ring.add_callback(self._arrived)
        self._usual = CQE_F_MORE
        """Set in completions that bring bytes when all is as usual."""
        self._sqe = send_sqe(target, self._user_data)
        self._turn = -1
        """Of the ring, when an operation of this side was queued last."""
        self._last = 0
        """The completion whose bytes were sent last."""
        self._number = 0
        """Of that send."""
        self._armed = False
        """Whether the ring receives from the socket."""
        self._waiting: list[int] | None = None
        """Completions whose bytes are not sent yet."""
        self._streak = self._streak_end = 0
        """Full buffers in a row, and how much of the stream ends with them."""
        self._ending = False
        """Whether the stream has ended, behind bytes that are not delivered yet."""
        self._leaving = False

    def __repr__(self) -> str:
        return f"<RingSide of {'nothing' if self.closed else repr(self.flow)}>"

    @property
    def pending(self) -> int:
        """Bytes read and not yet delivered."""
        waiting = sum(each & CQE_RES for each in self._waiting) if self._waiting else 0
        return waiting + len(self.held)

    def unreported(self) -> int:
        """Bytes delivered since the last call. Those of a send that is not decided are not, unless
        nobody will ever know; there may be none in this turn, but counters must not go back."""
        asked = self._turn == self._ring.turn and not self.flow.ended
        undecided = self._last & CQE_RES if asked else 0
        delivered = max(self.total - self.pending - undecided, self.reported)
        count = delivered - self.reported
        self.reported = delivered
        return count

    def abort(self) -> None:
        """End the whole flow; called by the reactor after a failure."""
        if not self.closed:
            self.flow.abort()

    def arm(self, *, poll_first: bool = False) -> None:
        """Receive."""
        self._armed = True
        self._usual = CQE_F_MORE if self._ring.recv_limit_supported else CQE_F_BUFFER
        self._last = 0  # It is decided by now, and `_turn` will no longer say so.
        self._turn = self._ring.turn
        self._ring.recv(self.fd, self._user_data, poll_first=poll_first)

    def close(self) -> None:
        """Let go of everything but the socket, which is the flow's."""
        if self.closed:
            return
        self.closed = True
        ring = self._ring
        ring.remove_callback(self._user_data)
        if self._waiting:
            for completion in self._waiting:
                ring.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
            self._waiting = None
        if self._armed:
            ring.cancel(self._user_data)
            ring.submit()
        elif self._turn == ring.turn:
            ring.submit()  # While the numbers of our descriptors are ours.
        del self.peer, self.flow

    def tired(self) -> None:
        """Half-closed for long: the ring would not notice a reset by the end that has closed."""
        if not self.closed:
            self._leave()

    def _arrived(self, completion: int) -> None:
        """Bytes have arrived, or none will any more. What is most frequent comes first."""
        ring = self._ring
        count = completion & CQE_RES
        if (
            0 < count < BUFFER_SIZE
            and completion & self._usual
            and not self.special
            and self._turn != ring.turn
        ):
            self._turn = ring.turn
            self._last = completion
            self.total += count
            self._number = ring.send(self._sqe, completion >> CQE_BUFFER_SHIFT, count)
            if not completion & CQE_F_MORE:
                # What the send leaves is told before that: it is in the completions of this batch.
                ring.recv(self.fd, self._user_data, poll_first=True)
            return
        if not completion & (CQE_F_MORE | SEND_INCOMPLETE):
            self._armed = False
            if self._leaving:
                ring.call_after_turn(self._leave_when_quiet)
        if completion & SEND_INCOMPLETE:
            self._unsent(completion)
        elif 0 < count < CQE_RES_ERROR:
            self._take(completion)
        else:
            if completion & CQE_F_BUFFER:
                ring.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
            if count:
                self._failed(errno_of(completion))
            else:
                self._end()

    def _take(self, completion: int) -> None:
        """Bytes that cannot be sent at once, or are many."""
        count = completion & CQE_RES
        self.total += count
        if self._leaving:
            self._keep(completion)
            return
        if count == BUFFER_SIZE:
            # What came the short way, without a look at this, shows in the total.
            follows = self._streak_end == self.total - BUFFER_SIZE
            self._streak = self._streak + 1 if follows else 1
            self._streak_end = self.total
        if not self._waiting and self._turn != self._ring.turn:
            self._send(completion)
        elif self._waiting:
            self._waiting.append(completion)
        else:
            self._waiting = [completion]
            self.special = True
            self._ring.call_after_turn(self._go_on)
        if self._streak >= BULK:
            self._leave()
        elif not self._armed:
            self._ring.call_after_turn(self._rearm)

    def _send(self, completion: int) -> None:
        ring = self._ring
        self._turn = ring.turn
        self._last = completion
        self._number = ring.send(self._sqe, completion >> CQE_BUFFER_SHIFT, completion & CQE_RES)

    def _go_on(self) -> None:
        """The last send is decided."""
        if self.closed or self._leaving:
            return
        if self._turn == self._ring.turn:
            self._ring.call_after_turn(self._go_on)
        elif self._waiting:
            self._send(self._waiting.pop(0))
            self.special = bool(self._waiting)
            if self._waiting or self.broken or self._ending:
                self._ring.call_after_turn(self._go_on)
        elif self.broken:
            self.flow.abort()
        elif self._ending:
            self._ending = False
            self._ended()

    def _end(self) -> None:
        """The end of the stream."""
        if self._leaving:
            return  # It is still there when epoll looks.
        if self._waiting:
            self._ending = True
        elif self._turn == self._ring.turn:
            # The FIN goes out with the last bytes: a packet less.
            self._ending = True
            self._ring.set_msg_more(self._number)
            self._ring.call_after_turn(self._go_on)
        elif self.peer._turn >= self._ring.turn - 1:
            # A send to this socket is not decided, or it was in this turn. Linux tells of a reset
            # once; when it has told a send, the stream looks as if it had ended.
            self._ending = True
            self._ring.call_after_turn(self._go_on)
        else:
            self._ended()

    def _ended(self) -> None:
        """All of the stream was delivered."""
        if self.peer.eof:
            self.flow.finish()
            return
        self.eof = self.special = True
        try:
            self.peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.flow.abort()
            return
        self._half_closed.add(self)

    def _failed(self, code: int) -> None:
        """The socket is broken, or what the ring did with it has been cancelled."""
        if code == errno.EINVAL and self._usual == CQE_F_MORE:
            self._ring.recv_limit_supported = False
            code = errno.EAGAIN
        if code in _PASSING:
            if not self._leaving:
                self._ring.call_after_turn(self._rearm)
        elif not self._leaving:
            self.broken = True
            self._ring.call_after_turn(self._go_on)
        elif code != errno.ECANCELED:
            self.broken = True

    def _rearm(self) -> None:
        """Receive more, once all that was is delivered."""
        if self.closed or self._leaving or self._armed:
            return
        if self._waiting or self._turn == self._ring.turn:
            # Nor before that is known: what is received at once would be reported earlier.
            self._ring.call_after_turn(self._rearm)
        else:
            self.arm()

    def _unsent(self, completion: int) -> None:
        """The peer's socket did not take all of the last send: it is full or broken."""
        code = errno_of(completion)
        self.rejected = code not in (0, errno.EAGAIN)
        sent = 0 if code else completion & CQE_RES
        rest = self._ring.buffers.view(self._last >> CQE_BUFFER_SHIFT, sent, self._last & CQE_RES)
        self.held = bytearray(rest) + self.held
        self._leave()

    def _keep(self, completion: int) -> None:
        """Hold bytes, behind what is held already, in place of the ring."""
        buffer = completion >> CQE_BUFFER_SHIFT
        if not self.held:
            self.held = bytearray()
        self.held += self._ring.buffers.view(buffer, 0, completion & CQE_RES)
        self._ring.buffers.give_back(buffer)

    def _leave(self) -> None:
        """Have the flow served by epoll from now on."""
        if self._leaving:
            return
        for side in (self, self.peer):
            side._leaving = side.special = True
            for completion in side._waiting or ():
                side._keep(completion)
            side._waiting = None
            if side._armed:
                side._turn = side._ring.turn
                side._ring.cancel(side._user_data)
        self._ring.call_after_turn(self._leave_when_quiet)

    def _leave_when_quiet(self) -> None:
        """Once nothing is on its way through the ring, in both directions. Only when a turn is
        over: what is left of a send of the other one may be told later in the same turn."""
        if self.closed or self._armed or self.peer._armed:
            return
        if self._ring.turn in (self._turn, self.peer._turn):
            self._ring.call_after_turn(self._leave_when_quiet)
        else:
            self.flow.leave_ring()


def ring_sides(
    ring: Ring, half_closed: HalfClosed, flow: RingFlow, client_sock: Socket, backend_sock: Socket
) -> tuple[RingSide, RingSide]:
    """Relay between two sockets: client and backend."""
    client = RingSide(ring, half_closed, flow, client_sock, backend_sock.fileno())
    backend = RingSide(ring, half_closed, flow, backend_sock, client.fd)
    client.peer = backend
    backend.peer = client
    client.arm()
    backend.arm(poll_first=True)
    return client, backend
