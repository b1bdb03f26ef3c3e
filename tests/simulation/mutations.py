"""Defects for the data plane, which the simulation must notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Change:
    """A text that is in a module once, and what replaces it."""

    module: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    name: str
    says: str
    changes: tuple[Change, ...]


def _one(name: str, says: str, module: str, old: str, new: str) -> Mutation:
    return Mutation(name, says, (Change(module, old, new),))


_RING = "uring.ring"
_EPOLL_DIRECTION = "dataplane.tcp.epoll_direction"
_RING_DIRECTION = "dataplane.tcp.ring_direction"
_SUBMISSION_QUEUE = "uring.submission_queue"
_REACTOR, _FLOW, _UDP = "dataplane.reactor", "dataplane.tcp.flow", "dataplane.udp.ring_flow"

KNOWN: Final = (
    _one(
        "leaves-within-a-turn",
        "A flow leaves the ring before the outcome of the other direction's send is known.",
        _RING_DIRECTION,
        """                ring.call_after_turn(self._mover.tell_when_quiet)
        if completion & SEND_INCOMPLETE:
            self._unsent(completion)
        elif""",
        """                self._mover.tell_when_quiet()
        if completion & SEND_INCOMPLETE:
            self._unsent(completion)
            if not self.closed:
                self._mover.tell_when_quiet()
        elif""",
    ),
    _one(
        "no-limit-of-descriptors",
        "A worker accepts as many flows as it was told, whatever its RLIMIT_NOFILE is.",
        "core.flows.capacity",
        "usable = descriptors - min(_RESERVE, descriptors // 4)",
        "usable = 1 << 30",
    ),
    _one(
        "udp-received-twice",
        "A UDP flow that moves to another backend is armed twice: by the move and after it.",
        _UDP,
        "        self._ring.call_after_turn(lambda: self._arm_again(user_data))\n",
        "        user_data = self._user_data\n"
        "        self._ring.call_after_turn(lambda: self._arm_again(user_data))\n",
    ),
    _one(
        "newcomer-evicts-newcomer",
        "When the table is full of answered flows, a new flow displaces the previous one.",
        "core.flows.udp_table",
        """            waiting_first = unanswered < brief
        else:
            newcomers = len(self._flows) - self._established_count
            waiting_first = 4 * (self._unanswered_count + 1) >= 3 * newcomers
""",
        """            waiting_first = True
        else:
            waiting_first = True
""",
    ),
    _one(
        "no-share-of-tcp",
        "UDP may take all flows, and TCP clients wait for as long as it has them.",
        "core.flows.capacity",
        "to_tcp = owed if self._listening[TCP] else 0",
        "to_tcp = 0",
    ),
    _one(
        "holds-what-has-come",
        "A multishot receive takes all that has arrived, however slow the receiver is.",
        _RING,
        """            head, limit = OP_RECV_MULTISHOT, RECV_LIMIT + 1 - BUFFER_SIZE << 32
        else:
            head, limit = OP_RECV, 0
""",
        """            head, limit = OP_RECV_MULTISHOT, 0
        else:
            head, limit = OP_RECV_MULTISHOT, 0
""",
    ),
    _one(
        "more-follows-anywhere",
        "MSG_MORE is set where a send was queued, although another operation may be in its place.",
        _SUBMISSION_QUEUE,
        "        if sqe_number >= self._submitted:\n",
        "        if True:\n",
    ),
    _one(
        "refused-enter-goes-on",
        "When the kernel takes no entries, those in the queue are overwritten.",
        _SUBMISSION_QUEUE,
        """            elif refusals < REFUSALS:
                refusals += 1
                self.pause()
            else:
""",
        """            elif refusals < REFUSALS:
                return
            else:
""",
    ),
    _one(
        "epoll-unarmed",
        "After epoll has failed once, it is never asked again.",
        _REACTOR,
        """        try:
            self._dispatch()
        finally:
""",
        """        self._dispatch()
        if True:
