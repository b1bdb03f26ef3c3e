"""Moving the bytes of a flow by io_uring: two directions, each with the socket it receives from.

The state of a direction is the first of these that its attributes show:

    closed     closed            the flow is over, or was detached
    detaching  detaching         its receive was cancelled; what still comes is kept in `held`
    ended      eof               the end of the stream was read, and passed on by a FIN
    ending     _ending           the end was read, behind bytes that are not delivered
    queued     _waiting          bytes wait in the ring's buffers for the send before them
    sending    turn = ring.turn  an operation was queued in this turn, so a send may be undecided
    idle       none              all bytes that were received are delivered

    event              idle           sending, queued      ending, ended        detaching
    bytes              send: sending  wait: queued         -                    keep
    end of the stream  FIN: ended     ending (a)           -                    - (b)
    end of the turn    -              send the next, or    FIN: ended           closed, if nothing
                                      receive again: idle                       is under way (c)
    nothing received   receive again  receive again later  -                    -
    socket has failed  abort          abort, once decided  detaching            broken
    send incomplete    -              detaching            detaching            keep its rest
    4 full buffers     -              detaching            -                    -
    half-closed long   -              -                    ended: detaching     -
    detach             detaching      detaching            detaching            -

    (a) MSG_MORE is set on a send that was not submitted yet, so that the FIN goes with its bytes.
    (b) The successor reads it again: recv returns 0 as often as it is asked.
    (c) Both directions: a send to the socket that the other one receives from belongs to that.

Detaching always concerns both directions. "Nothing received": no buffer was free, the receive has
reached its limit, or the kernel knows no limit. If both streams have ended, the flow finishes.

Invariants, whenever the process waits (tests/simulation/direction_invariants.py, `of_ring`):

    1. In one turn of the ring a direction queues one send at most, so its bytes cannot overtake
       each other: the kernel does not promise an order of what it executes.
    2. Received bytes are in the last send, in `_waiting` or in `held`; `held` has bytes only while
       detaching, and they are behind all that was sent.
    3. Unless `slow_path`, nothing waits and the stream has not ended: `_arrived` checks only that.
    4. A stream that has ended is not received from, and has nothing pending.
    5. Both directions are detaching, or neither is.
    6. What was reported as delivered is no more than was delivered.
"""

from __future__ import annotations

from _socket import socket as Socket

from uproxy.dataplane.handshakes import acknowledge
from uproxy.dataplane.tcp.half_closed import HalfCloseTimer
from uproxy.dataplane.tcp.mover import Detached, Owner
from uproxy.dataplane.tcp.ring_direction import RingDirection
from uproxy.uring.ring import Ring


class FromBackend(RingDirection):
    """The direction from the backend, which tells the flow when the backend has replied."""

    __slots__ = ()

    def _arrived(self, completion: int) -> None:
        """In place of the usual one, until there are bytes."""
        arrived = super()._arrived
        arrived(completion)
        if self.total and not self.closed:
            self._ring.replace_callback(self._user_data, arrived)
            # Not at once: the end of a short reply may be there already, or come meanwhile.
            self._ring.call_after_turn(self._replied)

    def _replied(self) -> None:
        if self.closed:
            return
        self._mover.owner.replied(self.peer.total > 0)
        if not (self.eof or self._ending):
            acknowledge(self.sock)


class RingMover:
    """Moves the bytes of one flow, as long as its receivers keep up and its messages are small.

    Otherwise it detaches itself, and the flow goes on by epoll: EPOLLOUT is the best way to wait
    for a slow receiver, and bulk costs less by splice. There is no way back: for each message, it
    would have to be found out whether the flow has become quiet, and most flows do not.
    """

    __slots__ = ("_ring", "from_backend", "from_client", "half_closed", "owner")

    from_client: RingDirection
    from_backend: FromBackend

    def __init__(self, ring: Ring, half_closed: HalfCloseTimer, owner: Owner) -> None:
        self.owner = owner
        self.half_closed = half_closed
        self._ring = ring

    def __repr__(self) -> str:
        return f"<RingMover of {self.owner!r}>"

    def start(self, client: Socket, backend: Socket, events: int = 0) -> None:
        ring = self._ring
        # The client's first bytes are likely to be there; the backend has not been asked yet.
        self.from_client = from_client = RingDirection(ring, self, client, backend.fileno(), False)
        self.from_backend = from_backend = FromBackend(ring, self, backend, from_client.fd, True)
        from_client.peer, from_backend.peer = from_backend, from_client

    def detach(self) -> None:
        if self.from_client.closed or self.from_client.detaching:
            return
        self.from_client.stop()
        self.from_backend.stop()
        # Not before the turn is over: how much of a send was taken may be reported later in it.
        self._ring.call_after_turn(self.finish_detaching)

    def finish_detaching(self) -> None:
        """Tell the owner, once nothing is under way in either direction. Called when a turn is
        over."""
        client, backend = self.from_client, self.from_backend
        if client.closed or client.armed or backend.armed:
            return
        if self._ring.turn in (client.turn, backend.turn):
            # Something was queued in this turn. If that was a send, the next turn tells its rest.
            self._ring.call_after_turn(self.finish_detaching)
            return
        rest = Detached(from_client=client.to_detached(), from_backend=backend.to_detached())
        self.close()
        self.owner.detached(rest)

    def close(self) -> None:
        self.from_client.close()
        self.from_backend.close()

    def abort(self) -> None:
        """End the whole flow; called by the reactor after a failure. Also when this mover is closed
        already: then it was the owner that has failed to go on."""
        self.owner.abort()
