"""One direction of a flow that is relayed by io_uring: bytes that are received from one socket and
sent to the other.

A message that arrives is in a buffer of the ring already; the answer to its completion is a send
from that buffer, which leaves with those of all other flows. In the usual case that is all. What
needs more is left to epoll: then the mover detaches itself. Which states a direction has, and what
changes them, is in ring_mover.py.
"""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket
from typing import Final, Protocol

from uproxy.dataplane.tcp.half_closed import HalfCloseTimer
from uproxy.dataplane.tcp.mover import DetachedDirection, Owner
from uproxy.uring.abi import (
    CQE_BUFFER_SHIFT,
    CQE_F_BUFFER,
    CQE_F_MORE,
    CQE_RES,
    CQE_RES_ERROR,
    SEND_INCOMPLETE,
    USER_DATA_SEND,
    errno_of,
)
from uproxy.uring.ring import BUFFER_SIZE, Ring

BULK: Final = 4
"""Full buffers in a row after which a flow leaves the ring: 64 KiB. Measured with 8, and four full
reads of the successor before it splices: bodies of 10 MB take a quarter more CPU."""

_PASSING: Final = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
"""Why nothing could be received, though the socket is sound: ask again."""

_NOT_ENDED: Final = CQE_RES | CQE_F_BUFFER | CQE_F_MORE | SEND_INCOMPLETE
"""Some of this is set in all completions but the usual one for the end of a stream."""


class DetachingMover(Protocol):
    """The mover of a direction."""

    owner: Owner
    half_closed: HalfCloseTimer

    def detach(self) -> None:
        """Have the flow go on by epoll."""

    def finish_detaching(self) -> None:
        """One direction receives nothing any more. If both have stopped, tell the owner."""