""",
    ),
    _one(
        "full-buffers-of-a-lifetime",
        "Eight full buffers count as bulk, however far apart they arrive.",
        _RING_DIRECTION,
        "follows = self._streak_end == self.total - BUFFER_SIZE",
        "follows = True",
    ),
)
"""What was wrong once, and had been for a while."""

FOUND: Final = (
    _one(
        "reset-taken-for-the-end",
        "A receive after a send that reported a reset finds what looks like the end of the stream.",
        _RING_DIRECTION,
        "elif self.peer.turn >= self._ring.turn - 1:",
        "elif False:",
    ),
    _one(
        "last-reply-is-empty",
        "The reply that comes with the end of a multishot receive is passed on as an empty one.",
        _UDP,
        """        if completion & CQE_F_BUFFER and completion & CQE_RES:
            # A multishot receive ends with a reply where completions have no room in their queue.
            self._arrived(completion | CQE_F_MORE)
        elif completion & CQE_F_BUFFER:
            self._shared.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
        if not completion & CQE_RES:
""",
        """        if completion & CQE_F_BUFFER:
            self._shared.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
        if not code:
""",
    ),
)
"""What the simulation itself has found."""

FURTHER: Final = (
    _one(
        "lost-rearm",
        "A receive that has ended is not armed again if its bytes were sent at once.",
        _RING_DIRECTION,
        "        elif not self.armed:\n            self._ring.call_after_turn(self._rearm)\n",
        "",
    ),
    _one(
        "swapped-order",
        "The rest of an incomplete send is sent after bytes that came later.",
        _RING_DIRECTION,
        "self.held = bytearray(rest) + self.held",
        "self.held = self.held + bytearray(rest)",
    ),
    _one(
        "missed-cancel",
        "A direction that closes does not cancel its receive.",
        _RING_DIRECTION,
        """        if self.armed:
            ring.cancel(self._user_data)
            ring.submit()
""",
        """        if self.armed:
            ring.submit()
""",
    ),
    _one(
        "missing-fresh-check",
        "An event of a closed descriptor is given to a new one with the same number.",
        _REACTOR,
        "if callback is None or fd in fresh:",
        "if callback is None:",
    ),
    _one(
        "end-before-the-rest",
        "The end of a stream is passed on while messages still wait to be sent.",
        _RING_DIRECTION,
        """        if self._waiting:
            self._ending = True
        elif self.turn""",
        """        if self._waiting:
            self._ended()
        elif self.turn""",
    ),
    _one(
        "buffer-not-given-back",
        "Buffers that wait to be sent are lost when a direction closes.",
        _RING_DIRECTION,
        """            for completion in self._waiting:
                ring.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
            self._waiting = None
""",
        """            self._waiting = None
""",
    ),
    _one(
        "early-reuse",
        "The buffers of sends are reused before it is known what is left in them.",
        _RING,
        """        self.turn += 1
        for each in self._buffer_rings:
            each.mark_submitted()
""",
        """        self.turn += 1
        for each in self._buffer_rings:
            each.mark_submitted()
            each.give_back_sent()
""",
    ),
    _one(
        "lost-deferral",
        "A direction that has read its share continues only at the next event.",
        _EPOLL_DIRECTION,
        """            self.deferred = True
            self.shared.reactor.defer(self._resume)
""",
        """            pass
""",
    ),
    _one(
        "udp-closed-without-a-submit",
        "A UDP flow closes its socket while a queued operation still names it.",
        _UDP,
        """        if self._turn == ring.turn:
            ring.submit()
""",
        "",
    ),
    _one(
        "refused-after-the-move",
        "Of the datagrams that are refused in one turn, those after the first stay counted.",
        _UDP,
        "ring.redirect(user_data, partial(self._too_late, tuple(self._kept)))",
        "ring.remove_callback(user_data)",
    ),
    _one(
        "flushed-and-forgotten",
        "When a slow receiver has taken what was held, reading does not resume.",
        _EPOLL_DIRECTION,
        """        self.peer.settle()
        if not self.deferred:
            self._pump()
""",
        """        self.peer.settle()
""",
    ),
    _one(
        "end-in-place-of-a-reset",
        "A broken flow ends with a FIN.",
        _FLOW,
        """            self._let_go()
            reset(self.client_sock)
            if self.sock is not None:
                reset(self.sock)
