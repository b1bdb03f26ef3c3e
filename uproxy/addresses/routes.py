"""Claims in the kernel: routes of type "local", by which an address counts as this node's.

After `ip route add local 192.0.2.7/32 dev lo proto 117` the kernel accepts what is sent to that
address, and it can be bound, though no interface has it (AnyIP). Our protocol number tells our
routes from all others, so that what a crash has left behind is recognised; nothing else is ever
removed. 117 is not in use by any routing daemon of /etc/iproute2/rt_protos.

Messages are put together and taken apart here: for the 10,000 routes of a large cluster pyroute2
needs 3 s to write them and 1 s to read them, and other threads wait meanwhile. This takes 0.2 s
(rtnetlink(7)).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from uproxy.addresses.lock import take_lock

PROTOCOL: Final = 117
"""rtm_protocol of our routes."""

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_ERROR = struct.Struct("=i")

_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE, _ERROR_MESSAGE, _DONE = 24, 25, 26, 2, 3
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_SOL_NETLINK, _GET_STRICT_CHK = 270, 12
_NO_SUCH_TABLE = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""A kernel without IPv6, for one."""
_DESTINATION, _INTERFACE = 1, 4  # RTA_DST, RTA_OIF
_TABLE_LOCAL, _TYPE_LOCAL, _SCOPE_HOST = 255, 2, 254

_BATCH = 100
"""Requests before their answers are read: an answer takes under 1 KiB of a receive queue of
208 KiB, and what does not fit would be lost."""
_TIMEOUT = 10.0
"""Seconds; the kernel answers within the call, so this never passes."""

_PROBE = "192.0.2.0"
"""An address (RFC 5737) that nobody has, to be removed in vain."""


def add_claims(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Claim addresses; those that could not be, with the reason. An address that is local
    already counts as done. Raises OSError if netlink as a whole cannot be used."""
    flags = _CREATE | _EXCLUSIVE
    return _request(addresses, _NEW_ROUTE, flags, done=errno.EEXIST)


def release_claims(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Remove claims of ours, and nothing else; as above. One that is not there counts as done."""
    return _request(addresses, _DELETE_ROUTE, 0, done=errno.ESRCH)


def held_claims() -> frozenset[str]:
    """Addresses for which there is a claim of ours, in canonical form. Raises OSError."""
    found: set[str] = set()
    with _netlink() as sock:
        with contextlib.suppress(OSError):  # Before Linux 4.20 the kernel does not filter.
            sock.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _route(family, 0)
            sock.send(
                _HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST | _DUMP, 0, 0) + body
            )
            found.update(filter(None, map(_claim_of, _dumped(sock))))
    return frozenset(found)


def may_claim() -> OSError | None:
    """Why this process may not claim addresses; None: it may (CAP_NET_ADMIN)."""
    return release_claims([_PROBE]).get(_PROBE)


def remove_claims() -> Sequence[str]:
    """Remove every claim of ours, whichever process has made it; returns the addresses.

    Raises OSError, of the first that could not be removed, or Locked.
    """
    refused = may_claim()
    if refused is not None:
        raise refused
    lock = take_lock()
    try:
        held = sorted(held_claims())
        for error in release_claims(held).values():
            raise error
    finally:
        if lock is not None:
            lock.close()
    return held


def _request(
    addresses: Sequence[str], kind: int, flags: int, *, done: int
) -> Mapping[str, OSError]:
    failures: dict[str, OSError] = {}
    if not addresses:
        return failures
    loopback = socket.if_nametoindex("lo")
    with _netlink() as sock:
        for start in range(0, len(addresses), _BATCH):
            batch = addresses[start : start + _BATCH]
            messages = (_message(each, kind, flags, i, loopback) for i, each in enumerate(batch))
            sock.send(b"".join(messages))
            for index, number in _answers(sock, len(batch)):
                if number not in (0, done):
                    failures[batch[index]] = OSError(number, os.strerror(number))
    return failures


def _message(address: str, kind: int, flags: int, sequence: int, interface: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    body = _route(family, len(packed) * 8, _SCOPE_HOST)
    body += _attribute(_DESTINATION, packed) + _attribute(_INTERFACE, struct.pack("=I", interface))
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, flags | _REQUEST | _ACK, sequence, 0) + body


def _route(family: int, prefix_length: int, scope: int = 0) -> bytes:
    table = _TABLE_LOCAL
    return _ROUTE.pack(family, prefix_length, 0, 0, table, PROTOCOL, scope, _TYPE_LOCAL, 0)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _answers(sock: socket.socket, count: int) -> Iterator[tuple[int, int]]:
    """Sequence number and errno of so many answers."""
    while count > 0:
        for kind, sequence, body in _messages(sock):
            if kind == _ERROR_MESSAGE:
                count -= 1
                yield sequence, -_ERROR.unpack_from(body)[0]


def _dumped(sock: socket.socket) -> Iterator[memoryview]:
    """The routes of an answer to a dump. Raises OSError."""
    while True:
        for kind, _, body in _messages(sock):
            if kind == _NEW_ROUTE:
                yield body
            elif kind == _DONE:
                return
            elif kind == _ERROR_MESSAGE:
                number = -_ERROR.unpack_from(body)[0]
                if number in _NO_SUCH_TABLE:
                    return
                raise OSError(number, os.strerror(number))


def _messages(sock: socket.socket) -> Iterator[tuple[int, int, memoryview]]:
    """Type, sequence number and body of what one read brings."""
    data = memoryview(sock.recv(65536))
    while data:
        length, kind, _, sequence, _ = _HEADER.unpack_from(data)
        yield kind, sequence, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _claim_of(route: memoryview) -> str | None:
    """The address of a route if it is a claim of ours."""
    _, _, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(route)
    if (table, protocol, kind) != (_TABLE_LOCAL, PROTOCOL, _TYPE_LOCAL):
        return None
    attributes = route[_ROUTE.size :]
    while attributes:
        length, name = _ATTRIBUTE.unpack_from(attributes)
        if name == _DESTINATION:
            return str(ipaddress.ip_address(bytes(attributes[_ATTRIBUTE.size : length])))
        attributes = attributes[(length + 3) & ~3 :]
    return None


def _netlink() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    sock.settimeout(_TIMEOUT)
    sock.bind((0, 0))
    return sock
