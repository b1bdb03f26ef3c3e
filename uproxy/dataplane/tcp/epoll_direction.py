"""One direction of a flow that is relayed by epoll: what is read from one socket and given to the
other.

Sockets are edge-triggered and registered once for their whole life, so in the usual case a request
costs one recv and one send, and a reply another two. What a socket does not take stays with the
direction, which reads no more until it is gone: back-pressure of one direction never touches the
other. Directions in which much is moved change to splice(2), which takes a third to a half of the
CPU per byte, but more per request.

Which states a direction has, and what changes them, is in epoll_mover.py.
"""

from __future__ import annotations

import socket
from _socket import socket as Socket
from typing import Final

from uproxy.dataplane.tcp.epoll_events import (
    BROKEN,
    IN,
    LAST,
    NOT_LAST,
    OUT,
    READ,
    RECV_FLAGS,
    SEND_FLAGS,
    SEND_LAST_FLAGS,
    SHUT,
    URGENT,
)
from uproxy.dataplane.tcp.last_reply import pass_on_last_reply
from uproxy.dataplane.tcp.mover import DetachedDirection, Owner
from uproxy.dataplane.tcp.shared_buffers import BUFFER, SPLICE_AFTER, SharedBuffers
from uproxy.dataplane.tcp.splice import Splice

ROUNDS: Final = 4
"""Full reads, or full pipes, that a direction may move before other flows are served."""


