"""Claims in the kernel: routes of type "local", by which an address counts as this node's.

After `ip route add local 192.0.2.7/32 dev lo proto 117` the kernel accepts what is sent to that
address, and it can be bound, though no interface has it (AnyIP). Our protocol number tells our
routes from all others, so that what a crash has left behind is recognised; nothing else is ever
removed. 117 is not in use by any routing daemon of /etc/iproute2/rt_protos.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from uproxy.host import netlink
from uproxy.host.namespace_lock import take_lock

PROTOCOL: Final = 117
"""rtm_protocol of our routes."""

_DESTINATION, _INTERFACE = 1, 4  # RTA_DST, RTA_OIF
_TABLE_LOCAL, _TYPE_LOCAL, _SCOPE_HOST = 255, 2, 254

_BATCH = 100
"""Requests before their answers are read: an answer takes under 1 KiB of a receive queue of
208 KiB, and what does not fit would be lost."""

_PROBE = "192.0.2.0"
"""An address (RFC 5737) that nobody has, to be removed in vain."""


def add_claims(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Claim addresses; those that could not be, with the reason. An address that is local
    already counts as done. Raises OSError if netlink as a whole cannot be used."""
    flags = netlink.CREATE | netlink.EXCLUSIVE
    return _request(addresses, netlink.NEW_ROUTE, flags, done=errno.EEXIST)


def release_claims(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Remove claims of ours, and nothing else; as above. One that is not there counts as done."""
    return _request(addresses, netlink.DELETE_ROUTE, 0, done=errno.ESRCH)


def held_claims() -> frozenset[str]:
    """Addresses for which there is a claim of ours, in canonical form. Raises OSError."""
    return frozenset(
        address
        for family in (socket.AF_INET, socket.AF_INET6)
        for route in netlink.dump_routes(family, table=_TABLE_LOCAL, protocol=PROTOCOL)
        if (address := _claim_of(route)) is not None
    )


def permission_error() -> OSError | None:
    """Why this process may not claim addresses; None: it may (CAP_NET_ADMIN)."""
    return release_claims([_PROBE]).get(_PROBE)


def remove_claims() -> Sequence[str]:
    """Remove every claim of ours, whichever process has made it; returns the addresses.

    Raises OSError, of the first that could not be removed, or Locked.
    """
    refused = permission_error()
    if refused is not None:
        raise refused
    with take_lock():
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
    """The address of a route if it is a claim of ours."""
    _, _, _, _, table, protocol, _, kind, _ = netlink.ROUTE.unpack_from(route)
    if (table, protocol, kind) != (_TABLE_LOCAL, PROTOCOL, _TYPE_LOCAL):
        return None
    for name, value in netlink.attributes(route[netlink.ROUTE.size :]):
        if name == _DESTINATION:
            return str(ipaddress.ip_address(bytes(value)))
    return None
