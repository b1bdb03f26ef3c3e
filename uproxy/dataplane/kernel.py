"""What the data plane needs of a kernel, so that tests can pass one of their own."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import sys
import termios
from _socket import socket as Socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time
from typing import Final

from uproxy.uring.datagrams import BUFFER_COUNT as DATAGRAM_BUFFERS
from uproxy.uring.queues import Queues, RingQueues
from uproxy.uring.ring import BUFFER_COUNT as RING_BUFFERS


def _adopt(fd: int) -> socket.socket:
    return socket.socket(fileno=fd)


def _pipe() -> tuple[int, int]:
    return os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)


def _resize_pipe(fd: int, size: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)


def _size_of_pipe(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def _unsent(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


_libc: Final = ctypes.CDLL(None)
_UNSPECIFIED: Final = ctypes.create_string_buffer(16)
"""A struct sockaddr of AF_UNSPEC, which is 0."""
_NO_PEER: Final = ctypes.c_void_p(ctypes.addressof(_UNSPECIFIED))


def _disconnect(fd: int) -> bool:
    # connect(2); Python's method knows no addresses of this family. Without `argtypes`, a call
    # takes half the time (docs/decisions/0007-io-uring.md).
    return not _libc.connect(fd, _NO_PEER, len(_UNSPECIFIED))


def _lowest_local_port() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Where descriptors come from, and the clock.

    Only calls that make or close a descriptor, or that name one by its number, are here. Sockets
    and epolls have methods of their own, so a simulated kernel makes other objects.
    """

    new_socket: type[Socket] = Socket
    adopt: Callable[[int], socket.socket] = _adopt
    """A socket that the control process has opened, by its descriptor."""
    epoll: type[select.epoll] = select.epoll
    queues: Callable[[], RingQueues] = Queues
    """Makes an io_uring, and maps its queues."""
    ring_buffers: int = RING_BUFFERS
    """Buffers of the ring that streams are received into."""
    datagram_buffers: int = DATAGRAM_BUFFERS
    """Buffers of the ring that datagrams are received into, at most."""
    disconnect: Callable[[int], bool] = _disconnect
    """Takes its peer, and the port that the kernel has chosen, from a UDP socket, by its
    descriptor. Returns False if it cannot."""
    lowest_local_port: Callable[[], int] = _lowest_local_port
    """The first of the ports that it may choose for a socket that is not bound."""
    monotonic: Callable[[], float] = monotonic
    time: Callable[[], float] = time
    """Unix seconds."""
    pipe: Callable[[], tuple[int, int]] = _pipe
    """The descriptor to read from, and the one to write to."""
    resize_pipe: Callable[[int, int], None] = _resize_pipe
    """Raises PermissionError beyond fs.pipe-max-size, or if the user's pipes have as many pages
    already as fs.pipe-user-pages-soft allows; the pipe keeps its size."""
    size_of_pipe: Callable[[int], int] = _size_of_pipe
    splice: Callable[..., int] = os.splice
    """It fills a pipe page by page: a pipe of 64 KiB has 16 of them, and 16 small packets fill it
    whatever their length, so it may take less than its size."""
    read: Callable[[int, int], bytes] = os.read
    """Of a pipe."""
    set_blocking: Callable[[int, bool], None] = os.set_blocking
    unsent: Callable[[int], int] = _unsent
    """Bytes in a socket's send queue that its peer has not acknowledged (SIOCOUTQ)."""
    close: Callable[[int], None] = os.close


LINUX: Final = Kernel()
