"""Ethernet frames of ARP and neighbour discovery, by which addresses are announced and looked for.

ARP is RFC 826, its announcements and probes RFC 5227; the messages for IPv6 are RFC 4861. Whatever
comes from the wire may be hostile, so `parse_frame` answers None for anything that it cannot use,
and raises nothing.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_IPV6: Final = 0x86DD
ICMPV6: Final = 58
NEIGHBOUR_ADVERTISEMENT: Final = 136
_NEIGHBOUR_SOLICITATION: Final = 135

_ETHERNET: Final = struct.Struct("!6s6sH")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ARP_FORM: Final = (1, 0x0800, 6, 4)  # Ethernet and IPv4, and the lengths of their addresses.
_REQUEST, _REPLY = 1, 2
_IPV6: Final = struct.Struct("!IHBB16s16s")
_NEIGHBOUR: Final = struct.Struct("!BBHI16s")
"""Type, code, checksum, flags, target; the same for a solicitation and an advertisement."""
_HOP_LIMIT: Final = 255
"""Routers lower it, so a message with this value comes from the link itself (RFC 4861, 3.1)."""
_OVERRIDE: Final = 0x20000000
_SOURCE_OPTION, _TARGET_OPTION = 1, 2  # Link-layer addresses.

_BROADCAST: Final = b"\xff" * 6
_NO_MAC: Final = bytes(6)
_NO_IPV4: Final = bytes(4)
_UNSPECIFIED: Final = bytes(16)
_ALL_NODES: Final = bytes.fromhex("ff020000000000000000000000000001")
_SOLICITED_NODE: Final = bytes.fromhex("ff0200000000000000000001ff")
"""The first 13 bytes of the group of an address, whose last 3 bytes follow (RFC 4291, 2.7.1)."""


class Heard(NamedTuple):
    """An address, and the link-layer address of the machine that says it has it."""

    address: str
    """In canonical form."""
    mac: str


def announcements(address: str, mac: str, link_local: str = "") -> tuple[bytes, ...]:
    """What tells all neighbours at once that an address is at `mac`.

    For IPv4 there are two forms, as some neighbours heed only one of them: an ARP request and a
    reply. `link_local` is the source of the IPv6 message; without it, that is the address itself.
    """
    if ":" in address:
        return (_advertisement(_packed(address), _packed_mac(mac), link_local),)
    sender, packed = _packed_mac(mac), _packed(address)
    return (
        _arp(_REQUEST, sender, packed, _NO_MAC, packed),
        # In a reply the target is the new link-layer address too (RFC 5944, 4.6).
        _arp(_REPLY, sender, packed, sender, packed),
    )


def probe(address: str, mac: str, link_local: str = "") -> bytes:
    """The question which machine has an address. Its answer comes to `mac`.

    The ARP probe names no address of the sender, so no cache is changed by it (RFC 5227, 1.1).
    Without `link_local`, the solicitation has no source either, and all nodes get the answer.
    """
    if ":" in address:
        return _solicitation(_packed(address), _packed_mac(mac), link_local)
    return _arp(_REQUEST, _packed_mac(mac), _NO_IPV4, _NO_MAC, _packed(address))


def parse_frame(frame: bytes) -> Heard | None:
    """What a frame says about an address; None if it says nothing, or is malformed.

    A request says who its sender is, as well as a reply. Probes say nothing, since their sender
    does not have the address yet.
    """
    if len(frame) < _ETHERNET.size:
        return None
    _, source, kind = _ETHERNET.unpack_from(frame)
    if kind == ETHERTYPE_ARP:
        return _parse_arp(frame)
    if kind == ETHERTYPE_IPV6:
        return _parse_advertisement(frame, source)
    return None


def _arp(operation: int, sender: bytes, address: bytes, target: bytes, asked: bytes) -> bytes:
    """A broadcast. Drivers pad it to the least size of Ethernet."""
    return _ETHERNET.pack(_BROADCAST, sender, ETHERTYPE_ARP) + _ARP.pack(
        *_ARP_FORM, operation, sender, address, target, asked
    )


def _advertisement(address: bytes, mac: bytes, link_local: str) -> bytes:
    """To all nodes, not solicited, and to replace what they know (Override; RFC 4861, 7.2.6)."""
    source = _packed(link_local) if link_local else address
    body = _NEIGHBOUR.pack(NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE, address)
    return _icmpv6(mac, source, _ALL_NODES, body + _option(_TARGET_OPTION, mac))


def _solicitation(address: bytes, mac: bytes, link_local: str) -> bytes:
    body = _NEIGHBOUR.pack(_NEIGHBOUR_SOLICITATION, 0, 0, 0, address)
    group = _SOLICITED_NODE + address[13:]
    if not link_local:  # The option must not be there then (RFC 4861, 4.3).
        return _icmpv6(mac, _UNSPECIFIED, group, body)
    return _icmpv6(mac, _packed(link_local), group, body + _option(_SOURCE_OPTION, mac))


def _option(kind: int, mac: bytes) -> bytes:
    return struct.pack("!BB6s", kind, 1, mac)  # Its length is in units of 8 bytes.


def _icmpv6(mac: bytes, source: bytes, group: bytes, body: bytes) -> bytes:
    pseudo_header = source + group + struct.pack("!II", len(body), ICMPV6)
    sum_ = _checksum(pseudo_header + body)
    body = body[:2] + struct.pack("!H", sum_) + body[4:]
    return b"".join(
        (
            _ETHERNET.pack(b"\x33\x33" + group[12:], mac, ETHERTYPE_IPV6),  # RFC 2464, 7.
            _IPV6.pack(6 << 28, len(body), ICMPV6, _HOP_LIMIT, source, group),
            body,
        )
    )


def _checksum(data: bytes) -> int:
    """The complement of the one's complement sum (RFC 1071); right if the sum of all is 0."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _parse_arp(frame: bytes) -> Heard | None:
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    *form, operation, sender, address, _, _ = _ARP.unpack_from(frame, _ETHERNET.size)
    if tuple(form) != _ARP_FORM or operation not in (_REQUEST, _REPLY) or address == _NO_IPV4:
        return None
    return _heard(socket.AF_INET, address, sender)


