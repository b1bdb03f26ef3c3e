"""Moving bytes between the two sockets of a TCP flow by io_uring.

A message that arrives is in a buffer of the ring already; the answer to its completion is a send
from that buffer, which leaves with those of all other flows. In the usual case that is all.

What needs thought is left to `Side`: a flow whose receiver is slow, that carries bulk (which is
spliced) or that stays half-closed leaves the ring for epoll, and does not return.
"""

from __future__ import annotations

import errno
from _socket import socket as Socket
from contextlib import suppress
from typing import Final

from uproxy.dataplane.relay import Ends, Relay
from uproxy.dataplane.ring import (
    BUFFER_SHIFT,
    FAILED,
    MORE,
    RESULT,
    SIZE,
    Ring,
    errno_of,
    send_entry,
)
from uproxy.dataplane.side import EVENTS, SEND, Side

BULK: Final = 8
"""Full buffers in a row after which a flow leaves the ring: 128 KiB."""


class RingSide(Side):
    """One socket of a flow, and the direction of the bytes that are read from it, by a ring.

    Of each direction one send at most is undecided. What arrives meanwhile waits in `_waiting`, in
    the ring's buffers, for less than a round.
    """

    __slots__ = ("_armed", "_broken", "_entry", "_key", "_last", "_leaving", "_left",
                 "_rejected", "_ring", "_round", "_slot", "_waiting")  # fmt: skip

    peer: RingSide

    def __init__(self, ring: Ring, relay: Relay, flow: Ends, sock: Socket, other: Socket) -> None:
        super().__init__(relay, flow, sock, other)
        self._ring = ring
        self._key = ring.add(self._arrived, self._unsent)
        self._entry = send_entry(other.fileno(), self._key)
        self._round = -1
        """Of the ring, when an operation of this side was queued last."""
        self._last = 0
        """The completion whose bytes were sent last."""
        self._slot = 0
        """Of that send."""
        self._armed = False
        """Whether the ring receives from the socket."""
        self._waiting: list[int] = []
        """Completions whose bytes are not sent yet."""
        self._leaving = self._left = False
        self._broken = False
        """Whether reading has failed."""
        self._rejected = False
        """Whether writing to the peer has failed."""

    @property
    def pending(self) -> int:
        return super().pending + sum(each & RESULT for each in self._waiting)

    def arm(self, *, empty: bool = False) -> None:
        """Receive."""
        self._armed = True
        self._round = self._ring.round
        self._ring.receive(self.fd, self._key, empty=empty)

    def close(self) -> None:
        if self.closed:
            return
        ring = self._ring
        ring.remove(self._key)
        for each in self._waiting:
            ring.free(each >> BUFFER_SHIFT)
        self._waiting.clear()
        if self._armed:
            ring.cancel(self._key)
            ring.flush()
        elif self._round == ring.round:
            ring.flush()  # While the numbers of our descriptors are ours.
        super().close()

    def _arrived(self, completion: int) -> None:
        """Bytes have arrived, or none will any more. What is most frequent comes first."""
        count = completion & RESULT
        ring = self._ring
        if 0 < count < SIZE and completion & MORE and self._round != ring.round:
            if not self.special:
                self._round = ring.round
                self._last = completion
                self.total += count
                self._slot = ring.send(self._entry, completion >> BUFFER_SHIFT, count)
                return
        self._attend_completion(completion)

    def _attend_completion(self, completion: int) -> None:
        """Completions that need thought."""
        if not completion & MORE:
            self._armed = False
        if completion & RESULT & FAILED:
            self._failed(errno_of(completion))
        elif not completion & RESULT:
            self._end()
        else:
            self._take(completion)
        if self._leaving:
            self._leave_when_quiet()

    def _take(self, completion: int) -> None:
        """Bytes that cannot be sent at once, or are many."""
        count = completion & RESULT
        self.total += count
        if self._leaving:
            self._keep(completion)
            return
        self.streak = self.streak + 1 if count == SIZE else 0
        if not self._waiting and self._round != self._ring.round:
            self._send(completion)
        else:
            self._waiting.append(completion)
            self.special = True
            if len(self._waiting) == 1:
                self._ring.again(self._go_on)
        if self.streak >= BULK:
            self._leave()
        elif not self._armed:
            self._ring.again(self._rearm)

    def _send(self, completion: int) -> None:
        ring = self._ring
        self._round = ring.round
        self._last = completion
        self._slot = ring.send(self._entry, completion >> BUFFER_SHIFT, completion & RESULT)

    def _go_on(self) -> None:
        """The last send is decided."""
        if self.closed or self._leaving:
            return
        if self._round == self._ring.round:
            self._ring.again(self._go_on)
        elif self._waiting:
            self._send(self._waiting.pop(0))
            self.special = bool(self._waiting)
            if self._waiting or self._broken or self.deferred:
                self._ring.again(self._go_on)
        elif self._broken:
            self.flow.abort()
        elif self.deferred:
            self.deferred = False
            self._ended()

    def _end(self) -> None:
        """The end of the stream."""
        if self._leaving:
            return  # It is still there when epoll looks.
        if self._round != self._ring.round and not self._waiting:
            self._ended()
            return
        self.deferred = True
        if not self._waiting:
            # The FIN goes out with the last bytes: a packet less.
            self._ring.more_follows(self._slot)
            self._ring.again(self._go_on)

    def _ended(self) -> None:
        super()._ended()
        if not self.closed and not self._leaving:
            self.relay.half_closed.add(self)

    def tired(self) -> None:
        """Half-closed for long."""
        if not self.closed:
            self._leave()

    def _failed(self, code: int) -> None:
        """The socket is broken, or what the ring did with it has been cancelled."""
        if code == errno.ENOBUFS:
            if not self._leaving:
                self._ring.again(self._rearm)
        elif code != errno.ECANCELED or not self._leaving:
            self._broken = True
            if not self._leaving:
                self._ring.again(self._go_on)

    def _rearm(self) -> None:
        if self.closed or self._leaving or self._armed:
            return
        if self._round == self._ring.round:
            # What is received at once would be reported before what the send has left.
            self._ring.again(self._rearm)
        else:
            self.arm()

    def _unsent(self, completion: int) -> None:
        """The peer's socket did not take all of the last send: it is full or broken."""
        if self.closed:
            return
        sent = 0 if completion & RESULT & FAILED else completion & RESULT
        self._rejected = errno_of(completion) not in (0, errno.EAGAIN)
        rest = self._ring.view(self._last >> BUFFER_SHIFT, sent, self._last & RESULT)
        self.held = memoryview(bytes(rest) + bytes(self.held or b""))
        self._leave()

    def _keep(self, completion: int) -> None:
        """Hold bytes, behind what is held already, in place of the ring."""
        buffer = completion >> BUFFER_SHIFT
        more = self._ring.view(buffer, 0, completion & RESULT)
        self.held = memoryview(bytes(self.held or b"") + bytes(more))
        self._ring.free(buffer)

    def _leave(self) -> None:
        """Have the flow served by epoll from now on."""
        if self._leaving:
            return
        for side in (self, self.peer):
            side._leaving = side.special = True
            for completion in side._waiting:
                side._keep(completion)
            side._waiting.clear()
            if side._armed:
                side._round = side._ring.round
                side._ring.cancel(side._key)
        self._ring.again(self._leave_when_quiet)

    def _leave_when_quiet(self) -> None:
        """Once nothing is on its way through the ring, in both directions."""
        if self.closed or self._left or self._armed or self.peer._armed:
            return
        if self._round == self._ring.round or self.peer._round == self._ring.round:
            self._ring.again(self._leave_when_quiet)
            return
        self._left = self.peer._left = True
        for side in (self, self.peer):
            side._settle_for_epoll()
        if any(side._broken or side._rejected for side in (self, self.peer)):
            self._give_up()
            return
        reactor = self.relay.reactor
        try:
            for side in (self, self.peer):
                reactor.register(side.fd, side.ready, EVENTS)
        except OSError:  # Out of memory, or over fs.epoll.max_user_watches.
            self.flow.abort()

    def _give_up(self) -> None:
        """One of the sockets is broken. What it had sent before still goes out."""
        rejected = [side for side in (self, self.peer) if side._rejected]
        for side in (self, self.peer):
            if side.held is not None and side not in rejected:
                with suppress(OSError):
                    side.held = side.held[side.give(side.held, SEND) :] or None
        for side in rejected[:1]:
            side._undeliverable()
        if not self.closed:
            self.flow.abort()

    def _settle_for_epoll(self) -> None:
        self._ring.remove(self._key)
        self.deferred = False
        if self.held is not None:
            self._owe()


def ring_sides(
    ring: Ring, relay: Relay, flow: Ends, client_sock: Socket, backend_sock: Socket
) -> tuple[RingSide, RingSide]:
    """Relay between two sockets: client and backend."""
    client = RingSide(ring, relay, flow, client_sock, backend_sock)
    backend = RingSide(ring, relay, flow, backend_sock, client_sock)
    client.peer = backend
    backend.peer = client
    client.arm()
    backend.arm(empty=True)
    return client, backend
