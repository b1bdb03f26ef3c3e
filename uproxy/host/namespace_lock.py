"""One process at a time owns the claims of a network namespace, and the rules that show clients'
addresses to pods.

The kernel does not know which process a route belongs to, so a second uproxy would take the routes
of the first for leftovers. And a process that may not change them must not be able to block the
lock, nor to pass for its owner.

So the lock is a netlink socket that has joined the multicast group of IPv4 multicast routes. That
takes CAP_NET_ADMIN (rtnetlink_bind in the kernel's net/core/rtnetlink.c), and only daemons for
multicast routing do it as well. It belongs to the network namespace, wherever files are
mounted; it goes with its process, however that ends; and /proc shows it to everybody. Its number
tells it from the sockets of those daemons, and what it is for. Numbers can be taken by anybody,
but without the group they mean nothing, and there are 16 million of them.
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
"""Numbers of which the last 24 bits are free. Those that the kernel gives out are process ids,
which are below 2^22, or negative."""

_FREE_BITS: Final = 24
_GROUP: Final = 1 << 29  # RTNLGRP_IPV4_MROUTE_R
_LISTING: Final = Path("/proc/thread-self/net/netlink")
_NUMBER, _GROUPS = 2, 3  # Columns.
_ATTEMPTS: Final = 5
"""Two that begin at the same moment both give way; their next attempts are at random moments."""
_PAUSE: Final = 0.1


class Locked(OSError):
    """Another process has the lock."""

    def __init__(self) -> None:
        super().__init__(errno.EBUSY, "another uproxy claims the addresses of this node")


def take_lock(kind: int = CLAIMS, attempts: int = _ATTEMPTS) -> socket.socket:
    """Take a lock; it is held until the socket is closed. With one attempt that takes 1 ms, and two
    that begin at the same moment may both fail.

    Raises Locked, or OSError: without CAP_NET_ADMIN (EPERM), or where it cannot be told whether
    another process has it.
    """
    for attempt in range(attempts):
        if attempt:
            time.sleep(random.uniform(0, _PAUSE))
        if _holders(kind):
            continue
        sock = _marked(kind)
        try:
            if _holders(kind) == 1:
                return sock
        except OSError:
            sock.close()
            raise
        sock.close()
    raise Locked


def _marked(kind: int) -> socket.socket:
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


def _holders(kind: int) -> int:
    """How many processes have this lock, or are about to try."""
    try:
        lines = _LISTING.read_text().splitlines()
    except OSError as error:
        raise OSError(error.errno, f"{_LISTING}: {error.strerror}") from None
    found = 0
    for line in lines[1:]:
        words = line.split()
        number, groups = int(words[_NUMBER]), int(words[_GROUPS], 16)
        found += number >> _FREE_BITS == kind >> _FREE_BITS and bool(groups & _GROUP)
    return found
