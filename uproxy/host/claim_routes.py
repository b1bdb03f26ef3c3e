"""Claims in the kernel: routes of type "local", which make an address one of this node's.

After `ip route add local 192.0.2.7/32 dev lo proto 117` the kernel accepts packets to that address,
and a socket can be bound to it, although no interface has it (AnyIP). Our protocol number marks our
routes, so that routes which a crash has left behind are recognised, and no others are ever removed.
No routing daemon in /etc/iproute2/rt_protos has the number 117.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from uproxy.host import netlink
from uproxy.host.namespace_lock import take_lock

PROTOCOL: Final = 117
"""rtm_protocol of our routes."""

_DESTINATION, _INTERFACE = 1, 4  # RTA_DST, RTA_OIF
_TABLE_LOCAL, _TYPE_LOCAL, _SCOPE_HOST = 255, 2, 254

_BATCH = 100
"""Requests that are sent before their answers are read. An answer takes up to 1 KiB of the socket's
receive queue of 208 KiB, and answers that do not fit would be lost."""

_PROBE = "192.0.2.0"
"""An address of a documentation network (RFC 5737), whose removal is tried to learn whether this
process may change routes: with the privilege the kernel answers ESRCH, else EPERM."""


def add_claims(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Claim addresses; returns those that could not be claimed, with the reason. An address that is
    local already counts as done. Raises OSError if netlink cannot be used at all."""
    flags = netlink.CREATE | netlink.EXCLUSIVE
    return _request(addresses, netlink.NEW_ROUTE, flags, done=errno.EEXIST)


def release_claims(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Remove claims of ours, and no other routes; as above. A missing claim counts as done."""
    return _request(addresses, netlink.DELETE_ROUTE, 0, done=errno.ESRCH)


def held_claims() -> frozenset[str]:
    """The addresses that have a claim of ours, in canonical form. Raises OSError."""
    return frozenset(
        address
        for family in (socket.AF_INET, socket.AF_INET6)
        for route in netlink.dump_routes(family, table=_TABLE_LOCAL, protocol=PROTOCOL)
        if (address := _claim_of(route)) is not None
    )


def permission_error() -> OSError | None:
    """Why this process may not claim addresses; None: it may, as it has CAP_NET_ADMIN."""
    return release_claims([_PROBE]).get(_PROBE)


def remove_claims(lock: Callable[[], socket.socket] = take_lock) -> Sequence[str]:
    """Remove every claim of ours, whichever process has made it; returns the addresses.

    Raises the OSError of the first one that could not be removed, or Locked.
    """
    refused = permission_error()
    if refused is not None:
        raise refused
    with lock():
        held = sorted(held_claims())
        for error in release_claims(held).values():
            raise error
    return held


def _request(
    addresses: Sequence[str], kind: int, flags: int, *, done: int
) -> Mapping[str, OSError]:
    failures: dict[str, OSError] = {}
    if not addresses:
        return failures
    loopback = socket.if_nametoindex("lo")
    with netlink.netlink() as sock:
        for start in range(0, len(addresses), _BATCH):
            batch = addresses[start : start + _BATCH]
            messages = (_message(each, kind, flags, i, loopback) for i, each in enumerate(batch))
            sock.send(b"".join(messages))
            for index, number in netlink.answers(sock, len(batch)):
                if number not in (0, done):
                    failures[batch[index]] = OSError(number, os.strerror(number))
    return failures


def _message(address: str, kind: int, flags: int, sequence: int, interface: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    body = netlink.ROUTE.pack(
        *(family, len(packed) * 8, 0, 0, _TABLE_LOCAL, PROTOCOL, _SCOPE_HOST, _TYPE_LOCAL, 0)
    )
    body += netlink.attribute(_DESTINATION, packed)
    body += netlink.attribute(_INTERFACE, struct.pack("=I", interface))
    return netlink.message(kind, flags | netlink.REQUEST | netlink.ACK, sequence, body)


def _claim_of(route: memoryview) -> str | None:
    """The address of a route if it is a claim of ours. The kernel may not have filtered them."""
    _, _, _, _, table, protocol, _, kind, _ = netlink.ROUTE.unpack_from(route)
    if (table, protocol, kind) != (_TABLE_LOCAL, PROTOCOL, _TYPE_LOCAL):
        return None
    for name, value in netlink.attributes(route[netlink.ROUTE.size :]):
        if name == _DESTINATION:
            return str(ipaddress.ip_address(bytes(value)))
    return None
