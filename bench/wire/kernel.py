"""What the benchmark needs of the kernel: a network of its own, and how much memory is in use."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SESSION = Path("/proc/self/autogroup")
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def enter_own_network() -> str:
    """Move this process, and all that it starts, to a network namespace with loopback only.

    Nothing else then shares its ports, its TIME_WAIT sockets or its packet filter. Returns why
    that is not possible, "" if it was done. Needs root and a process with a single thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        return os.strerror(ctypes.get_errno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16xH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    # Otherwise connections/s would depend on how the kernel searches for a free port.
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("10000 65535")
    return ""


@contextmanager
def priority(nice: int) -> Iterator[None]:
    """Run this process, and what it starts, at another priority. Negative ones need root.

    Where sessions are scheduled as groups (sched(7), autogroup), it is this session's that counts.
    """
    before = _session_priority()
    os.nice(nice)
    if nice and before:
        _SESSION.write_text(str(nice))
    try:
        yield
    finally:
        if nice and before:
            # Only root may raise it again; the session then keeps what it was lowered to.
            with suppress(PermissionError):
                _SESSION.write_text(before)


def share_priority(pids: Iterable[int]) -> None:
    """Give these processes' sessions the priority of this one: new sessions begin at 0."""
    own = _session_priority()
    for pid in pids if own not in ("", "0") else ():
        with suppress(FileNotFoundError, ProcessLookupError):
            Path(f"/proc/{pid}/autogroup").write_text(own)


def _session_priority() -> str:
    """Empty if the kernel does not have it."""
    return _SESSION.read_text().rpartition(" ")[2].strip() if _SESSION.exists() else ""


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one, also for programs that are started; returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def kernel_memory() -> int | None:
    """Bytes in slab objects and socket buffers; None where slabs cannot be read (needs root)."""
    try:
        slabs = slab_bytes(Path("/proc/slabinfo").read_text())
    except PermissionError:
        return None
    pages = buffer_pages(Path("/proc/net/sockstat").read_text())
    return slabs + pages * resource.getpagesize()


def slab_bytes(slabinfo: str) -> int:
    """Sum over /proc/slabinfo of active objects times their size."""
    rows = (line.split() for line in slabinfo.splitlines()[2:])
    return sum(int(row[1]) * int(row[3]) for row in rows)


def buffer_pages(sockstat: str) -> int:
    """Pages that TCP holds for what was sent and not read: "mem" of /proc/net/sockstat."""
    for line in sockstat.splitlines():
        words = line.split()
        if words[0] == "TCP:":
            return int(words[words.index("mem") + 1])
    return 0
