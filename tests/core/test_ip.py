from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.ip import family_of, parse_ip, parse_network


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("10.0.0.1", "10.0.0.1", id="canonical IPv4"),
        pytest.param("0.0.0.0", "0.0.0.0", id="a lone zero is no leading zero"),
        pytest.param("172.30.0.041", "172.30.0.41", id="leading zero is decimal, not octal"),
        pytest.param("010.180.00.001", "10.180.0.1", id="leading zeros in every octet"),
        pytest.param("000.000.000.000", "0.0.0.0", id="zeros only"),
        pytest.param("255.255.255.255", "255.255.255.255", id="largest octets"),
        pytest.param("256.0.0.1", None, id="octet too large"),
        pytest.param("1.2.3", None, id="three octets"),
        pytest.param("1.2.3.4.5", None, id="five octets"),
        pytest.param("0x1.2.3.4", None, id="hexadecimal octet"),
        pytest.param(" 1.2.3.4", None, id="space before"),
        pytest.param("1.2.3.4\n", None, id="newline after"),
        pytest.param("", None, id="empty"),
        pytest.param("web.example", None, id="host name"),
        pytest.param("2001:DB8:0:0::1", "2001:db8::1", id="IPv6 is compressed and lower case"),
        pytest.param("::", "::", id="unspecified IPv6"),
        pytest.param("::ffff:10.0.0.1", "10.0.0.1", id="IPv4-mapped becomes IPv4"),
        pytest.param("::ffff:010.0.0.01", "10.0.0.1", id="IPv4-mapped with leading zeros"),
        pytest.param("fe80::1%eth0", None, id="zone"),
        pytest.param("2001:db8::1::2", None, id="two gaps"),
    ],
)
def test_parse_ip(text: str, expected: str | None) -> None:
    assert parse_ip(text) == expected


@given(st.ip_addresses())
def test_canonical_form_is_stable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    once = parse_ip(str(address))
    assert once is not None
    assert parse_ip(once) == once


@given(st.lists(st.integers(0, 300), min_size=4, max_size=4))
def test_ipv4_agrees_with_the_standard_library(octets: list[int]) -> None:
    text = ".".join(map(str, octets))
    expected = text if all(octet < 256 for octet in octets) else None
    assert parse_ip(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("10.0.0.0/8", "10.0.0.0/8", id="IPv4"),
        pytest.param("10.1.2.3/8", "10.0.0.0/8", id="host bits are cut off"),
        pytest.param(" 10.1.2.0/28", "10.1.2.0/28", id="space before"),
        pytest.param("10.1.2.0/28 ", "10.1.2.0/28", id="space after"),
        pytest.param("203.0.113.000/025", "203.0.113.0/25", id="leading zeros"),
        pytest.param("::/0", "::/0", id="all of IPv6"),
        pytest.param("2001:db8::1/64", "2001:db8::/64", id="IPv6"),
        pytest.param("10.0.0.0/33", None, id="prefix too long"),
        pytest.param("10.0.0.0/-1", None, id="negative prefix"),
        pytest.param("10.0.0.0/255.0.0.0", None, id="netmask instead of prefix"),
        pytest.param("10.0.0.0/", None, id="no prefix"),
        pytest.param("10.0.0.0", None, id="address"),
        pytest.param("", None, id="empty"),
    ],
)
def test_parse_network(text: str, expected: str | None) -> None:
    network = parse_network(text)
    assert (network if network is None else str(network)) == expected


@pytest.mark.parametrize(("address", "family"), [("10.0.0.1", "IPv4"), ("::1", "IPv6")])
def test_family_of(address: str, family: str) -> None:
    assert family_of(address) == family
