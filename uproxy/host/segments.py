"""The interfaces on which addresses can be announced, and the subnets behind them."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from uproxy.host import netlink

_IFF_UP, _IFF_LOOPBACK, _IFF_POINT_TO_POINT, _IFF_RUNNING = 0x1, 0x8, 0x10, 0x40
_IFF_NO_ARP, _IFF_LOWER_UP = 0x80, 0x10000
_CARRIER: Final = _IFF_UP | _IFF_RUNNING | _IFF_LOWER_UP
_LINK_ADDRESS, _LINK_NAME, _LINK_INFO, _SLAVE_KIND = 1, 3, 18, 4  # IFLA_*
_ADDRESS, _FLAGS = 1, 8  # IFA_*
_TENTATIVE, _FAILED, _OPTIMISTIC = 0x40, 0x08, 0x04
_ETHERNET: Final = 1  # ARPHRD_ETHER
_SYSTEM: Final = "/sys/class/net"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """An interface, and the network segment that it is connected to.

    Ports of a bridge or bond are none, since the bridge or bond has the addresses.
    """

    index: int
    mac: str
    carrier: bool
    """Whether the interface is up and its cable, or whatever it has for one, is connected."""
    subnets: tuple[str, ...] = ()
    """CIDRs, sorted. The subnet of a single address is none, such as those that announced addresses
    have; nor is fe80::/64, which every interface has."""
    link_local: str = ""
    """Its link-local IPv6 address; "" if it has none that can be used yet."""
    wireless: bool = False
    """Many access points pass no broadcasts on to a machine, or filter its ARP messages."""
    arp: bool = True
    """Whether neighbours ask for addresses at all. They do not on tunnels, point-to-point links and
    dummy interfaces."""


class _OfInterface(NamedTuple):
    """What the addresses of one interface say."""

    subnets: set[str]
    link_local: list[str]


def read_segments(system: str = _SYSTEM) -> Mapping[str, Segment]:
    """All interfaces by name, without loopback; `system` is where sysfs lists them. Raises
    OSError."""
    addresses = _read_addresses()
    segments = {}
    for message in netlink.dump_links():
        found = parse_link(message, addresses)
        if found is not None:
            name, segment = found
            wireless = os.path.exists(f"{system}/{name}/phy80211")
            segments[name] = replace(segment, wireless=wireless)
    return segments


def parse_link(
    message: memoryview, addresses: Mapping[int, _OfInterface]
) -> tuple[str, Segment] | None:
    """An interface with its name; None if nothing can be announced on it."""
    _, _, hardware, index, flags, _ = netlink.LINK.unpack_from(message)
    found = dict(netlink.attributes(message[netlink.LINK.size :]))
    if flags & _IFF_LOOPBACK or _is_port(found):
        return None
    mac = bytes(found.get(_LINK_ADDRESS, b""))
    ethernet = hardware == _ETHERNET and len(mac) == 6
    here = addresses.get(index, _OfInterface(set(), []))
    segment = Segment(
        index=index,
        mac=mac.hex(":") if ethernet else "",
        carrier=flags & _CARRIER == _CARRIER,
        subnets=tuple(sorted(here.subnets)),
        link_local=min(here.link_local, default=""),
        arp=ethernet and not flags & (_IFF_NO_ARP | _IFF_POINT_TO_POINT),
    )
    return bytes(found.get(_LINK_NAME, b"")).rstrip(b"\0").decode(errors="replace"), segment


def _is_port(found: Mapping[int, memoryview]) -> bool:
    """Whether an interface belongs to a bridge, bond or team. In a VRF it keeps its addresses."""
    info = dict(netlink.attributes(found.get(_LINK_INFO, memoryview(b""))))
    return bytes(info.get(_SLAVE_KIND, b"")).rstrip(b"\0") not in (b"", b"vrf")


def _read_addresses() -> Mapping[int, _OfInterface]:
    by_interface: dict[int, _OfInterface] = {}
    for message in netlink.dump_addresses():
        family, length, flags, _, index = netlink.ADDRESS.unpack_from(message)
        found = dict(netlink.attributes(message[netlink.ADDRESS.size :]))
        if _FLAGS in found:
            (flags,) = struct.unpack_from("=I", found[_FLAGS])
        if _ADDRESS in found and not _is_unusable(flags):
            here = by_interface.setdefault(index, _OfInterface(set(), []))
            _add(here, family, bytes(found[_ADDRESS]), length)
    return by_interface


def _add(here: _OfInterface, family: int, packed: bytes, length: int) -> None:
    if packed[:2] == b"\xfe\x80" and family == socket.AF_INET6:
        here.link_local.append(socket.inet_ntop(family, packed))
    elif length < len(packed) * 8:
        here.subnets.add(str(ipaddress.ip_network((packed, length), strict=False)))


def _is_unusable(flags: int) -> bool:
    return bool(flags & _FAILED) or flags & (_TENTATIVE | _OPTIMISTIC) == _TENTATIVE
