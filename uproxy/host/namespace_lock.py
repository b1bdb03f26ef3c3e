"""A lock for a network namespace: one process at a time owns the claims, one the rules that show
clients' addresses to pods, and one the addresses that are announced.

Without it, a second uproxy would take the routes of the first for left over from a crash, as the
kernel does not know which process a route belongs to. And a process that may not change routes must
not be able to hold the lock, or it could keep others from working.

So the lock is a netlink socket that has joined the multicast group of IPv4 multicast routes, for
four reasons. To join that group takes CAP_NET_ADMIN (rtnetlink_bind in the kernel's
net/core/rtnetlink.c), and apart from this lock only multicast routing daemons do it. The socket
belongs to the network namespace, whatever filesystems are mounted, as a lock file would not. It
disappears with its process, however that ends. And every process can see it in
/proc/net/netlink, by its number (nl_pid): the upper bits tell what the lock is for, and distinguish
it from the sockets of those daemons. Any process may take such a number, but a number without the
group means nothing, and there are 16 million of them for each purpose.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from pathlib import Path
from typing import Final

CLAIMS: Final = 0x75000000
CLIENT_ADDRESSES: Final = 0x76000000
ANNOUNCEMENTS: Final = 0x77000000
"""Numbers of which the last 24 bits are random. The numbers that the kernel gives to sockets are
process ids, which are below 2^22, or negative numbers, so they never look like these."""

_FREE_BITS: Final = 24
_GROUP: Final = 1 << 29  # RTNLGRP_IPV4_MROUTE_R
_LISTING: Final = Path("/proc/thread-self/net/netlink")
_NUMBER, _GROUPS = 2, 3  # Columns.
_ATTEMPTS: Final = 5
"""Two processes that begin at the same moment both give up the first attempt. The next ones are at
random moments."""
_PAUSE: Final = 0.1


class Locked(OSError):
    """Another process has the lock."""

    def __init__(self, kind: int = CLAIMS) -> None:
        does = "announces addresses on" if kind == ANNOUNCEMENTS else "claims the addresses of"
        super().__init__(errno.EBUSY, f"another uproxy {does} this node")


def take_lock(
    kind: int = CLAIMS, attempts: int = _ATTEMPTS, *, listing: Path = _LISTING
) -> socket.socket:
    """Take a lock, which is held until the socket is closed. With one attempt this takes 1 ms, and
    two processes that begin at the same moment may both fail.

    Raises Locked, or OSError: without CAP_NET_ADMIN (EPERM), or where it cannot be found out
    whether another process has the lock. `listing` is the list of netlink sockets in /proc.
    """
    for attempt in range(attempts):
        if attempt:
            time.sleep(random.uniform(0, _PAUSE))
        if _holders(kind, listing):
            continue
        # First the socket, then the second count: of two processes that have both seen no holder,
        # at least one sees two sockets. To count only before the bind would let both of them win.
        sock = _marked(kind)
        try:
            if _holders(kind, listing) == 1:
                return sock
        except OSError:
            sock.close()
            raise
        sock.close()
    raise Locked(kind)


def is_taken(kind: int, *, listing: Path = _LISTING) -> bool:
    """Whether a process has a lock, or is trying to take it. Raises OSError."""
    return _holders(kind, listing) > 0


def _marked(kind: int) -> socket.socket:
    """A socket that the other processes see."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        while True:
            try:
                sock.bind((kind | random.getrandbits(_FREE_BITS), _GROUP))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return sock
    except OSError:
        sock.close()
        raise


def _holders(kind: int, listing: Path) -> int:
    """How many processes have this lock, or are trying to take it."""
    try:
        lines = listing.read_text().splitlines()
    except OSError as error:
        raise OSError(error.errno, f"{listing}: {error.strerror}") from None
    found = 0
    for line in lines[1:]:
        words = line.split()
        number, groups = int(words[_NUMBER]), int(words[_GROUPS], 16)
        found += number >> _FREE_BITS == kind >> _FREE_BITS and bool(groups & _GROUP)
    return found
