"""Routes of ours, each to a single address through the interface lo. They have our protocol number,
and no others are ever removed."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from uproxy.host import netlink
from uproxy.host.namespace_lock import take_lock

_DESTINATION, _INTERFACE = 1, 4  # RTA_DST, RTA_OIF
_BATCH = 100
"""Requests that are sent before their answers are read. An answer takes up to 1 KiB of the socket's
receive queue of 208 KiB, and answers that do not fit would be lost."""

_PROBE = "192.0.2.0"
"""An address of a documentation network (RFC 5737), whose removal is tried to learn whether this
process may change routes: with the privilege the kernel answers ESRCH, else EPERM."""


class RouteKind(NamedTuple):
    """What all routes for one purpose have in common; see rtnetlink(7)."""

    table: int
    type: int
    scope: int


CLAIM: Final = RouteKind(table=255, type=2, scope=254)
"""In the table "local", of type "local" and scope "host"."""
EXPORT: Final = RouteKind(table=254, type=1, scope=253)
"""In the table "main", of type "unicast" and scope "link"."""


def add_routes(kind: RouteKind, addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Add routes to addresses; returns those that failed, with the reason. A route that exists
    counts as done. Raises OSError if netlink cannot be used at all."""
    flags = netlink.CREATE | netlink.EXCLUSIVE
    return _request(kind, addresses, netlink.NEW_ROUTE, flags, done=errno.EEXIST)


def delete_routes(kind: RouteKind, addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Remove routes of ours, and no other routes; as above. A missing route counts as done."""
    return _request(kind, addresses, netlink.DELETE_ROUTE, 0, done=errno.ESRCH)


def held_routes(kind: RouteKind) -> frozenset[str]:
    """The addresses that have such a route of ours, in canonical form. Raises OSError."""
    return frozenset(
        address
        for family in (socket.AF_INET, socket.AF_INET6)
        for route in netlink.dump_routes(
            family, table=kind.table, protocol=netlink.OUR_PROTOCOL, kind=kind.type
        )
        if (address := _address_of(route, kind)) is not None
    )


def remove_all_routes(
    kind: RouteKind, lock: Callable[[], socket.socket] = take_lock
) -> Sequence[str]:
    """Remove every such route of ours, whichever process has made it; returns the addresses.

    Raises the OSError of the first one that could not be removed, or Locked.
    """
    refused = permission_error()
    if refused is not None:
        raise refused
    with lock():
        held = sorted(held_routes(kind))
        for error in delete_routes(kind, held).values():
            raise error
    return held


def permission_error() -> OSError | None:
    """Why this process may not change routes; None: it may, as it has CAP_NET_ADMIN."""
    return delete_routes(CLAIM, [_PROBE]).get(_PROBE)


def _request(
    kind: RouteKind, addresses: Sequence[str], request: int, flags: int, *, done: int
) -> Mapping[str, OSError]:
    failures: dict[str, OSError] = {}
    if not addresses:
        return failures
    loopback = socket.if_nametoindex("lo")
    with netlink.netlink() as sock:
        for start in range(0, len(addresses), _BATCH):
            batch = addresses[start : start + _BATCH]
            sock.send(
                netlink.batch(request, flags, (_body(kind, each, loopback) for each in batch))
            )
            for index, number in netlink.failures(sock, len(batch)):
                if number != done:
                    failures[batch[index]] = OSError(number, os.strerror(number))
    return failures


def _body(kind: RouteKind, address: str, interface: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    length, ours = len(packed) * 8, netlink.OUR_PROTOCOL
    head = netlink.ROUTE.pack(family, length, 0, 0, kind.table, ours, kind.scope, kind.type, 0)
    destination = netlink.attribute(_DESTINATION, packed)
    return head + destination + netlink.attribute(_INTERFACE, struct.pack("=I", interface))


def _address_of(route: memoryview, kind: RouteKind) -> str | None:
    """The address of a route if it is one of ours. The kernel may not have filtered them."""
    _, length, _, _, table, protocol, _, type_, _ = netlink.ROUTE.unpack_from(route)
    if (table, protocol, type_) != (kind.table, netlink.OUR_PROTOCOL, kind.type):
        return None
    for name, value in netlink.attributes(route[netlink.ROUTE.size :]):
        if name == _DESTINATION and length == len(value) * 8:
            return str(ipaddress.ip_address(bytes(value)))
    return None
