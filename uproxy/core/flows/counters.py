"""What is counted for each ServicePortName: in each worker, and added up in the control process."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class DropReason(StrEnum):
    """Why a flow or a datagram was not served. The values are used in logs and as metric labels."""

    NO_BACKEND = "no_backend"
    """There is no usable backend for this client, for example with externalTrafficPolicy Local."""
    DIAL_FAILED = "dial_failed"
    """Every attempt to reach a backend has failed."""
    SOURCE_REFUSED = "source_refused"
    """The client is not in loadBalancerSourceRanges."""
    DESCRIPTORS = "descriptors"
    """The process is out of file descriptors or socket memory."""
    PORTS = "ports"
    """UDP: the machine has no free port for another socket towards a backend
    (net.ipv4.ip_local_port_range). The flow could not begin, or was evicted for another one."""
    CAPACITY = "capacity"
    """The flow could not begin, or was evicted, because --max-flows was reached."""
    BACKEND_REFUSED = "backend_refused"
    """UDP: the backend has answered port unreachable, and the flow moves to another one."""
    BUFFER_FULL = "buffer_full"
    """UDP: a socket buffer was full."""
    SEND_FAILED = "send_failed"
    """UDP: the kernel has refused to send a datagram, because it is too long, there is no route, or
    a firewall forbids it."""
    DRAINING = "draining"
    """UDP: the worker is about to end and takes no new flows."""
    LOOP = "loop"
    """The backend leads back to uproxy itself."""
    IDLE = "idle"
    """TCP: nothing was transferred for --tcp-idle-timeout, or one direction was closed for too
    long."""


class Counters(msgspec.Struct, array_like=True, gc=False):
    """Counts that only grow, except `active`, which is a gauge."""

    flows: int = 0
    """TCP connections accepted and UDP flows begun."""
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
    """Flows whose backend was to see the client's address but saw that of the node."""
    dials: int = 0
    """TCP: attempts to reach a backend that succeeded."""

    def drop(self, reason: DropReason) -> None:
        """Count one dropped flow or datagram."""
        self.dropped[reason.value] = self.dropped.get(reason.value, 0) + 1

    def add(self, other: Counters) -> None:
        """Add another one's counts to these, field by field."""
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
