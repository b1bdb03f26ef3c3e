"""Defects that concern several datagrams in one send or in one message."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutation import UDP, Mutation, one

_SEGMENTS, _REFUSALS = "dataplane.udp.segments", "dataplane.udp.ring_refusals"

SEGMENTS: Final[tuple[Mutation, ...]] = (
    one(
        "joins-behind-a-shorter-one",
        "A datagram joins behind one that is shorter, so that the two are cut in the wrong place.",
        _SEGMENTS,
        "        self._rooms[bid] = room - count if count == size else 0\n",
        "        self._rooms[bid] = room - count\n",
    ),
    one(
        "joins-what-has-left",
        "A datagram joins in a send that the kernel has taken already.",
        UDP,
        """        if self._forth >= self._ring.submitted:
            if self._second_forth >= self._ring.submitted and self._joins(""",
        """        if self._forth >= 0:
            if self._second_forth >= 0 and self._joins(""",
    ),
    one(
        "segments-without-a-proof",
        "Several datagrams leave as segments although it is not known whether the path takes them.",
        _SEGMENTS,
        "        if not 0 < count <= size <= most:\n",
        "        if not 0 < count <= size:\n",
    ),
    one(
        "proof-overtakes",
        "The datagram that shows whether a path takes segments overtakes those that are queued.",
        _REFUSALS,
        "        self._ring.submit()\n        if self._most_forth >= 0 and",
        "        if self._most_forth >= 0 and",
    ),
    one(
        "several-of-another-flow",
        "Several datagrams in one message are taken for those of another local address.",
        "dataplane.udp.ring_intake",
        "LOCAL_V4 + MERGED // 8",
        "LOCAL_V4",
    ),
    one(
        "one-of-several-refused",
        "When several replies are refused at once, only one of them is taken from the counters.",
        _REFUSALS,
        "self.backend_datagrams -= len(replies)",
        "self.backend_datagrams -= 1",
    ),
    one(
        "several-as-one",
        "What has come as several datagrams leaves as one.",
        UDP,
        "        if not completion & CQE_F_BUFFER or not shared.control_length(buffer):\n",
        "        if True:\n",
    ),
)
