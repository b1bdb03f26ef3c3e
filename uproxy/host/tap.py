"""The packet sockets of one interface, one for ARP and one for neighbour discovery."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from typing import Final

from uproxy.host import socket_filters
from uproxy.host.frames import ETHERTYPE_ARP, ETHERTYPE_IPV6, Heard, parse_frame

_AT_ONCE: Final = 64
"""Frames that are read from one socket before other work gets its turn."""
_REST: Final = 0.02
"""Seconds for which a socket that had so many frames is left alone: 3,200 frames a second at most
are read from it. The kernel drops what does not fit in its queue meanwhile."""
_QUEUE: Final = 262144
"""Bytes of the queue of a socket: the answers to some hundred probes."""
_LONGEST: Final = 2048
"""Bytes that are read of a frame. Neighbour advertisements with all their options are shorter."""

OnFrame = Callable[[Heard, str], None]
"""Called with what a frame says, and the name of the interface."""


class Tap:
    """Sends frames on one interface, and reads those about certain addresses.

    A socket that no address needs is closed, so that the IPv6 traffic of a node without IPv6
    addresses to announce passes no filter.
    """

    def __init__(self, interface: str, index: int, on_frame: OnFrame) -> None:
        self.index = index
        self.addresses: frozenset[str] = frozenset()
        self._interface = interface
        self._on_frame = on_frame
        self._sockets: dict[int, socket.socket] = {}
        """By EtherType."""
        self._resting: dict[int, asyncio.TimerHandle] = {}
        """By EtherType: when it is read again."""

    def close(self) -> None:
        for kind in list(self._sockets):
            self._close(kind)
        self.addresses = frozenset()

    def listen(self, addresses: Collection[str]) -> None:
        """Read frames about these addresses, and about no others. Raises OSError."""
        if self.addresses == frozenset(addresses):
            return
        ipv6 = sorted(each for each in addresses if ":" in each)
        ipv4 = sorted(each for each in addresses if ":" not in each)
        self._use(ETHERTYPE_ARP, socket_filters.arp_filter(ipv4, self.index) if ipv4 else b"")
        advertisements = socket_filters.advertisement_filter(ipv6, self.index) if ipv6 else b""
        self._use(ETHERTYPE_IPV6, advertisements)
        self.addresses = frozenset(addresses)

    def send(self, address: str, frame: bytes) -> bool:
        """Send a frame about an address; returns whether the interface has taken it."""
        sock = self._sockets.get(ETHERTYPE_IPV6 if ":" in address else ETHERTYPE_ARP)
        try:
            return sock is not None and sock.send(frame) == len(frame)
        except OSError:  # The interface is down or gone, or its queue is full.
            return False

    def _use(self, kind: int, program: bytes) -> None:
        sock = self._sockets.get(kind)
        if not program:
            self._close(kind)
        elif sock is not None:
            socket_filters.attach(sock, program)
        else:
            self._sockets[kind] = self._opened(kind, program)
            self._read_from(kind)

    def _opened(self, kind: int, program: bytes) -> socket.socket:
        sock = packet_socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
            # Nothing comes before it is bound, so nothing passes without the filter.
            socket_filters.attach(sock, program)
            sock.bind((self._interface, kind))
        except OSError:
            sock.close()
            raise
        return sock

    def _close(self, kind: int) -> None:
        resting = self._resting.pop(kind, None)
        if resting is not None:
            resting.cancel()
        sock = self._sockets.pop(kind, None)
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _read_from(self, kind: int) -> None:
        self._resting.pop(kind, None)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sockets[kind].fileno(), self._readable, kind)

    def _readable(self, kind: int) -> None:
        for _ in range(_AT_ONCE):
            sock = self._sockets.get(kind)
            if sock is None:  # What was heard made the owner close it.
                return
            try:
                frame = sock.recv(_LONGEST)
            except BlockingIOError:
                # It rests here, too: frames that come one by one would otherwise be read one by
                # one, each with a turn of the loop, and as many as a neighbour can send.
                break
            except OSError:
                # ENETDOWN is told once, and the socket works again when the interface is up. But
                # libuv no longer watches a descriptor that had an error, so begin again.
                break
            heard = parse_frame(frame)
            if heard is not None:
                self._on_frame(heard, self._interface)
        self._rest(kind)

    def _rest(self, kind: int) -> None:
        sock = self._sockets.get(kind)
        if sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock.fileno())
            self._resting[kind] = loop.call_later(_REST, self._read_from, kind)


def packet_socket() -> socket.socket:
    """A socket that is not connected to an interface yet. Raises OSError: EPERM without
    CAP_NET_RAW."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
