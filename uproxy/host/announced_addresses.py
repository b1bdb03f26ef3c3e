"""Addresses that this node has for load balancers, on its interfaces and for seconds only.

An announced address is put on the interface of its subnet, so the kernel answers for it by ARP and
neighbour discovery. It has a lifetime, which the process renews: of a process that is killed or
frozen, the kernel takes it away. It is alone in its subnet and deprecated (preferred lifetime 0),
so the kernel does not choose it as a source. An IPv4 address has scope global for this reason: it
comes after the node's own in lists. With scope host it would come first, where a kubelet would take
it for the node's address.

Such an address is recognised by our protocol number (IFA_PROTO), or, before Linux 5.18, by being
exactly like this. This module is the first thing that `uproxy run` executes, so it imports next to
nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from uproxy.host import netlink
from uproxy.host.namespace_lock import ANNOUNCEMENTS, is_taken, take_lock

LIFETIME: Final = 3
"""Seconds after which the kernel removes an address that is not renewed."""
_PERIOD, _LONG_PERIOD = 0.5, 1.0
_MANY: Final = 250

_ADDRESS, _LOCAL, _CACHE_INFO, _FLAGS = 1, 2, 6, 8  # IFA_*
_NO_DAD, _NO_PREFIX_ROUTE = 0x02, 0x200
_OUR_FLAGS: Final = _NO_DAD | _NO_PREFIX_ROUTE
_SCOPE_GLOBAL: Final = 0
_CACHE: Final = struct.Struct("=IIII")
"""struct ifa_cacheinfo: preferred and valid lifetime, in seconds; two points in time."""
_OUR_PROTOCOL: Final = bytes((netlink.OUR_PROTOCOL,))
_FOREVER: Final = 0xFFFFFFFF
_MISSING: Final = (errno.EADDRNOTAVAIL, errno.ENODEV)
_BATCH: Final = 100
"""Requests that are sent before their answers are read, so that the answers find room."""


def renewal_period(addresses: Collection[str]) -> float:
    """Seconds from one renewal of these addresses to the next.

    With each IPv6 address the kernel looks at the lifetimes of all others: 250 of them take 25 ms,
    and 1,000 take 0.3 s (on Linux 6.18). IPv4 addresses take 4 us each, however many there are.
    """
    ipv6 = sum(":" in each for each in addresses)
    return _PERIOD if ipv6 <= _MANY else _LONG_PERIOD


class Held(NamedTuple):
    """An address of ours."""

    interface: str
    remaining: int
    """Seconds of its lifetime, rounded down."""


class _Found(NamedTuple):
    """An address of ours with the number of its interface."""

    address: str
    interface: int
    remaining: int


def put(addresses: Mapping[str, str], lifetime: int = LIFETIME) -> Mapping[str, OSError]:
    """Give interfaces addresses; `addresses` says the name of the interface for each. One that is
    there already, because a predecessor put it there, is renewed. Returns those that failed, with
    the reason: EEXIST if the interface has the address, and not from us; ENODEV if there is no such
    interface. Raises OSError if netlink cannot be used at all."""
    flags = netlink.CREATE | netlink.EXCLUSIVE
    failures = dict(_by_name(addresses, netlink.NEW_ADDRESS, flags, lifetime))
    there = {each for each, error in failures.items() if error.errno == errno.EEXIST}
    if there:
        ours = held()
        again = {each: addresses[each] for each in there if _is_at(ours, each, addresses[each])}
        for each in again:
            del failures[each]
        failures.update(renew(again, lifetime))
    return failures


def renew(addresses: Mapping[str, str], lifetime: int = LIFETIME) -> Mapping[str, OSError]:
    """Renew the lifetime of addresses that `put` has given to interfaces, and put those there again
    that another program has removed. Returns and raises as `put`.

    `renewal_period` says how often, and what that costs.
    """
    return _by_name(addresses, netlink.NEW_ADDRESS, netlink.CREATE | netlink.REPLACE, lifetime)


def remove(addresses: Mapping[str, str]) -> Mapping[str, OSError]:
    """Take addresses that `put` has given to interfaces away from them. Returns and raises as
    `put`; an address or interface that is missing counts as done."""
    failures = _by_name(addresses, netlink.DELETE_ADDRESS, 0, 0)
    return {each: why for each, why in failures.items() if why.errno not in _MISSING}


def held() -> Mapping[str, Held]:
    """All addresses of ours, whichever process has put them there. Raises OSError."""
    names = dict(socket.if_nameindex())
    return {
        each.address: Held(names.get(each.interface, ""), each.remaining) for each in _read_ours()
    }


def hold_over(lifetime: int = LIFETIME) -> Sequence[str]:
    """Renew what a killed predecessor has left on the interfaces, once, so that nothing is lost
    while this process starts. Returns the addresses. A longer lifetime is left as it is.

    Nothing is renewed while another uproxy announces: the addresses are its own to give up.
    Nothing is raised, since a process that cannot do this starts all the same.
    """
    try:
        ours = [each for each in _read_ours() if each.remaining <= lifetime]
        if not ours or is_taken(ANNOUNCEMENTS):
            return []
        flags = netlink.CREATE | netlink.REPLACE
        _request(
            [(each.address, each.interface) for each in ours], netlink.NEW_ADDRESS, flags, lifetime
        )
    except OSError:
        return []
    return [each.address for each in ours]


def remove_announced_addresses(
    lock: Callable[[int], socket.socket] = take_lock,
) -> Sequence[str]:
    """Remove every address of ours, whichever process has put it there; returns them.

    Raises the OSError of the first one that could not be removed, or Locked.
    """
    with lock(ANNOUNCEMENTS):
        found = sorted((each.address, each.interface) for each in _read_ours())
        for number in _request(found, netlink.DELETE_ADDRESS, 0, 0).values():
            if number not in _MISSING:
                raise OSError(number, os.strerror(number))
    return [address for address, _ in found]


def is_ours(message: memoryview) -> bool:
    """Whether the body of an address message of the kernel is about an address of ours."""
    return _found(message) is not None


def _is_at(ours: Mapping[str, Held], address: str, interface: str) -> bool:
    return address in ours and ours[address].interface == interface


def _by_name(
    addresses: Mapping[str, str], kind: int, flags: int, lifetime: int
) -> Mapping[str, OSError]:
    if not addresses:
        return {}
    numbers = {name: index for index, name in socket.if_nameindex()}
    found = [(each, numbers[name]) for each, name in addresses.items() if name in numbers]
    failures = {each: errno.ENODEV for each, name in addresses.items() if name not in numbers}
    failures.update(_request(found, kind, flags, lifetime))
    return {each: OSError(number, os.strerror(number)) for each, number in failures.items()}


def _request(
    addresses: Sequence[tuple[str, int]], kind: int, flags: int, lifetime: int
) -> dict[str, int]:
    """The addresses that failed, with the errno."""
    failures: dict[str, int] = {}
    if not addresses:
        return failures
    with netlink.netlink() as sock:
        for start in range(0, len(addresses), _BATCH):
            batch = addresses[start : start + _BATCH]
            bodies = (_body(address, index, lifetime) for address, index in batch)
            sock.send(netlink.batch(kind, flags, bodies))
            for position, number in netlink.failures(sock, len(batch)):
                failures[batch[position][0]] = number
    return failures


def _body(address: str, index: int, lifetime: int) -> bytes:
    """The message of one address, without its header. To remove it, its address is enough."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    head = netlink.ADDRESS.pack(family, len(packed) * 8, 0, _SCOPE_GLOBAL, index)
    local = netlink.attribute(_LOCAL, packed) + netlink.attribute(_ADDRESS, packed)
    return head + local + _attributes(lifetime)


