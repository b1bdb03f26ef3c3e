"""What a test process has of its own: a network, where that is possible, and its signals."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_libc = ctypes.CDLL(None)
_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


_outside: int | None = None
"""Where this process came from, once it has moved."""


def own_network() -> bool:
    """Move this process into a new network namespace with its loopback interface up.

    No port that a test chooses is then taken by another program of this machine. Call it before
    there are threads or sockets: it moves only the thread that calls. Returns whether it could,
    which takes CAP_SYS_ADMIN.
    """
    global _outside
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if _libc.unshare(_CLONE_NEWNET):
        os.close(outside)
        return False
    _outside = outside
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
    return True


def in_own_network() -> bool:
    """Whether this process has moved. Then its sysctls below net concern nothing else."""
    return _outside is not None


@contextlib.contextmanager
def network_of_the_machine() -> Iterator[None]:
    """This thread makes sockets, and starts processes, where the test process was started."""
    if _outside is None:
        yield
        return
    inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert not _libc.setns(_outside, _CLONE_NEWNET)
        try:
            yield
        finally:
            assert not _libc.setns(inside, _CLONE_NEWNET)
    finally:
        os.close(inside)


def heed_signals() -> None:
    """Have the programs that tests start begin with the default dispositions.

    A shell without job control starts `make test &` with SIGINT ignored, and nohup does so with
    SIGHUP; what is ignored stays so in children, but what is caught becomes the default there.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # Ignored here, as it was.


def ephemeral_ports() -> tuple[int, int]:
    """The first and the last port that the kernel gives to clients."""
    with contextlib.suppress(OSError, ValueError):
        first, last = map(int, _EPHEMERAL.read_text().split())
        return first, last
    return 32768, 60999
