"""One record at the end of each flow: who talked to whom, how much, and how it ended.

The termination code has two letters, as in the log of HAProxy (its configuration manual, "Session
state at disconnection"): who ended the flow, and in which phase.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

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
    """uproxy itself: the flow would have led back to it, or there was an error in it."""
    RESOURCES = "R"
    """uproxy, for lack of descriptors, memory or room for flows."""
    KILLED = "K"
    """uproxy, because its Service was removed, its backend is gone (UDP) or uproxy stops."""
    IDLE = "I"
    """uproxy, because nothing was transferred for too long."""


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


GOOD: Final = frozenset({"--", "K-"})
"""Codes of flows that have ended as they should. All others are bad."""


class FlowRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A flow that has ended. Times are seconds."""

    number: int
    """Counts the records of one worker, from 1."""
    start: float
    """Unix time of the accepted connection, or of the first datagram."""
    duration: float
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
    """From the first attempt to the answer of the backend, or to the end."""
    attempts: int
    """How often a backend was dialed."""
    code: str
    """An Ender and a Phase."""
    reason: str = ""
    """More about a bad end: a DropReason, or the name of an errno; "": nothing is known."""
    client_rtt: int = 0
    """Smoothed round-trip time at the end, in microseconds (TCP_INFO); 0: not known."""
    backend_rtt: int = 0
    client_retransmits: int = 0
    """Segments sent again to the client, over all its connection (TCP_INFO)."""
    backend_retransmits: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether it did not end as it should."""
        return self.code not in GOOD
