"""Moving bytes between the two sockets of a TCP flow.

Sockets are edge-triggered and registered once for their whole life, so in the usual case a
request costs one recv and one send, and a reply another two. What a socket does not take stays
with the direction it belongs to, which reads no more until it is gone: back-pressure of one
direction never touches another. Directions in which much is moved change to splice(2), which
takes a third to a half of the CPU per byte, but more per request.
"""

from __future__ import annotations

import errno
import socket
import sys
from _socket import socket as Socket
from contextlib import suppress
from typing import Final

from uproxy.dataplane.tcp.epoll_events import BROKEN, IN, LAST, NOT_LAST, OUT, READ, SHUT, URGENT
from uproxy.dataplane.tcp.shared_buffers import BUFFER, ROUNDS, Ends, Relay
from uproxy.dataplane.tcp.splice import Splice

_RECV: Final = int(socket.MSG_DONTWAIT)
_SEND: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_SEND_LAST: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL | socket.MSG_MORE)
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


class Side:
    """One socket of a flow, and the direction of the bytes that are read from it.

    Bytes of a direction are in at most one place, `held` or the pipe of its splice. While there
    are any, the direction does not read. The end of a stream is therefore seen only when all before
    it was delivered, and can be passed on at once.
    """

    __slots__ = ("buffer", "closed", "deferred", "eof", "fd", "flow", "give", "held", "owed",
                 "peer", "relay", "reported", "sock", "special", "splice", "splices", "streak",
                 "take", "total", "view")  # fmt: skip

    peer: Side
    """The other socket; gone when closed, so that no reference cycle stays."""

    def __init__(self, relay: Relay, flow: Ends, sock: Socket, other: Socket) -> None:
        self.relay = relay
        self.flow = flow
        self.sock = sock
        self.fd = sock.fileno()
        self.take = sock.recv_into
        self.give = other.send
        self.buffer = relay.buffer
        self.view = relay.view
        self.total = 0
        """Bytes read."""
        self.reported = 0
        """Bytes that the counters of the port know about already."""
        self.held: memoryview | None = None
        """Read, and not yet taken by the peer."""
        self.owed = False
        """Whether the peer has something for this socket, which was full."""
        self.eof = False
        self.deferred = False
        """Whether reading goes on in the next round."""
        self.streak = 0
        """Full reads in a row while copying."""
        self.splice: Splice | None = None
        """Set while the direction does not copy."""
        self.splices = True
        """Whether splice is possible at all: it cannot pass TCP's urgent mark."""
        self.special = not relay.splice_after
        """Whether anything but "copy what comes" is to be done; the only state that is looked at
        for each event."""
        self.closed = False

    def __repr__(self) -> str:
        return f"<Side of {'nothing' if self.closed else repr(self.flow)}>"

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

    def follow(self, total: int, reported: int, held: bytes | bytearray, *, eof: bool) -> None:
        """Go on where somebody else has stopped."""
        self.total, self.reported, self.eof = total, reported, eof
        if eof:
            self.special = True
        if held:
            self.held = memoryview(bytes(held))
            self._owe()

    def reject(self) -> None:
        """The peer is broken, as a write has shown. What it had sent before still goes out."""
        held = self.peer.held
        if held is not None:
            with suppress(OSError):
                self.peer.held = held[self.peer.give(held, _SEND) :] or None
        self._undeliverable()

    def abort(self) -> None:
        """End the whole flow; called by the reactor after a failure."""
        if not self.closed:
            self.flow.abort()

    def close(self) -> None:
        """Let go of everything but the socket, which is the flow's."""
        if self.closed:
            return
        self.closed = True
        if self.splice is not None:
            self.splice.close()
        self.held = None
        del self.peer, self.flow

    def ready(self, mask: int) -> None:
        """The socket's events. What is most frequent comes first, and calls nothing of ours."""
        flags = _SEND
        if self.special or mask & READ != IN:
            if self.special or mask & LAST != LAST or mask & NOT_LAST:
                self._attend(mask)
                return
            # The end of the stream has arrived, so a short read is the last one. It goes out
            # together with the FIN that follows: a recv and a packet less.
            flags = _SEND_LAST
        try:
            count = self.take(self.buffer, 0, _RECV)
        except BlockingIOError:
            return
        except OSError:
            self.flow.abort()
            return
        if 0 < count < BUFFER:
            # A short read has emptied the socket (tcp_recvmsg stops early only at the urgent mark,
            # which has an event of its own); what comes later raises another edge.
            self.total += count
            try:
                sent = self.give(self.view[:count], flags)
            except OSError as error:
                self._refused(error, count)
                return
            if sent < count:
                self._hold(sent, count)
            elif flags != _SEND:
                self._ended()
        elif self._received(count):
            self._pump()

    def _attend(self, mask: int) -> None:
        """Events that need thought."""
        if self.owed and mask & OUT:
            self.peer.flush()
            if self.closed:
                return
        if mask & URGENT:
            self._splice_no_more()
        if self.eof or self.pending:
            # Nothing to read (now). Both ends of a socket shut, while we have shut neither or
            # have yet to see the end of the stream, means that it was reset.
            if mask & (SHUT if self.eof else BROKEN):
                self.flow.abort()
        elif mask & READ and not self.deferred:
            self._pump()

    def flush(self) -> None:
        """Deliver what the peer did not take before, then read on."""
        if self.held is not None:
            try:
                sent = self.give(self.held, _SEND)
            except BlockingIOError:
                return
            except OSError:
                self._undeliverable()
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
        self.peer.owed = False
        self.peer.settle()
        if not self.deferred:
            self._pump()

    def settle(self) -> None:
        """Find out whether this side is back to plain copying."""
        self.special = bool(
            self.owed
            or self.eof
            or self.deferred
            or self.held is not None
            or self.splice is not None
            or (self.splices and not self.relay.splice_after)
        )

    def _pump(self) -> None:
        """Read and deliver until there is no more, the peer is full, or it is others' turn."""
        for _ in range(ROUNDS):
            splice = self.splice or self._change_to_splice()
            if not (self._copy() if splice is None else self._splice(splice)):
                break
        else:
            self.deferred = True
            self.relay.reactor.defer(self._resume)
        if not self.closed:
            if self.splice is not None:
                self.splice.rest()
            self.settle()

    def _resume(self) -> None:
        self.deferred = False
        if not self.closed and not self.eof and not self.pending:
            self._pump()

    def _copy(self) -> bool:
        """One read and its delivery. Whether there may be more."""
        try:
            count = self.take(self.buffer, 0, _RECV)
        except BlockingIOError:
            return False
        except OSError:
            self.flow.abort()
            return False
        return self._received(count)

    def _received(self, count: int) -> bool:
        """Deliver what was read into the buffer. Whether there may be more."""
        if not count:
            self._ended()
            return False
        self.total += count
        self.streak = self.streak + 1 if count == BUFFER else 0
        try:
            sent = self.give(self.view[:count], _SEND)
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
            self._undeliverable()

    def _hold(self, sent: int, count: int) -> None:
        """Keep what the peer did not take; the kernel reports an edge when it has room."""
        self.held = memoryview(bytes(self.view[sent:count]))
        self._owe()

    def _owe(self) -> None:
        self.special = self.peer.special = self.peer.owed = True

    def _undeliverable(self) -> None:
        """The peer is broken. What it had sent before still goes out: servers that reject a
        request reply and close without reading the rest of it."""
        peer = self.peer
        with suppress(OSError):
            for _ in range(ROUNDS):
                if peer.pending or not (count := peer.take(self.buffer, 0, _RECV)):
                    break
                sent = peer.give(self.view[:count], _SEND)
                peer.total += sent
                if sent < count:
                    break
        self.flow.abort()

    def _ended(self) -> None:
        """The end of this direction's stream, all of which was delivered."""
        if self.peer.eof:
            self.flow.finish()
            return
        self.eof = self.special = True
        self._stop_splicing()
        try:
            self.peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.flow.abort()

    def _splice_no_more(self) -> None:
        """An urgent byte has arrived, and recv alone goes past its mark (see Dialer.dial)."""
        self.splices = False
        if not self.pending:
            self._stop_splicing()

    def _change_to_splice(self) -> Splice | None:
        if self.streak >= self.relay.splice_after and self.splices:
            self.splice = Splice(self.relay.pipes, self.sock, self.peer.sock)
        return self.splice

    def _stop_splicing(self) -> None:
        self.streak = 0
        if self.splice is not None:
            self.splice.close()
            self.splice = None

    def _splice(self, splice: Splice) -> bool:
        """Move what fits into a pipe. Whether there may be more."""
        try:
            count = splice.fill()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                self.flow.abort()
                return False
            self.relay.splice_after = sys.maxsize  # gVisor, some security modules.
            count = None
        if not count:
            # recv has the last word on the end of the stream: splice also returns 0 at the
            # urgent mark with some kernels.
            self._stop_splicing()
            return self._copy()
        self.total += count
        if not self._drain(splice):
            return False
        if splice.lean and self.relay.splice_after:
            self._stop_splicing()
        return True

    def _drain(self, splice: Splice) -> bool:
        """Deliver what is in the pipe. Whether all of it went."""
        try:
            splice.drain()
        except BlockingIOError:
            self._owe()
            return False
        except OSError:
            self._undeliverable()
            return False
        return True
