"""What the data plane asks of a kernel, so that tests can put one of their own in its place."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import termios
from _socket import socket as Socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
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


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Where descriptors come from, and the clock. What has been made is asked itself."""

    new_socket: type[Socket] = Socket
    adopt: Callable[[int], socket.socket] = _adopt
    """A socket that somebody else has opened."""
    epoll: type[select.epoll] = select.epoll
    queues: Callable[[], RingQueues] = Queues
    """Those of a new io_uring."""
    ring_buffers: int = RING_BUFFERS
    """How many it receives streams into."""
    datagram_buffers: int = DATAGRAM_BUFFERS
    """How many it receives datagrams into; not more than that."""
    monotonic: Callable[[], float] = monotonic
    pipe: Callable[[], tuple[int, int]] = _pipe
    resize_pipe: Callable[[int, int], None] = _resize_pipe
    size_of_pipe: Callable[[int], int] = _size_of_pipe
    splice: Callable[..., int] = os.splice
    read: Callable[[int, int], bytes] = os.read
    set_blocking: Callable[[int, bool], None] = os.set_blocking
    unsent: Callable[[int], int] = _unsent
    """Bytes that a socket was given, and nobody has acknowledged yet."""
    close: Callable[[int], None] = os.close


LINUX: Final = Kernel()
