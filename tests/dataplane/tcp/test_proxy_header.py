"""The bytes of PROXY headers."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dataplane.tcp.proxy_header import V1, V2, Decoded, decode
from uproxy.core.route import ProxyProtocol
from uproxy.dataplane.tcp.proxy_protocol import SIGNATURE, End, header, header_without_client

FULL = "ffff:" * 7 + "ffff"


class TestBytes:
    @pytest.mark.parametrize(
        ("version", "client", "server", "expected"),
        [
            pytest.param(
                V1,
                ("192.168.0.1", 56324),
                ("192.168.0.11", 443),
                b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                id="v1: the specification's example",
            ),
            pytest.param(
                V1,
                ("255.255.255.255", 65535),
                ("255.255.255.255", 65535),
                b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                id="v1: the longest with IPv4",
            ),
            pytest.param(
                V1,
                (FULL, 65535),
                (FULL, 65535),
                f"PROXY TCP6 {FULL} {FULL} 65535 65535\r\n".encode(),
                id="v1: the longest with IPv6",
            ),
            pytest.param(
                V1,
                ("2001:db8::1", 1),
                ("::1", 80),
                b"PROXY TCP6 2001:db8::1 ::1 1 80\r\n",
                id="v1: IPv6 abbreviated",
            ),
            pytest.param(
                V2,
                ("192.0.2.1", 0x1234),
                ("198.51.100.2", 443),
                SIGNATURE + bytes.fromhex("21 11 000c c0000201 c6336402 1234 01bb"),
                id="v2: IPv4",
            ),
            pytest.param(
                V2,
                ("2001:db8::1", 1),
                ("::1", 65535),
                SIGNATURE
                + bytes.fromhex("21 21 0024 20010db8 00000000 00000000 00000001")
                + bytes.fromhex("00000000 00000000 00000000 00000001 0001 ffff"),
                id="v2: IPv6",
            ),
        ],
    )
    def test_header(
        self, version: ProxyProtocol, client: End, server: End, expected: bytes
    ) -> None:
        assert header(version, client, server) == expected

    def test_lengths_of_the_specification(self) -> None:
        longest = {
            (V1, "255.255.255.255"): 56,
            (V1, FULL): 104,
            (V2, "255.255.255.255"): 16 + 12,
            (V2, FULL): 16 + 36,
        }
        for (version, address), length in longest.items():
            assert len(header(version, (address, 65535), (address, 65535))) == length

    @pytest.mark.parametrize(
        ("version", "expected"),
        [
            pytest.param(V1, b"PROXY UNKNOWN\r\n", id="v1"),
            pytest.param(V2, SIGNATURE + b"\x20\x00\x00\x00", id="v2"),
        ],
    )
    def test_without_client(self, version: ProxyProtocol, expected: bytes) -> None:
        assert header_without_client(version) == expected
        assert decode(version, expected + b"x") == Decoded(None, None, b"x")

    @given(
        version=st.sampled_from(ProxyProtocol),
        addresses=st.one_of(
            st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
            st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
        ),
        ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
        rest=st.binary(max_size=40),
    )
    def test_round_trip(
        self,
        version: ProxyProtocol,
        addresses: tuple[Any, Any],
        ports: tuple[int, int],
        rest: bytes,
    ) -> None:
        family = socket.AF_INET if addresses[0].version == 4 else socket.AF_INET6
        # As the kernel spells them; Python's ipaddress differs in ::ffff:0.0.0.1.
        texts = [socket.inet_ntop(family, each.packed) for each in addresses]
        client, server = (texts[0], ports[0]), (texts[1], ports[1])
        found = decode(version, header(version, client, server) + rest)
        assert found == Decoded(client, server, rest)
