"""Addresses that this node cannot do without: its gateways, its DNS servers, the API server.

Claiming one of them would cut the node off, so none of them is ever claimed. All functions here
block, on the kernel, a disk or DNS, and are called in a thread.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from uproxy.core.ip import parse_ip
from uproxy.host import netlink

_TYPE_UNICAST = 1
_GATEWAY, _MULTIPATH, _VIA = 5, 9, 18  # RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA
_NEXT_HOP_GATEWAY = 6  # NHA_GATEWAY
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop

RESOLV_CONF: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Where systemd-resolved is used, the first file names its stub, 127.0.0.53, and the second one the
servers that the stub asks."""


def gateways() -> frozenset[str]:
    """The gateways of all routes. Raises OSError.

    With net.ipv4.nexthop_compat_mode=0, a route of a routing daemon has only the number of a next
    hop and no gateway, so the next hops are read as well.
    """
    of_routes = (
        gateway
        for family in (socket.AF_INET, socket.AF_INET6)
        for route in netlink.dump_routes(family, kind=_TYPE_UNICAST)
        for gateway in _gateways(route[netlink.ROUTE.size :])
    )
    of_next_hops = (
        str(ipaddress.ip_address(bytes(value)))
        for hop in netlink.dump_next_hops()
        for kind, value in netlink.attributes(hop[netlink.NEXT_HOP.size :])
        if kind == _NEXT_HOP_GATEWAY and len(value) in (4, 16)
    )
    return frozenset(chain(of_routes, of_next_hops))


def name_servers(paths: Iterable[Path] = RESOLV_CONF) -> frozenset[str]:
    """The DNS servers that this node asks. A file that cannot be read names none."""
    return frozenset(server for path in paths for server in _name_servers(path))


def resolve_hosts(urls: Iterable[str]) -> frozenset[str]:
    """All addresses of the hosts in these URLs. Raises OSError where a name has none."""
    return frozenset(address for url in urls for address in _addresses(urlsplit(url).hostname))


def _gateways(data: memoryview) -> Iterator[str]:
    for kind, value in netlink.attributes(data):
        if kind == _VIA:
            value = value[2:]  # struct rtvia: the address comes after its family.
        if kind in (_GATEWAY, _VIA) and len(value) in (4, 16):
            yield str(ipaddress.ip_address(bytes(value)))
        elif kind == _MULTIPATH:
            while len(value) >= _NEXT_HOP.size:
                length = max(_NEXT_HOP.size, _NEXT_HOP.unpack_from(value)[0])
                yield from _gateways(value[_NEXT_HOP.size : length])
                value = value[(length + 3) & ~3 :]


def _name_servers(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            address = parse_ip(words[1])
            if address is not None:
                yield address


def _addresses(host: str | None) -> Iterator[str]:
    if not host:
        return
    known = parse_ip(host)
    if known is not None:
        yield known
        return
    for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
        address = parse_ip(str(place[0]))
        if address is not None:
            yield address
