"""Defects that were never in the code, but could be."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutation import (
    EPOLL_DIRECTION,
    FLOW,
    REACTOR,
    RETURN_PATHS,
    RING,
    RING_DIRECTION,
    UDP,
    Change,
    Mutation,
    one,
)

FURTHER: Final = (
    one(
        "blames-the-other-end",
        "The record of a flow that was reset names the end that has not done it.",
        FLOW,
        "end = Ender.CLIENT if broken is self.client_sock else Ender.BACKEND",
        "end = Ender.BACKEND if broken is self.client_sock else Ender.CLIENT",
    ),
    one(
        "recorded-before-the-last-bytes",
        "The record of a flow has the bytes that were counted before it ended.",
        FLOW,
        "        self.account()\n        self._record(code, reason)\n",
        "        self._record(code, reason)\n        self.account()\n",
    ),
    Mutation(
        "not-counted-for-the-backend",
        "What a client has sent counts for the port, and not for the backend that got it.",
        (
            Change(FLOW, "            tally.client_bytes += count\n", ""),
            Change(
                FLOW,
                "        tally.client_bytes += count\n        count = backend_bytes",
                "        count = backend_bytes",
            ),
        ),
    ),
    one(
        "reported-again",
        "What was counted of a backend is reported again while it has flows.",
        "core.flows.backend_counts",
        "self.flows = self.retries = self.ejections = 0",
        "self.flows = self.ejections = 0",
    ),
    one(
        "probe-left-open",
        "The sockets of a probe are not closed when its outcome is known.",
        RETURN_PATHS,
        "        del self._probes[owner]\n        probe.close()\n",
        "        del self._probes[owner]\n",
    ),
    one(
        "hidden-after-the-end",
        "A UDP flow that has ended is given a socket when the outcome of a probe is known.",
        "dataplane.udp.flow",
        "        if self._sock is None or self._doubts_from == inf:\n",
        "        if self._confirmed:\n",
    ),
    one(
        "lost-rearm",
        "A receive that has ended is not armed again if its bytes were sent at once.",
        RING_DIRECTION,
        "        elif not self.armed:\n            self._ring.call_after_turn(self._rearm)\n",
        "",
    ),
    one(
        "swapped-order",
        "The rest of an incomplete send is sent after bytes that came later.",
        RING_DIRECTION,
        "self.held = bytearray(rest) + self.held",
        "self.held = self.held + bytearray(rest)",
    ),
    one(
        "missed-cancel",
        "A direction that closes does not cancel its receive.",
        RING_DIRECTION,
        """        if self.armed:
            ring.cancel(self._user_data)
            ring.submit()
""",
        """        if self.armed:
            ring.submit()
""",
    ),
    one(
        "missing-fresh-check",
        "An event of a closed descriptor is given to a new one with the same number.",
        REACTOR,
        "if callback is None or fd in fresh:",
        "if callback is None:",
    ),
    one(
        "end-before-the-rest",
        "The end of a stream is passed on while messages still wait to be sent.",
        RING_DIRECTION,
        """        if self._waiting:
            self._ending = True
        elif self.turn""",
        """        if self._waiting:
            self._ended()
        elif self.turn""",
    ),
    one(
        "buffer-not-given-back",
        "Buffers that wait to be sent are lost when a direction closes.",
        RING_DIRECTION,
        """            for completion in self._waiting:
                ring.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
            self._waiting = None
""",
        """            self._waiting = None
""",
    ),
    one(
        "early-reuse",
        "The buffers of sends are reused before it is known what is left in them.",
        RING,
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
    one(
        "lost-deferral",
        "A direction that has read its share continues only at the next event.",
        EPOLL_DIRECTION,
        """            self.deferred = True
            self.shared.reactor.defer(self._resume)
""",
        """            pass
""",
    ),
    one(
        "udp-closed-without-a-submit",
        "A UDP flow closes its socket while a queued operation still names it.",
        UDP,
        """        if self._turn == ring.turn:
            ring.submit()
