"""What is counted for each ServicePortName, in workers and, summed up, in the control process."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class DropReason(StrEnum):
    """Why a flow or a datagram was not served; log word and metric label at once."""

    NO_BACKEND = "no_backend"
    """No usable backend for this client (for example externalTrafficPolicy Local)."""
    DIAL_FAILED = "dial_failed"
    """Every attempt to reach a backend failed."""
    SOURCE_REFUSED = "source_refused"
    """The client is outside loadBalancerSourceRanges."""
    DESCRIPTORS = "descriptors"
    """The process is out of file descriptors or socket memory."""
    CAPACITY = "capacity"
    """The flow was evicted, or could not start, because --max-flows was reached."""
    BACKEND_REFUSED = "backend_refused"
    """UDP: the backend answered port unreachable; the flow moves on."""
    BUFFER_FULL = "buffer_full"
    """UDP: a socket buffer was full."""
    SEND_FAILED = "send_failed"
    """UDP: the kernel would not send a datagram: too long, no route to the client, a firewall."""
    DRAINING = "draining"
    """UDP: the worker is about to stop and takes no new flows."""
    LOOP = "loop"
    """The backend is uproxy itself, by some way round."""
    IDLE = "idle"
    """TCP: nothing was transferred for --tcp-idle-timeout, or half-closed for too long."""


class Counters(msgspec.Struct, array_like=True, gc=False):
    """Monotonic counts, but for `active`, which is a gauge."""

    flows: int = 0
    """Accepted TCP connections or new UDP flows."""
    active: int = 0
    """Flows alive now."""
    client_bytes: int = 0
    """Bytes received from clients and given to backends."""
    backend_bytes: int = 0
    """Bytes received from backends and given to clients."""
    client_datagrams: int = 0
    backend_datagrams: int = 0
    dial_failures: int = 0
    """Attempts to reach a backend that failed."""
    retries: int = 0
    """Further attempts after a failed one."""
    dropped: dict[str, int] = {}
    """By DropReason."""
    masqueraded: int = 0
    """Flows whose backend was to see the client's address and saw the node's."""
    dials: int = 0
    """TCP: attempts to reach a backend that succeeded."""

    def drop(self, reason: DropReason) -> None:
        """Count one dropped flow or datagram."""
        self.dropped[reason.value] = self.dropped.get(reason.value, 0) + 1

    def add(self, other: Counters) -> None:
        """Sum up, field by field."""
        self.flows += other.flows
        self.active += other.active
        self.client_bytes += other.client_bytes
        self.backend_bytes += other.backend_bytes
        self.client_datagrams += other.client_datagrams
        self.backend_datagrams += other.backend_datagrams
        self.dial_failures += other.dial_failures
        self.retries += other.retries
        self.masqueraded += other.masqueraded
        self.dials += other.dials
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