""",
        """            self._let_go()
            self.client_sock.close()
            if self.sock is not None:
                self.sock.close()
""",
    ),
    _one(
        "dialed-again-while-relayed",
        "A dial that has succeeded still times out, and the flow moves to another backend.",
        "dataplane.tcp.dialer",
        "        del self._queues[flow.attempt][flow]\n        assert",
        "        assert",
    ),
    _one(
        "pipe-with-a-rest",
        "A pipe that holds bytes of one flow is lent to another.",
        "dataplane.tcp.pipes",
        "if not pipe.size and len(self._unused) < KEPT:",
        "if len(self._unused) < KEPT:",
    ),
    _one(
        "one-byte-too-few",
        "The first of the bytes that a socket did not take is lost.",
        _EPOLL_DIRECTION,
        "self.held = memoryview(bytes(self.view[sent:count]))",
        "self.held = memoryview(bytes(self.view[sent + 1 : count]))",
    ),
    _one(
        "ended-while-held",
        "A direction whose stream has ended does not wait for bytes that are still to be sent.",
        _EPOLL_DIRECTION,
        "            if sent < count:\n                self._hold(sent, count)\n"
        "            elif flags != SEND_FLAGS:\n                self._ended()\n",
        "            if sent < count:\n                self._hold(sent, count)\n"
        "            if flags != SEND_FLAGS:\n                self._ended()\n",
    ),
    _one(
        "rest-of-one-direction",
        "A flow that leaves the ring keeps only what is held for its client.",
        "dataplane.tcp.ring_mover",
        "        rest = Detached(",
        "        client.held = b''\n        rest = Detached(",
    ),
    _one(
        "counted-although-held",
        "Bytes that are held count as delivered.",
        _EPOLL_DIRECTION,
        "delivered = self.total - self.pending\n",
        "delivered = self.total\n",
    ),
    _one(
        "pipe-forgotten",
        "A flow that is detached leaves behind what is in the pipe of its splice.",
        "dataplane.tcp.splice",
        'return self._pipe.take_out() if self._pipe is not None else b""',
        'return b""',
    ),
    _one(
        "counted-twice",
        "What a mover has reported as delivered is reported again by its successor.",
        _EPOLL_DIRECTION,
        "self.total, self.reported = rest.total, rest.reported",
        "self.total, self.reported = rest.total, 0",
    ),
    _one(
        "detached-and-not-owed",
        "What a detached flow had not delivered is not delivered when its receiver has room.",
        _EPOLL_DIRECTION,
        "            self.held = memoryview(rest.undelivered)\n            self._owe()\n",
        "            self.held = memoryview(rest.undelivered)\n",
    ),
    _one(
        "reply-to-somebody-else",
        "A reply is sent with the message header of another buffer.",
        "dataplane.udp.ring_socket",
        "at = buffer * MESSAGE.size",
        "at = 0",
    ),
    _one(
        "udp-kept-after-the-reply",
        "A flow keeps what its backend has replied to, and sends it again when it moves.",
        "dataplane.udp.flow",
        "        self._kept.clear()\n",
        "",
    ),
    _one(
        "udp-evicted-and-forgotten",
        "A flow that makes room for another one stays in its listener.",
        "dataplane.udp.flows",
        """            flow.counters.drop(DropReason.CAPACITY)
            flow.close()
""",
        """            flow.counters.drop(DropReason.CAPACITY)
            self.discard(flow)
""",
    ),
    Mutation(
        "udp-sent-from-the-wrong-address",
        "Replies of a wildcard listener leave from whatever address the kernel chooses.",
        (
            Change("dataplane.udp.epoll_intake", "pktinfo.reply_from(local)", "[]"),
            Change(
                "dataplane.udp.ring_intake",
                'pktinfo.reply_from(local if self._wildcard else b"")',
                "[]",
            ),
        ),
    ),
)
"""Others that could be made."""

ALL: Final[tuple[Mutation, ...]] = KNOWN + FOUND + FURTHER