def _parse_advertisement(frame: bytes, source: bytes) -> Heard | None:
    start = _ETHERNET.size + _IPV6.size
    if len(frame) < start + _NEIGHBOUR.size:
        return None
    first, length, header, hops, sender, receiver = _IPV6.unpack_from(frame, _ETHERNET.size)
    body = frame[start : start + length]
    if first >> 28 != 6 or header != ICMPV6 or hops != _HOP_LIMIT or len(body) < length:
        return None
    if length < _NEIGHBOUR.size:
        return None
    kind, code, _, _, target = _NEIGHBOUR.unpack_from(body)
    if kind != NEIGHBOUR_ADVERTISEMENT or code or target[0] == 0xFF:
        return None
    if _checksum(sender + receiver + struct.pack("!II", length, ICMPV6) + body):
        return None
    mac = _target_mac(body[_NEIGHBOUR.size :])
    # An answer to a unicast question may leave the option out (RFC 4861, 4.4).
    return None if mac is None else _heard(socket.AF_INET6, target, mac or source)


def _target_mac(options: bytes) -> bytes | None:
    """The link-layer address in the options of an advertisement, b"" if there is none; None if the
    options are malformed."""
    while options:
        size = options[1] * 8 if len(options) >= 2 else 0
        if not size or size > len(options):
            return None
        if options[0] == _TARGET_OPTION and size == 8:
            return options[2:8]
        options = options[size:]
    return b""


def _heard(family: socket.AddressFamily, address: bytes, mac: bytes) -> Heard | None:
    if mac[0] & 1 or mac == _NO_MAC:  # A group of machines, or none, cannot have an address.
        return None
    return Heard(socket.inet_ntop(family, address), mac.hex(":"))


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _packed_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
