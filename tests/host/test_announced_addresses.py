"""Which addresses are taken for ours, by what the kernel says of them."""

from __future__ import annotations

import socket
import struct
from typing import Final

import pytest

from uproxy.host import netlink
from uproxy.host.announced_addresses import is_ours

NO_PREFIX_ROUTE: Final = 0x200
FOREVER: Final = 0xFFFFFFFF


def message(
    address: str = "192.0.2.7",
    *,
    length: int | None = None,
    flags: int = NO_PREFIX_ROUTE,
    preferred: int = 0,
    valid: int = 2,
    protocol: int | None = 117,
) -> memoryview:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    head = netlink.ADDRESS.pack(family, length or len(packed) * 8, 0, 0, 2)
    body = head + netlink.attribute(1, packed)
    body += netlink.attribute(8, struct.pack("=I", flags))
    body += netlink.attribute(6, struct.pack("=IIII", preferred, valid, 0, 0))
    if protocol is not None:
        body += netlink.attribute(11, bytes((protocol,)))
    return memoryview(body)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_ours(address: str) -> None:
    assert is_ours(message(address))
    assert is_ours(message(address, valid=600)), "whatever its lifetime"
    assert is_ours(message(address, protocol=None)), "before Linux 5.18"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(message(protocol=4), id="another program's"),
        pytest.param(message(protocol=None, valid=4), id="before 5.18, for longer than ours"),
        pytest.param(message(length=24), id="of a subnet"),
        pytest.param(message(valid=FOREVER), id="for ever"),
        pytest.param(message(preferred=1), id="a source"),
        pytest.param(message(flags=0), id="with a route of its subnet"),
        pytest.param(message("2001:db8::7", length=64), id="of an IPv6 subnet"),
    ],
)
def test_others(other: memoryview) -> None:
    assert not is_ours(other)


def test_without_the_attributes_it_is_none() -> None:
    bare = netlink.ADDRESS.pack(socket.AF_INET, 32, 0, 0, 2)
    assert not is_ours(memoryview(bare))
    assert not is_ours(memoryview(bare + netlink.attribute(1, bytes(4))))
