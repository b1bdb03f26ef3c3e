"""One record at the end of each flow: who talked to whom, how much, and how it ended.

The termination code has two letters, as in the log of HAProxy (its configuration manual, "Session
state at disconnection"): who ended the flow, and in which phase.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Final

import msgspec

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.counters import DropReason
from uproxy.core.route import Backend, Frontend, ServicePortName

KEPT: Final = 10_000
"""Records that each worker keeps."""


class Ender(StrEnum):
    """Who ended a flow."""

    BOTH = "-"
    """Both ends have closed their streams, or a UDP flow was answered and has fallen silent."""
    CLIENT = "C"
    """The client has reset its connection."""
    BACKEND = "S"
    """The backend: it has refused, did not answer, or has reset the connection (S for server, as in
    HAProxy)."""
    PROXY = "P"
    """uproxy itself: it has refused the client, the flow would have led back to it, or there was an
    error in it."""
    RESOURCES = "R"
    """uproxy, for lack of descriptors, memory or room for flows."""
    KILLED = "K"
    """uproxy, because its Service was removed, its backend is gone (UDP) or uproxy stops."""
    IDLE = "I"
    """uproxy, because nothing was transferred for too long. A UDP flow: its backend has never
    replied."""


class Phase(StrEnum):
    """How far a flow has got."""

    COMPLETE = "-"
    """Both streams were delivered to their ends."""
    CONNECTING = "C"
    """No backend has answered yet."""
    DATA = "D"
    """Both directions were open."""
    LAST = "L"
    """One direction had ended, and the other one had not."""


ENDERS: Final = {
    DropReason.NO_BACKEND: Ender.PROXY,
    DropReason.DIAL_FAILED: Ender.BACKEND,
    DropReason.SOURCE_REFUSED: Ender.PROXY,
    DropReason.DESCRIPTORS: Ender.RESOURCES,
    DropReason.PORTS: Ender.RESOURCES,
    DropReason.CAPACITY: Ender.RESOURCES,
    DropReason.LOOP: Ender.PROXY,
    DropReason.IDLE: Ender.IDLE,
}
"""Who has ended a flow that was dropped, by the reason for which it was."""

COMPLETE: Final = Ender.BOTH + Phase.COMPLETE
GOOD: Final = frozenset({COMPLETE, Ender.KILLED + Phase.COMPLETE, Ender.IDLE + Phase.CONNECTING})
"""Codes of flows that have ended as they should. All others are bad.

IC, which only UDP flows have, is good: syslog and statsd have no replies, and if their flows were
bad, they would hide those that have failed."""

_OWN_ERRORS: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})
"""A call was wrong, or the kernel refuses it whatever the other end does."""


def ender_of(end: Ender, code: int) -> Ender:
    """Who has ended a flow, if a call on the socket of that end has failed with this errno."""
    if code in RESOURCE_ERRORS:
        return Ender.RESOURCES
    return Ender.PROXY if code in _OWN_ERRORS else end


class FlowRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A flow that has ended. Times are seconds."""

    number: int
    """Counts the records of one worker, from 1."""
    start: float
    """Unix time of the accepted connection, or of the first datagram."""
    duration: float
    """A UDP flow lasts until its last datagram."""
    client: str
    """IP address."""
    client_port: int
    frontend: Frontend
    owner: ServicePortName
    backend: Backend | None
    """The last one that was tried; None: none was."""
    client_bytes: int
    """Bytes received from the client and given to the backend."""
    backend_bytes: int
    """Bytes received from the backend and given to the client."""
    dial_time: float
    """From the start until the backend has accepted the connection or, for UDP, has replied. If
    it never did, to the end."""
    attempts: int
    """How often a backend was dialed."""
    code: str
    """An Ender and a Phase."""
    reason: str = ""
    """More about a bad end: a DropReason, or the name of an errno; "": nothing is known."""
    client_rtt: int = 0
    """Smoothed round-trip time at the end, in microseconds (TCP_INFO); 0: not known, as of UDP and
    of most short flows that are not in the flow log (docs/decisions/0021-flow-records.md)."""
    backend_rtt: int = 0
    client_retransmits: int = 0
    """Segments sent again to the client, over all its connection (TCP_INFO)."""
    backend_retransmits: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether it did not end as it should."""
        return self.code not in GOOD
