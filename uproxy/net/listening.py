"""Opens, pauses and resumes listening sockets: every bind, socket option and class of errors.

A frontend has one socket for each worker, in one SO_REUSEPORT group, so the kernel spreads clients
over workers without a shared accept queue. The control process opens them all and keeps its
descriptors: the port stays open when a worker dies.

SO_REUSEADDR has three jobs here, each checked on Linux 6.18 and by tests/net/test_listening.py:
 * Listeners carry it, so that the connections that they accept inherit it. Connections of a
   previous run, for example in TIME_WAIT, then do not stop an exclusive bind.
 * A first, short bind with SO_REUSEADDR but without SO_REUSEPORT fails if and only if another
   process listens there. With SO_REUSEPORT alone, we would join the group of another uproxy of the
   same user without an error, and each would get a share of the other's clients.
 * A paused listener drops it, since any other process that sets it could otherwise take a port
   that is bound but not listening.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from typing import Final

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.capacity import BACKLOG
from uproxy.core.protocols import TCP, TRANSPORTS, UDP
from uproxy.core.route import Frontend
from uproxy.net import pktinfo
from uproxy.net.client_ports import CLIENT_PORTS
from uproxy.net.sockets import LINUX, SocketCalls

SOCKET_TYPES: Final = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
"""By protocol. Their other properties are in `uproxy.core.protocols`, which is pure and so cannot
name a socket type."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 60, 15, 4
"""Seconds, seconds and probes: a peer that vanished is noticed within two minutes."""

_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_DETACH_REUSEPORT_BPF = 68

_TAKEN: Final = "is already in use by"

RESERVED_DESCRIPTORS = 200
"""Descriptors that frontends must leave free: for probes, scrapes, files and new workers. Without
them nothing could tell an operator why frontends are missing."""


class ListenError(Exception):
    """A frontend that cannot be opened now, with the reason and what to do, on one line."""

    def __init__(self, error: OSError, frontend: Frontend, *, everywhere: bool = False) -> None:
        super().__init__(explain(error, frontend, everywhere=everywhere))
        self.absent = error.errno == errno.EADDRNOTAVAIL
        """The address is not on this node."""


def open_listeners(
    frontend: Frontend,
    count: int,
    *,
    exclusive: bool = True,
    claimed: bool = False,
    comes_and_goes: bool = False,
    calls: SocketCalls = LINUX,
) -> list[socket.socket]:
    """Open `count` sockets for a frontend, one for each worker; TCP ones listen.

    `exclusive` checks first that no other process has the port. It must be False where an
    overlapping frontend (wildcard and address with the same port) is ours already. `claimed` says
    that the address is local by a route of ours, not by an interface. `comes_and_goes` says that
    the listeners are to be open even while this node does not have the address.
    Raises ListenError.
    """
    sockets: list[socket.socket] = []
    free = (claimed, comes_and_goes)
    try:
        if exclusive:
            _bound(frontend, *free, shared=False, calls=calls).close()
        while len(sockets) < count:
            sockets.append(_bound(frontend, *free, shared=True, calls=calls))
        # The kernel gives out the lowest free number, so a high one means that few are left.
        if sockets[-1].fileno() >= calls.descriptor_limit() - RESERVED_DESCRIPTORS:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        # They listen only when all are bound: a client that had connected to the first of them
        # would be reset if another one could not be opened.
        if TRANSPORTS[frontend.protocol].has_accept_queue:
            for sock in sockets:
                sock.listen(BACKLOG)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ListenError(
            error, frontend, everywhere=_is_everywhere(error, frontend, calls)
        ) from error
    return sockets


def require_address(frontend: Frontend, calls: SocketCalls = LINUX) -> None:
    """Raises ListenError unless an interface has the address of a frontend, or, if it is an IPv4
    address, a route makes it local."""
    try:
        _bound(frontend._replace(port=0), False, False, shared=False, calls=calls).close()
    except OSError as error:
        raise ListenError(error, frontend) from error