class EpollDirection:
    """Bytes that are read from `sock` and given to the peer's socket."""

    __slots__ = ("buffer", "closed", "deferred", "eof", "fd", "full_reads", "held", "owner", "peer",
                 "peer_blocked", "reported", "shared", "slow_path", "sock", "splice", "splices",
                 "target", "total", "view")  # fmt: skip

    peer: EpollDirection
    """The opposite direction; gone when closed, so that no reference cycle stays."""

    def __init__(self, shared: SharedBuffers, owner: Owner, sock: Socket, target: Socket) -> None:
        self.shared = shared
        self.owner = owner
        self.sock = sock
        self.fd = sock.fileno()
        self.target = target
        self.buffer, self.view = shared.buffer, shared.view
        self.total = 0
        """Bytes read."""
        self.reported = 0
        """Bytes that the counters of the port know about already."""
        self.held: memoryview | None = None
        """Read by recv, and not yet taken by the peer's socket."""
        self.peer_blocked = False
        """Whether the peer is blocked: it has bytes for this socket, which was full."""
        self.eof = False
        """Whether the end of the stream was read and passed on."""
        self.deferred = False
        """Whether the reactor will have it read on."""
        self.full_reads = 0
        """Full reads in a row while copying."""
        self.splice: Splice | None = None
        """Set while the direction does not copy."""
        self.splices = True
        """Whether splice is possible at all: it cannot pass TCP's urgent mark."""
        self.slow_path = not shared.splice_after
        """Whether anything but "copy what comes" may have to be done. `ready` looks at no other
        state for each event."""
        self.closed = False

    def __repr__(self) -> str:
        return f"<EpollDirection of {'nothing' if self.closed else repr(self.owner)}>"

    @property
    def pending(self) -> int:
        """Bytes read and not yet delivered."""
        if self.held is not None:
            return len(self.held)
        return self.splice.pending if self.splice is not None else 0

    def unreported(self) -> int:
        """Bytes delivered since the last call."""
        delivered = self.total - self.pending
        count = delivered - self.reported
        self.reported = delivered
        return count

    def restore(self, rest: DetachedDirection) -> None:
        """Take over what another mover has left of this direction, before there are any events."""
        self.total, self.reported = rest.total, rest.reported
        if rest.bulk:
            self.full_reads = SPLICE_AFTER
        if rest.undelivered:
            # A stream that has ended behind these bytes ends again when they are delivered: recv
            # returns 0 as often as it is asked.
            self.held = memoryview(rest.undelivered)
            self._block()
        elif rest.ended:
            self.eof = self.slow_path = True

    def to_detached(self) -> DetachedDirection:
        """All that another mover has to know. What a pipe holds is taken out of it."""
        undelivered = b""
        if self.held is not None:
            undelivered = bytes(self.held)
        elif self.splice is not None:
            undelivered = self.splice.take_out()
        return DetachedDirection(
            total=self.total, reported=self.reported, undelivered=undelivered, ended=self.eof
        )

    def abort(self) -> None:
        """End the whole flow; called by the reactor after a failure."""
        if not self.closed:
            self.owner.abort()

    def close(self) -> None:
        """Let go of everything but the socket, which is the owner's."""
        if self.closed:
            return
        self.closed = True
        if self.splice is not None:
            self.splice.close()
        self.held = None
        del self.peer, self.owner

    def ready(self, mask: int) -> None:
        """The socket's events. The most frequent case comes first, and calls no other method."""
        flags = SEND_FLAGS
        if self.slow_path or mask & READ != IN:
            if self.slow_path or mask & LAST != LAST or mask & NOT_LAST:
                self._attend(mask)
                return
            # The end of the stream has arrived (the kernel sets EPOLLRDHUP only when the FIN is
            # in), so a short read is the last one. MSG_MORE has its bytes wait for the FIN that
            # shutdown sends below, and both go out in one packet: a recv and a packet less.
            flags = SEND_LAST_FLAGS
        try:
            count = self.sock.recv_into(self.buffer, 0, RECV_FLAGS)
        except BlockingIOError:
            return
        except OSError as error:
            self.owner.abort(self.sock, error.errno)
            return
        if 0 < count < BUFFER:
            # A short read has emptied the socket (tcp_recvmsg stops early only at the urgent mark,
            # which has an event of its own); what comes later raises another edge. So there is no
            # second recv that would only say EAGAIN.
            self.total += count
            try:
                sent = self.target.send(self.view[:count], flags)
            except OSError as error:
                self._refused(error, count)
                return
            if sent < count:
                self._hold(sent, count)
            elif flags != SEND_FLAGS:
                self._ended()
        elif self._received(count):
            self._pump()

    def _attend(self, mask: int) -> None:
        """All other events, and those of a direction that does not just copy."""
        if self.peer_blocked and mask & OUT:
            self.peer.flush()
            if self.closed:
                return
        if mask & URGENT:
            # Only recv goes past the urgent mark; with SO_OOBINLINE it does so in order.
            self.splices = False
            if not self.pending:
                self._stop_splicing()
        if self.eof or self.pending:
            # Nothing is read now. EPOLLHUP means that both ends are shut. Ours is shut only when
            # the peer's stream has ended, and both of them ended would be the flow's end: a reset.
            if mask & (SHUT if self.eof else BROKEN):
                self.owner.abort(self.sock)
        elif mask & READ and not self.deferred:
            self._pump()

    def flush(self) -> None:
        """Deliver what the peer did not take before, then read on."""
        if self.held is not None:
            try:
                sent = self.target.send(self.held, SEND_FLAGS)
            except BlockingIOError:
                return
            except OSError as error:
                self.reject(error.errno)
                return
            if sent < len(self.held):
                self.held = self.held[sent:]
                return
            self.held = None
        elif self.splice is not None:
            if not self._drain(self.splice):
                return
            if not self.splices:
                self._stop_splicing()
        self.peer.peer_blocked = False
        self.peer.settle()
        if not self.deferred:
            self._pump()

    def settle(self) -> None:
        """Find out whether this direction is back to plain copying."""
        self.slow_path = bool(
            self.peer_blocked
            or self.eof
            or self.deferred
            or self.held is not None
            or self.splice is not None
            or (self.splices and not self.shared.splice_after)
        )

    def _pump(self) -> None:
        """Read and deliver until there is no more, the peer is full, or ROUNDS are over."""
        for _ in range(ROUNDS):
            splice = self.splice or self._change_to_splice()
            if not (self._copy() if splice is None else self._splice(splice)):
                break
        else:
            self.deferred = True
            self.shared.reactor.defer(self._resume)
        if not self.closed:
            if self.splice is not None:
                self.splice.release_empty_pipe()
            self.settle()

    def _resume(self) -> None:
        self.deferred = False
        if not self.closed and not self.eof and not self.pending:
            self._pump()

    def _copy(self) -> bool:
        """One read and its delivery. Returns whether there may be more."""
        try:
            count = self.sock.recv_into(self.buffer, 0, RECV_FLAGS)
        except BlockingIOError:
            return False
        except OSError as error:
            self.owner.abort(self.sock, error.errno)
            return False
        return self._received(count)

    def _received(self, count: int) -> bool:
        """Deliver what was read into the buffer. Returns whether there may be more."""
        if not count:
            self._ended()
            return False
        self.total += count
        self.full_reads = self.full_reads + 1 if count == BUFFER else 0
        try:
            sent = self.target.send(self.view[:count], SEND_FLAGS)
        except OSError as error:
            self._refused(error, count)
            return False
        if sent < count:
            self._hold(sent, count)
            return False
        return True

    def _refused(self, error: OSError, count: int) -> None:
        """The peer's socket took nothing: it is full or broken."""
        if isinstance(error, BlockingIOError):
            self._hold(0, count)
        else:
            self.total -= count
            self.reject(error.errno)

    def _hold(self, sent: int, count: int) -> None:
        """Keep what the peer did not take. The kernel reports an edge of EPOLLOUT when a third of
        its send buffer is free, but only after a send that has found it full, as here."""
        self.held = memoryview(bytes(self.view[sent:count]))
        self._block()

    def _block(self) -> None:
        self.slow_path = self.peer.slow_path = self.peer.peer_blocked = True

    def reject(self, code: int | None) -> None:
        """The peer's socket has failed."""
        pass_on_last_reply(self.peer)
        self.owner.abort(self.peer.sock, code)

    def _ended(self) -> None:
        """The end of this direction's stream, all of which was delivered."""
        if self.peer.eof:
            self.owner.finish()
            return
        self.eof = self.slow_path = True
        self._stop_splicing()
        try:
            self.peer.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.owner.abort(self.peer.sock, error.errno)

    def _change_to_splice(self) -> Splice | None:
        if self.full_reads >= self.shared.splice_after and self.splices:
            self.splice = Splice(self.shared, self.sock, self.peer.sock)
        return self.splice

    def _stop_splicing(self) -> None:
        self.full_reads = 0
        if self.splice is not None:
            self.splice.close()
            self.splice = None

    def _splice(self, splice: Splice) -> bool:
        """Move what fits into a pipe. Returns whether there may be more."""
        try:
            count = splice.fill()
        except BlockingIOError:
            return False
        except OSError as error:
            self.owner.abort(self.sock, error.errno)
            return False
        if not count:
            # recv has the last word on the end of the stream: splice also returns 0 at the
            # urgent mark with some kernels.
            self._stop_splicing()
            return self._copy()
        self.total += count
        if not self._drain(splice):
            return False
        if splice.small and self.shared.splice_after:
            self._stop_splicing()
        return True

    def _drain(self, splice: Splice) -> bool:
        """Deliver what is in the pipe. Returns whether all of it went."""
        try:
            splice.drain()
        except BlockingIOError:
            self._block()
            return False
        except OSError as error:
            self.reject(error.errno)
            return False
        return True
