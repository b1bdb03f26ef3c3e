"""Messages of rtnetlink, packed and unpacked by hand (rtnetlink(7)).

For the 10,000 routes of a large cluster, pyroute2 takes seconds to write or read them, and other
threads wait meanwhile. This takes 0.2 s, and saves the control process 24 MB (decision 0006).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

OUR_PROTOCOL: Final = 117
"""What marks the routes and addresses of uproxy, so that those which a crash has left behind are
recognised, and no others are ever removed. No routing daemon in /etc/iproute2/rt_protos has this
number."""
ADDRESS_PROTOCOL: Final = 11  # IFA_PROTO, since Linux 5.18.

HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
ROUTE: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg
ATTRIBUTE: Final = struct.Struct("=HH")  # struct rtattr
NUMBER: Final = struct.Struct("=i")

ADDRESS: Final = struct.Struct("=BBBBI")  # struct ifaddrmsg
NEXT_HOP: Final = struct.Struct("=BBBBI")  # struct nhmsg
LINK: Final = struct.Struct("=BBHiII")  # struct ifinfomsg
NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # struct ndmsg

NEW_LINK, GET_LINK = 16, 18
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE, ERROR_MESSAGE, DONE = 24, 25, 26, 2, 3
NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_NEXT_HOP, GET_NEXT_HOP = 104, 106
REQUEST, ACK, REPLACE, EXCLUSIVE, CREATE, DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
_SOL_NETLINK, _GET_STRICT_CHK = 270, 12
_EXT_MASK, _SKIP_STATS = 29, 8  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
_NO_SUCH_TABLE = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""A dump is refused with one of these by a kernel without IPv6, for example, or by one before 5.3,
which has no next hop objects."""
_TIMEOUT = 10.0
"""Seconds. The kernel answers within the call that sends the request, so this should never pass."""


def netlink() -> socket.socket:
    """A socket whose other end is the kernel. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        sock.settimeout(_TIMEOUT)
        sock.bind((0, 0))
    except OSError:
        sock.close()
        raise
    return sock


def dump_routes(
    family: int, *, table: int = 0, protocol: int = 0, kind: int = 0
) -> Iterator[memoryview]:
    """Bodies of all routes; 0 stands for any. Kernels before 4.20 send all routes whatever the
    filter says, so the caller has to check each of them. Raises OSError."""
    body = ROUTE.pack(family, 0, 0, 0, table, protocol, 0, kind, 0)
    return _dump(GET_ROUTE, NEW_ROUTE, body)


def dump_next_hops() -> Iterator[memoryview]:
    """Bodies of all next hops that are objects of their own, for both families. Raises OSError."""
    return _dump(GET_NEXT_HOP, NEW_NEXT_HOP, NEXT_HOP.pack(socket.AF_UNSPEC, 0, 0, 0, 0))


def dump_addresses() -> Iterator[memoryview]:
    """Bodies of the addresses of all interfaces, for both families. Raises OSError."""
    return _dump(GET_ADDRESS, NEW_ADDRESS, ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0))


def dump_links() -> Iterator[memoryview]:
    """Bodies of all interfaces. Raises OSError."""
    body = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)
    return _dump(GET_LINK, NEW_LINK, body + attribute(_EXT_MASK, NUMBER.pack(_SKIP_STATS)))


def dump_neighbours() -> Iterator[memoryview]:
    """Bodies of all neighbours of both families. Raises OSError."""
    return _dump(GET_NEIGHBOUR, NEW_NEIGHBOUR, NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and value of each attribute. They are aligned to 4 bytes; a length of less than its own
    header, which no kernel sends, must not make this an endless loop."""
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        yield kind & 0x3FFF, data[ATTRIBUTE.size : length]
        data = data[max(4, (length + 3) & ~3) :]


def batch(kind: int, flags: int, bodies: Iterable[bytes]) -> bytes:
    """Messages that are sent together, with sequence numbers from 0. Only the last one asks for an
    answer if it succeeds; what `failures` returns is complete all the same."""
    made = [message(kind, flags | REQUEST, number, each) for number, each in enumerate(bodies)]
    last = memoryview(made[-1])[HEADER.size :]
    made[-1] = message(kind, flags | REQUEST | ACK, len(made) - 1, bytes(last))
    return b"".join(made)


def failures(sock: socket.socket, count: int) -> Iterator[tuple[int, int]]:
    """Sequence number and errno of those of the `count` messages of a `batch` that failed. The
    kernel carries out a batch in its order, so the answer to the last one is the last answer."""
    while True:
        for kind, sequence, body in _messages(sock):
            if kind != ERROR_MESSAGE:
                continue
            number = -NUMBER.unpack_from(body)[0]
            if number:
                yield sequence, number
            if sequence == count - 1:
                return


def _dump(request: int, answer: int, body: bytes) -> Iterator[memoryview]:
    with netlink() as sock:
        with contextlib.suppress(OSError):
            # Only with this does the kernel take the filter in a dump request into account.
            sock.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        sock.send(message(request, REQUEST | DUMP, 0, body))
        while True:
            for kind, _, data in _messages(sock):
                if kind == answer:
                    yield data
                elif kind == DONE:
                    return
                elif kind == ERROR_MESSAGE:
                    number = -NUMBER.unpack_from(data)[0]
                    if number in _NO_SUCH_TABLE:
                        return
                    raise OSError(number, os.strerror(number))


def _messages(sock: socket.socket) -> Iterator[tuple[int, int, memoryview]]:
    """Type, sequence number and body of what one read brings."""
    data = memoryview(sock.recv(65536))
    while data:
        length, kind, _, sequence, _ = HEADER.unpack_from(data)
        yield kind, sequence, data[HEADER.size : length]
        data = data[(length + 3) & ~3 :]