class RingDirection:
    """Bytes that are received from `sock` and sent to the peer's socket."""

    __slots__ = ("_ending", "_full_buffers", "_full_buffers_end", "_last", "_mover", "_number",
                 "_ring", "_sender", "_to", "_user_data", "_usual", "_waiting", "armed",
                 "broken", "closed", "detaching", "eof", "fd", "held", "peer", "rejected",
                 "reported", "slow_path", "sock", "total", "turn")  # fmt: skip

    peer: RingDirection
    """The opposite direction; gone when closed, so that no reference cycle stays."""

    def __init__(
        self, ring: Ring, mover: DetachingMover, sock: Socket, target: int, poll_first: bool
    ) -> None:
        """It receives at once. `target`: descriptor of the peer's socket."""
        self.sock = sock
        self.fd = sock.fileno()
        self.total = 0
        """Bytes read."""
        self.reported = 0
        """Bytes that the counters of the port know about already."""
        self.held: bytes | bytearray = b""
        """While detaching: bytes read that the peer's socket has not taken."""
        self.eof = False
        """Whether the end of the stream was read and passed on."""
        self.slow_path = False
        """Whether anything but "send what comes" may have to be done. `_arrived` looks at no other
        state for each message."""
        self.broken = self.rejected = 0
        """The errno with which receiving, or sending to the peer's socket, has failed."""
        self.closed = self.detaching = False
        self.turn = ring.turn
        """Of the ring, when an operation of this direction was queued last."""
        self.armed = True
        """Whether the ring receives from the socket."""
        self._ring = ring
        self._mover = mover
        self._user_data = user_data = ring.add_callback(self._arrived)
        self._usual = CQE_F_MORE if ring.recv_limit_supported else CQE_F_BUFFER
        """Set in completions that bring bytes when all is as usual."""
        self._to, self._sender = target, user_data | USER_DATA_SEND
        """Descriptor and user_data of its sends."""
        self._last = self._number = 0
        """The completion whose bytes were sent last, and the number of that send."""
        self._waiting: list[int] | None = None
        """Completions whose bytes are not sent yet."""
        self._full_buffers = self._full_buffers_end = 0
        """Full buffers in a row, and how much of the stream ends with them."""
        self._ending = False
        """Whether the stream has ended, behind bytes that are not delivered yet."""
        ring.recv(self.fd, user_data, poll_first)

    def __repr__(self) -> str:
        return f"<RingDirection of {'nothing' if self.closed else repr(self._mover.owner)}>"

    @property
    def pending(self) -> int:
        """Bytes read and not yet delivered."""
        waiting = sum(each & CQE_RES for each in self._waiting) if self._waiting else 0
        return waiting + len(self.held)

    def unreported(self) -> int:
        """Bytes delivered since the last call. Those of a send that is not decided count only if
        its outcome will never be known. The operation of this turn need not be a send (`stop` has
        one, too), so the difference may be negative, and counters must not go back."""
        asked = self.turn == self._ring.turn and not self._mover.owner.ended
        undecided = self._last & CQE_RES if asked else 0
        delivered = max(self.total - self.pending - undecided, self.reported)
        count = delivered - self.reported
        self.reported = delivered
        return count

    def abort(self) -> None:
        """End the whole flow; called by the reactor after a failure."""
        if not self.closed:
            self._mover.owner.abort()

    def stop(self) -> None:
        """Receive no more, send nothing that is not queued already, and keep what comes."""
        self.detaching = self.slow_path = True
        for completion in self._waiting or ():
            self._keep(completion)
        self._waiting = None
        if self.armed:
            self.turn = self._ring.turn
            self._ring.cancel(self._user_data)

    def to_detached(self) -> DetachedDirection:
        """All that another mover has to know, once nothing is under way.

        An end of the stream that was not passed on yet is not mentioned: recv reports it again.
        """
        return DetachedDirection(
            total=self.total,
            reported=self.reported,
            undelivered=bytes(self.held),
            ended=self.eof,
            broken=self.broken,
            rejected=self.rejected,
            bulk=self._full_buffers >= BULK,
        )

    def close(self) -> None:
        """Let go of everything but the socket, which is the owner's."""
        if self.closed:
            return
        self.closed = True
        ring = self._ring
        ring.forget(self._user_data, None)
        if self._waiting:
            for completion in self._waiting:
                ring.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
            self._waiting = None
        if self.armed:
            ring.cancel(self._user_data)
            ring.submit()
        elif self.turn == ring.turn:
            # What is queued names our descriptors by number; a new socket may get the number as
            # soon as ours is closed.
            ring.submit()
        del self.peer, self._mover

    def half_closed_for_long(self) -> None:
        """Nothing is received any more from this end, so the ring would not notice its reset."""
        if not self.closed:
            self._mover.detach()

    def _arrived(self, completion: int) -> None:
        """Bytes have arrived, or none will any more. What is most frequent comes first."""
        ring = self._ring
        count = completion & CQE_RES
        if (
            0 < count < BUFFER_SIZE
            and completion & self._usual
            and not self.slow_path
            and self.turn != ring.turn
        ):
            self.turn = ring.turn
            self._last = completion
            self.total += count
            self._number = ring.send(self._to, self._sender, completion >> CQE_BUFFER_SHIFT, count)
            if self._usual == CQE_F_BUFFER:
                # What the send leaves is reported before what this receives: a send with
                # MSG_DONTWAIT completes while it is submitted, and POLL_FIRST has the receive wait.
                ring.recv(self.fd, self._user_data, True)
        elif completion & _NOT_ENDED or self.detaching:
            self._attend(completion)
        else:
            self.armed = False
            self._end()

    def _attend(self, completion: int) -> None:
        """All other completions."""
        ring, count = self._ring, completion & CQE_RES
        if not completion & (CQE_F_MORE | SEND_INCOMPLETE):
            self.armed = False
            if self.detaching:
                ring.call_after_turn(self._mover.finish_detaching)
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
        """Take bytes that cannot be sent at once, or that fill a buffer."""
        count = completion & CQE_RES
        self.total += count
        if self.detaching:
            self._keep(completion)
            return
        if count == BUFFER_SIZE:
            # What came the short way, without a look at this, shows in the total.
            follows = self._full_buffers_end == self.total - BUFFER_SIZE
            self._full_buffers = self._full_buffers + 1 if follows else 1
            self._full_buffers_end = self.total
        if not self._waiting and self.turn != self._ring.turn:
            self._send(completion)
        elif self._waiting:
            self._waiting.append(completion)
        else:
            self._waiting = [completion]
            self.slow_path = True
            self._ring.call_after_turn(self._send_next)
        if self._full_buffers >= BULK:
            self._mover.detach()
        elif not self.armed:
            self._ring.call_after_turn(self._rearm)

    def _send(self, completion: int) -> None:
        ring, count = self._ring, completion & CQE_RES
        self.turn = ring.turn
        self._last = completion
        self._number = ring.send(self._to, self._sender, completion >> CQE_BUFFER_SHIFT, count)

    def _send_next(self) -> None:
        """The last send is decided."""
        if self.closed or self.detaching:
            return
        if self.turn == self._ring.turn:
            self._ring.call_after_turn(self._send_next)
        elif self._waiting:
            self._send(self._waiting.pop(0))
            self.slow_path = bool(self._waiting)
            if self._waiting or self.broken or self._ending:
                self._ring.call_after_turn(self._send_next)
        elif self.broken:
            self._mover.owner.abort(self.sock, self.broken)
        elif self._ending:
            self._ending = False
            self._ended()

    def _end(self) -> None:
        """The end of the stream."""
        if self.detaching:
            return  # It is still there when epoll looks.
        if self._waiting:
            self._ending = True
        elif self.turn == self._ring.turn:
            # The FIN goes out with the last bytes, which MSG_MORE has wait for it: a packet less.
            self._ending = True
            self._ring.set_msg_more(self._number)
            self._ring.call_after_turn(self._send_next)
        elif self.peer.turn >= self._ring.turn - 1:
            # A send to this socket is not decided, or it was in this turn. Linux reports the error
            # of a socket once; when a send has got a reset, the stream looks as if it had ended
            # (tests/simulation/test_found.py). If so, the send's completion detaches the flow.
            self._ending = True
            self._ring.call_after_turn(self._send_next)
        else:
            self._ended()

    def _ended(self) -> None:
        """All of the stream was delivered."""
        if self.peer.eof:
            self._mover.owner.finish()
            return
        self.eof = self.slow_path = True
        try:
            self.peer.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._mover.owner.abort(self.peer.sock, error.errno)
            return
        self._mover.half_closed.add(self)

    def _failed(self, code: int) -> None:
        """The socket is broken, or what the ring did with it has been cancelled."""
        if code == errno.EINVAL and self._usual == CQE_F_MORE:
            self._ring.recv_limit_supported = False
            code = errno.EAGAIN
        if code in _PASSING:
            if not self.detaching:
                self._ring.call_after_turn(self._rearm)
        elif not self.detaching:
            self.broken = code
            self._ring.call_after_turn(self._send_next)
        elif code != errno.ECANCELED:
            self.broken = code

    def _rearm(self) -> None:
        """Receive more, once everything received so far is delivered."""
        if self.closed or self.detaching or self.armed:
            return
        if self._waiting or self.turn == self._ring.turn:
            # Nor before that is known: what is received at once would be reported earlier.
            self._ring.call_after_turn(self._rearm)
        else:
            self.armed = True
            self._usual = CQE_F_MORE if self._ring.recv_limit_supported else CQE_F_BUFFER
            self._last = 0  # It is decided by now, and `turn` will no longer say so.
            self.turn = self._ring.turn
            self._ring.recv(self.fd, self._user_data)

    def _unsent(self, completion: int) -> None:
        """The peer's socket did not take all of the last send: it is full or broken."""
        code = errno_of(completion)
        self.rejected = 0 if code == errno.EAGAIN else code
        sent = 0 if code else completion & CQE_RES
        rest = self._ring.buffers.view(self._last >> CQE_BUFFER_SHIFT, sent, self._last & CQE_RES)
        self.held = bytearray(rest) + self.held
        self._mover.detach()

    def _keep(self, completion: int) -> None:
        """Hold bytes, behind what is held already, in place of the ring."""
        buffer = completion >> CQE_BUFFER_SHIFT
        if not self.held:
            self.held = bytearray()
        self.held += self._ring.buffers.view(buffer, 0, completion & CQE_RES)
        self._ring.buffers.give_back(buffer)