def _attributes(lifetime: int) -> bytes:
    if not lifetime:
        return b""
    return (
        netlink.attribute(_FLAGS, struct.pack("=I", _OUR_FLAGS))
        + netlink.attribute(_CACHE_INFO, _CACHE.pack(0, lifetime, 0, 0))
        + netlink.attribute(netlink.ADDRESS_PROTOCOL, _OUR_PROTOCOL)
        + bytes(3)  # Aligned for the next one.
    )


def _read_ours() -> Iterator[_Found]:
    return filter(None, map(_found, netlink.dump_addresses()))


def _found(message: memoryview) -> _Found | None:
    """An address if it is ours.

    Before Linux 5.18 the kernel does not keep our protocol number. No other program makes addresses
    that are alone in their subnet, deprecated, without a route, and gone within seconds.
    """
    family, length, _, _, index = netlink.ADDRESS.unpack_from(message)
    found = dict(netlink.attributes(message[netlink.ADDRESS.size :]))
    packed = bytes(found.get(_LOCAL, found.get(_ADDRESS, b"")))
    if len(packed) * 8 != length or _CACHE_INFO not in found or _FLAGS not in found:
        return None
    preferred, remaining, _, _ = _CACHE.unpack_from(found[_CACHE_INFO])
    (flags,) = struct.unpack_from("=I", found[_FLAGS])
    if preferred or remaining == _FOREVER or not flags & _NO_PREFIX_ROUTE:
        return None
    protocol = bytes(found.get(netlink.ADDRESS_PROTOCOL, b""))
    if protocol != _OUR_PROTOCOL and (protocol or remaining > LIFETIME):
        return None
    return _Found(socket.inet_ntop(family, packed), index, remaining)
