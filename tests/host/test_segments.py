"""Which interfaces are segments, by what the kernel says of them."""

from __future__ import annotations

import pytest

from uproxy.host import netlink
from uproxy.host.segments import Segment, parse_link

UP, POINT_TO_POINT, RUNNING, NO_ARP, LOWER_UP, LOOPBACK = 0x1, 0x10, 0x40, 0x80, 0x10000, 0x8
USUAL = UP | RUNNING | LOWER_UP
ETHERNET, TUNNEL = 1, 768
MAC = bytes.fromhex("02005e100001")


def link(
    flags: int = USUAL, *, hardware: int = ETHERNET, mac: bytes = MAC, port_of: bytes = b""
) -> memoryview:
    body = netlink.LINK.pack(0, 0, hardware, 7, flags, 0)
    body += netlink.attribute(3, b"eth0\0").ljust(12, b"\0") + netlink.attribute(1, mac)
    body = body.ljust(len(body) + -len(body) % 4, b"\0")
    if port_of:
        body += netlink.attribute(18, netlink.attribute(4, port_of + b"\0"))
    return memoryview(body)


def parsed(message: memoryview) -> Segment | None:
    found = parse_link(message, {})
    assert found is None or found[0] == "eth0"
    return found[1] if found else None


def test_a_usual_one() -> None:
    expected = Segment(index=7, mac="02:00:5e:10:00:01", carrier=True)
    assert parsed(link()) == expected
    assert expected.arp


@pytest.mark.parametrize("lacking", [UP, RUNNING, LOWER_UP])
def test_without_any_of_these_it_has_no_carrier(lacking: int) -> None:
    found = parsed(link(USUAL & ~lacking))
    assert found is not None
    assert not found.carrier


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(link(USUAL | NO_ARP), id="dummy"),
        pytest.param(link(USUAL | POINT_TO_POINT), id="point to point"),
        pytest.param(link(hardware=TUNNEL, mac=b"\xc0\0\x02\x01"), id="tunnel"),
        pytest.param(link(mac=bytes(20)), id="InfiniBand"),
    ],
)
def test_without_arp(message: memoryview) -> None:
    found = parsed(message)
    assert found is not None
    assert not found.arp


@pytest.mark.parametrize("master", [b"bridge", b"bond", b"team", b"ovs-system"])
def test_a_port_is_none(master: bytes) -> None:
    assert parsed(link(port_of=master)) is None


def test_in_a_vrf_it_is_one() -> None:
    assert parsed(link(port_of=b"vrf")) is not None


def test_loopback_is_none() -> None:
    assert parsed(link(USUAL | LOOPBACK, mac=bytes(6))) is None
