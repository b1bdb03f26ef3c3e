"""Routes, interfaces and neighbours, read through netlink to find the pods of this node."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from uproxy.host import netlink
from uproxy.host.pod_networks import Hop, Interface, LinkRoute, PodNetworks, local_pod_networks

_TABLE_MAIN, _TYPE_UNICAST, _CLONED = 254, 1, 0x200
_DESTINATION, _OUT, _GATEWAY, _MULTIPATH, _VIA, _NEXT_HOP_ID = 1, 4, 5, 9, 18, 30  # RTA_*
_HOP_ID, _HOP_GROUP, _HOP_OUT, _HOP_GATEWAY = 1, 2, 5, 6  # NHA_*
_MULTIPATH_HOP: Final = struct.Struct("=HBBi")  # struct rtnexthop
_GROUP_MEMBER: Final = struct.Struct("=IBBH")  # struct nexthop_grp
_LINK_ADDRESS, _LINK_NAME, _LINK_INFO, _INFO_KIND = 1, 3, 18, 1  # IFLA_*
_ETHERNET: Final = 1  # ARPHRD_ETHER
_NEIGHBOUR_ADDRESS, _NEIGHBOUR_LINK_ADDRESS = 1, 2  # NDA_DST, NDA_LLADDR
_ALIVE: Final = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, STALE, DELAY, PROBE

_HopsById = Mapping[int, tuple[Hop, ...]]
_NO_HOPS: Final[_HopsById] = {}


def read_pod_networks(networks: Sequence[str]) -> PodNetworks:
    """The networks of the pods that live on this node. `networks` are those of all pods of the
    cluster. Raises OSError."""
    if not networks:
        return PodNetworks()
    return local_pod_networks(_read_routes(), _read_interfaces(), networks)


def read_neighbours(interface: int) -> dict[str, str]:
    """Addresses on the link of an interface that have answered lately, each with the link-layer
    address that it belongs to. Raises OSError."""
    neighbours = {}
    for message in netlink.dump_neighbours():
        head = netlink.NEIGHBOUR.unpack_from(message)
        if head[1] != interface or not head[2] & _ALIVE:
            continue
        found = dict(netlink.attributes(message[netlink.NEIGHBOUR.size :]))
        if _NEIGHBOUR_ADDRESS in found and _NEIGHBOUR_LINK_ADDRESS in found:
            address = ipaddress.ip_address(bytes(found[_NEIGHBOUR_ADDRESS]))
            neighbours[str(address)] = bytes(found[_NEIGHBOUR_LINK_ADDRESS]).hex(":")
    return neighbours


def parse_route(message: memoryview, hops_by_id: _HopsById = _NO_HOPS) -> LinkRoute | None:
    """A route of the main table; None for one of another kind. `hops_by_id` are next hops that are
    objects of their own, which a route may name by their number alone
    (net.ipv4.nexthop_compat_mode=0)."""
    head = netlink.ROUTE.unpack_from(message)
    family, length, table, kind, flags = head[0], head[1], head[4], head[7], head[8]
    if (table, kind) != (_TABLE_MAIN, _TYPE_UNICAST) or flags & _CLONED:
        return None
    found = dict(netlink.attributes(message[netlink.ROUTE.size :]))
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    size = 4 if family == socket.AF_INET else 16
    packed = bytes(found.get(_DESTINATION, bytes(size)))
    return LinkRoute(
        f"{socket.inet_ntop(family, packed)}/{length}", tuple(_hops(found, hops_by_id))
    )


def _read_routes() -> Iterator[LinkRoute]:
    hops_by_id = _read_next_hops()
    for family in (socket.AF_INET, socket.AF_INET6):
        dumped = netlink.dump_routes(family, table=_TABLE_MAIN, kind=_TYPE_UNICAST)
        for message in dumped:
            route = parse_route(message, hops_by_id)
            if route is not None:
                yield route


def _hops(found: Mapping[int, memoryview], hops_by_id: _HopsById) -> Iterator[Hop]:
    if _OUT in found:
        yield Hop(_number(found[_OUT]), _GATEWAY in found or _VIA in found)
    elif _MULTIPATH in found:
        data = found[_MULTIPATH]
        while len(data) >= _MULTIPATH_HOP.size:
            length, _, _, interface = _MULTIPATH_HOP.unpack_from(data)
            length = max(length, _MULTIPATH_HOP.size)
            inner = dict(netlink.attributes(data[_MULTIPATH_HOP.size : length]))
            yield Hop(interface, _GATEWAY in inner or _VIA in inner)
            data = data[(length + 3) & ~3 :]
    elif _NEXT_HOP_ID in found:
        yield from hops_by_id.get(_number(found[_NEXT_HOP_ID]), ())


def _read_next_hops() -> _HopsById:
    single: dict[int, tuple[Hop, ...]] = {}
    groups: dict[int, memoryview] = {}
    for message in netlink.dump_next_hops():
        found = dict(netlink.attributes(message[netlink.NEXT_HOP.size :]))
        if _HOP_ID not in found:
            continue
        number = _number(found[_HOP_ID])
        if _HOP_GROUP in found:
            groups[number] = found[_HOP_GROUP]
        elif _HOP_OUT in found:
            single[number] = (Hop(_number(found[_HOP_OUT]), _HOP_GATEWAY in found),)
    return single | {number: _members(group, single) for number, group in groups.items()}


def _members(group: memoryview, single: _HopsById) -> tuple[Hop, ...]:
    whole = group[: len(group) - len(group) % _GROUP_MEMBER.size]
    members = _GROUP_MEMBER.iter_unpack(whole)
    return tuple(hop for number, *_ in members for hop in single.get(number, ()))


def _read_interfaces() -> dict[int, Interface]:
    return dict(map(parse_link, netlink.dump_links()))


def parse_link(message: memoryview) -> tuple[int, Interface]:
    """The number of an interface, and what it is."""
    _, _, hardware, index, _, _ = netlink.LINK.unpack_from(message)
    found = dict(netlink.attributes(message[netlink.LINK.size :]))
    info = dict(netlink.attributes(found.get(_LINK_INFO, memoryview(b""))))
    mac = bytes(found.get(_LINK_ADDRESS, b""))
    return index, Interface(
        name=_text(found.get(_LINK_NAME)),
        kind=_text(info.get(_INFO_KIND)),
        ethernet=hardware == _ETHERNET,
        mac=mac.hex(":") if len(mac) == 6 else "",
    )


def _number(value: memoryview) -> int:
    return int.from_bytes(bytes(value[:4]), sys.byteorder)


def _text(value: memoryview | None) -> str:
    return "" if value is None else bytes(value).rstrip(b"\0").decode(errors="replace")