def pause(sock: socket.socket) -> None:
    """Make a TCP listener refuse clients (RST to a SYN) while it keeps its port.

    shutdown(2) leaves a listening socket bound and not listening, and resets the connections that
    wait to be accepted. SO_REUSEADDR is dropped first: after the shutdown, there would be a moment
    in which another process that sets it could take the port. Raises OSError.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:  # Already paused.
            raise


def ignore_new_clients(sock: socket.socket) -> None:
    """Have a TCP listener ignore SYNs, so that no client joins those that wait to be accepted, and
    that a pause would reset. A client sends its SYN again after a second; by then the listener is
    paused, or resumed. Raises OSError.

    Only SYNs without ACK are dropped, so a handshake that has begun still ends in the queue.
    """
    # Classic BPF of a TCP socket begins at the TCP header. Its byte 13 has the flags SYN (0x02)
    # and ACK (0x10).
    load, mask, equal, ret = 0x30, 0x54, 0x15, 0x06
    code = [(load, 0, 0, 13), (mask, 0, 0, 0x12), (equal, 0, 1, 0x02), (ret, 0, 0, 0)]
    _attach(sock, _SO_ATTACH_FILTER, [*code, (ret, 0, 0, 0xFFFF_FFFF)])


def resume(sock: socket.socket) -> None:
    """Let a TCP listener that was paused, or ignores new clients, accept again. Raises OSError."""
    sock.listen(BACKLOG)
    # Not before it listens, for the reason that `pause` gives.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _detach(sock, _SO_DETACH_FILTER)


def steer_by_client(sock: socket.socket, workers: int) -> None:
    """Give each client address to one worker of the socket's SO_REUSEPORT group.

    The program is classic BPF over the IP header: a hash of the source address, modulo the number
    of sockets, which the kernel numbers in the order in which they were bound (UDP), or began to
    listen (TCP). So a client comes to the same worker at each frontend, and that worker alone has
    to remember its backend. Raises OSError.
    """
    _attach(sock, _SO_ATTACH_REUSEPORT_CBPF, _steering(sock.family, workers))


def stop_steering(sock: socket.socket) -> None:
    """Let the kernel spread connections by itself again. Raises OSError."""
    _detach(sock, _SO_DETACH_REUSEPORT_BPF)


def is_taken(reason: str) -> bool:
    """Whether a reason is that another process has the port."""
    return _TAKEN in reason


def explain(error: OSError, frontend: Frontend, *, everywhere: bool = False) -> str:
    """What a failed bind means for a person. `everywhere`: the port is in use at addresses that
    nothing can listen at by name."""
    where = f"{frontend.protocol} port {frontend.port}"
    match error.errno:
        case errno.EADDRINUSE:
            holder = "another process"
            if not TRANSPORTS[frontend.protocol].is_stream and frontend.port in CLIENT_PORTS:
                holder += ", or by a flow whose backend sees a pod's address"
            if everywhere:
                holder += ", which listens at every address of this node"
            return f"{where} on {frontend.address} {_TAKEN} {holder}"
        case errno.EADDRNOTAVAIL:
            return f"address {frontend.address} is not on this node"
        case errno.EACCES | errno.EPERM:
            return f"{where} needs root or CAP_NET_BIND_SERVICE"
        case errno.EAFNOSUPPORT:
            return f"this node has no {'IPv6' if ':' in frontend.address else 'IPv4'}"
        case number if number in RESOURCE_ERRORS:
            return f"out of file descriptors or memory ({os.strerror(number)}); raise LimitNOFILE"
        case _:
            return f"{where} on {frontend.address}: {error.strerror}"


def _bound(
    frontend: Frontend, claimed: bool, comes_and_goes: bool, *, shared: bool, calls: SocketCalls
) -> socket.socket:
    family = socket.AF_INET6 if ":" in frontend.address else socket.AF_INET
    transport = TRANSPORTS[frontend.protocol]
    sock = calls.new_socket(family, SOCKET_TYPES[frontend.protocol])
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if claimed or comes_and_goes:
                # bind(2) asks the routing table whether an IPv4 address is local, but only the
                # interfaces whether an IPv6 address is.
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        elif comes_and_goes:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if transport.has_accept_queue:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not transport.is_stream and frontend.address in ("0.0.0.0", "::"):
            pktinfo.enable(sock)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if transport.has_accept_queue:
                _inherited_by_flows(sock)
        sock.bind((frontend.address, frontend.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _is_everywhere(error: OSError, frontend: Frontend, calls: SocketCalls) -> bool:
    """Whether a port is in use because a program listens at the wildcard address. Then a bind(2) to
    an address fails that no machine has (RFC 5737, 3849), so that nothing else can be bound to
    it."""
    if error.errno != errno.EADDRINUSE or frontend.address in ("0.0.0.0", "::"):
        return False
    nowhere = "2001:db8::" if ":" in frontend.address else "192.0.2.0"
    try:
        _bound(frontend._replace(address=nowhere), False, True, shared=False, calls=calls).close()
    except OSError as refusal:
        return refusal.errno == errno.EADDRINUSE
    return False


def _inherited_by_flows(sock: socket.socket) -> None:
    """Set options that accepted sockets inherit, which saves setting them on each."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)


def _steering(family: int, workers: int) -> list[tuple[int, int, int, int]]:
    load, to_x, xor_x = 0x20, 0x07, 0xAC  # BPF_LD|BPF_W|BPF_ABS, BPF_TAX, BPF_XOR|BPF_X
    multiply, shift, modulo, ret = 0x24, 0x74, 0x94, 0x16
    network = 0x100000000 - 0x100000  # SKF_NET_OFF: offsets from the IP header
    if family == socket.AF_INET:
        source = [(load, 0, 0, network + 12)]
    else:
        source = [(load, 0, 0, network + 8)]
        for offset in (12, 16, 20):
            source += [(to_x, 0, 0, 0), (load, 0, 0, network + offset), (xor_x, 0, 0, 0)]
    mix = [(multiply, 0, 0, 0x9E3779B1), (shift, 0, 0, 16)]  # Knuth's multiplicative hash
    return [*source, *mix, (modulo, 0, 0, workers), (ret, 0, 0, 0)]


def _attach(sock: socket.socket, option: int, program: list[tuple[int, int, int, int]]) -> None:
    buffer = _Pinned(b"".join(struct.pack("HBBI", *each) for each in program))
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("HL", len(program), buffer.address))


def _detach(sock: socket.socket, option: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:  # None attached.
            raise


class _Pinned:
    """Bytes at an address that stays valid as long as this object lives."""

    def __init__(self, code: bytes) -> None:
        self._array = array.array("B", code)
        self.address = self._array.buffer_info()[0]