""",
        "",
    ),
    one(
        "refused-after-the-move",
        "Of the datagrams that are refused in one turn, those after the first stay counted.",
        UDP,
        "ring.redirect(user_data, partial(self._too_late, tuple(self._kept), self._tally))",
        "ring.remove_callback(user_data)",
    ),
    one(
        "flushed-and-forgotten",
        "When a slow receiver has taken what was held, reading does not resume.",
        EPOLL_DIRECTION,
        """        self.peer.settle()
        if not self.deferred:
            self._pump()
""",
        """        self.peer.settle()
""",
    ),
    one(
        "end-in-place-of-a-reset",
        "A broken flow ends with a FIN.",
        FLOW,
        """            self._let_go(ender + self._phase, reason)
            reset(self.client_sock)
            if self.sock is not None:
                reset(self.sock)
""",
        """            self._let_go(ender + self._phase, reason)
            self.client_sock.close()
            if self.sock is not None:
                self.sock.close()
""",
    ),
    one(
        "dialed-again-while-relayed",
        "A dial that has succeeded still times out, and the flow moves to another backend.",
        "dataplane.tcp.dialer",
        "until = self._queues[attempt].pop(flow)\n",
        "until = self._queues[attempt][flow]\n",
    ),
    one(
        "pipe-with-a-rest",
        "A pipe that holds bytes of one flow is lent to another.",
        "dataplane.tcp.pipes",
        "if not pipe.size and len(self._unused) < KEPT:",
        "if len(self._unused) < KEPT:",
    ),
    one(
        "one-byte-too-few",
        "The first of the bytes that a socket did not take is lost.",
        EPOLL_DIRECTION,
        "self.held = memoryview(bytes(self.view[sent:count]))",
        "self.held = memoryview(bytes(self.view[sent + 1 : count]))",
    ),
    one(
        "ended-while-held",
        "A direction whose stream has ended does not wait for bytes that are still to be sent.",
        EPOLL_DIRECTION,
        "            if sent < count:\n                self._hold(sent, count)\n"
        "            elif flags != SEND_FLAGS:\n                self._ended()\n",
        "            if sent < count:\n                self._hold(sent, count)\n"
        "            if flags != SEND_FLAGS:\n                self._ended()\n",
    ),
    one(
        "rest-of-one-direction",
        "A flow that leaves the ring keeps only what is held for its client.",
        "dataplane.tcp.ring_mover",
        "        rest = Detached(",
        "        client.held = b''\n        rest = Detached(",
    ),
    one(
        "counted-although-held",
        "Bytes that are held count as delivered.",
        EPOLL_DIRECTION,
        "delivered = self.total - self.pending\n",
        "delivered = self.total\n",
    ),
    one(
        "pipe-forgotten",
        "A flow that is detached leaves behind what is in the pipe of its splice.",
        "dataplane.tcp.splice",
        'return self._pipe.take_out() if self._pipe is not None else b""',
        'return b""',
    ),
    one(
        "counted-twice",
        "What a mover has reported as delivered is reported again by its successor.",
        EPOLL_DIRECTION,
        "self.total, self.reported = rest.total, rest.reported",
        "self.total, self.reported = rest.total, 0",
    ),
    one(
        "detached-and-not-blocked",
        "What a detached flow had not delivered is not delivered when its receiver has room.",
        EPOLL_DIRECTION,
        "            self.held = memoryview(rest.undelivered)\n            self._block()\n",
        "            self.held = memoryview(rest.undelivered)\n",
    ),
    one(
        "reply-to-somebody-else",
        "A reply is sent with the message header of another buffer.",
        "dataplane.udp.ring_socket",
        "at = buffer * MESSAGE.size",
        "at = 0",
    ),
    one(
        "udp-kept-after-the-reply",
        "A flow keeps what its backend has replied to, and sends it again when it moves.",
        "dataplane.udp.flow",
        "        self._kept.clear()\n",
        "",
    ),
    one(
        "udp-evicted-and-forgotten",
        "A flow that makes room for another one stays in its listener.",
        "dataplane.udp.flows",
        """            flow.counters.drop(reason)
            flow.close(Ender.RESOURCES, reason.value)
""",
        """            flow.counters.drop(reason)
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
