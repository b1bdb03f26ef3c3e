"""Defects for the data plane, which the simulation must notice."""

from __future__ import annotations

from typing import Final

from tests.simulation.further_mutations import FURTHER
from tests.simulation.idle_mutations import IDLE
from tests.simulation.mutation import (
    REACTOR,
    RING,
    RING_DIRECTION,
    SUBMISSION_QUEUE,
    UDP,
    Mutation,
    one,
)
from tests.simulation.segment_mutations import SEGMENTS

KNOWN: Final = (
    one(
        "leaves-within-a-turn",
        "A flow leaves the ring before the outcome of the other direction's send is known.",
        RING_DIRECTION,
        """                ring.call_after_turn(self._mover.finish_detaching)
        if completion & SEND_INCOMPLETE:
            self._unsent(completion)
        elif""",
        """                self._mover.finish_detaching()
        if completion & SEND_INCOMPLETE:
            self._unsent(completion)
            if not self.closed:
                self._mover.finish_detaching()
        elif""",
    ),
    one(
        "no-limit-of-descriptors",
        "A worker accepts as many flows as it was told, whatever its RLIMIT_NOFILE is.",
        "core.flows.capacity",
        "usable = descriptors - min(_RESERVE, descriptors // 4)",
        "usable = 1 << 30",
    ),
    one(
        "udp-received-twice",
        "A UDP flow that moves to another backend is armed twice: by the move and after it.",
        UDP,
        "        self._ring.call_after_turn(lambda: self._arm_again(user_data))\n",
        "        user_data = self._user_data\n"
        "        self._ring.call_after_turn(lambda: self._arm_again(user_data))\n",
    ),
    one(
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
    one(
        "no-share-of-tcp",
        "UDP may take all flows, and TCP clients wait for as long as it has them.",
        "core.flows.capacity",
        "to_tcp = owed if self._listening[TCP] else 0",
        "to_tcp = 0",
    ),
    one(
        "holds-what-has-come",
        "A multishot receive takes all that has arrived, however slow the receiver is.",
        RING,
        "        head, limit = _LIMITED if self.recv_limit_supported else _UNLIMITED\n",
        "        head, limit = OP_RECV_MULTISHOT, 0\n",
    ),
    one(
        "more-follows-anywhere",
        "MSG_MORE is set where a send was queued, although another operation may be in its place.",
        SUBMISSION_QUEUE,
        "        if sqe_number >= self.submitted:\n",
        "        if True:\n",
    ),
    one(
        "port-kept-by-the-ring",
        "A UDP listener closes, and its port stays taken until the ring's next turns.",
        SUBMISSION_QUEUE,
        "            if not self._fields[self._queues.sq_flags_at] & SQ_TASKRUN:\n",
        "            if True:\n",
    ),
    one(
        "refused-enter-goes-on",
        "When the kernel takes no entries, those in the queue are overwritten.",
        SUBMISSION_QUEUE,
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
    one(
        "epoll-unarmed",
        "After epoll has failed once, it is never asked again.",
        REACTOR,
        """        try:
            self._dispatch()
        finally:
""",
        """        self._dispatch()
        if True:
""",
    ),
    one(
        "full-buffers-of-a-lifetime",
        "Four full buffers count as bulk, however far apart they arrive.",
        RING_DIRECTION,
        "follows = self._full_buffers_end == self.total - BUFFER_SIZE",
        "follows = True",
    ),
)
"""What was wrong once, and had been for a while."""

FOUND: Final = (
    one(
        "reset-taken-for-the-end",
        "A receive after a send that reported a reset finds what looks like the end of the stream.",
        RING_DIRECTION,
        "elif self.peer.turn >= self._ring.turn - 1:",
        "elif False:",
    ),
    one(
        "last-reply-is-empty",
        "The reply that comes with the end of a multishot receive is passed on as an empty one.",
        UDP,
        """        if completion & CQE_F_BUFFER:
            # A multishot receive ends with a reply where completions have no room in their queue.
            self._arrived(completion | CQE_F_MORE)
""",
        """        if completion & CQE_F_BUFFER:
            self._shared.buffers.give_back(completion >> CQE_BUFFER_SHIFT)
            self._to_client(memoryview(b""))
""",
    ),
)
"""What the simulation itself has found."""

ALL: Final[tuple[Mutation, ...]] = KNOWN + FOUND + FURTHER + SEGMENTS + IDLE
