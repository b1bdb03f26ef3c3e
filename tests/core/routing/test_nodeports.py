"""--nodeport-addresses: kube-proxy's TestGetNodeIPs, and the keywords."""

from __future__ import annotations

import pytest

from uproxy.core.routing.nodeports import resolve_nodeport_addresses

INTERFACES = ("127.0.0.1", "::1", "10.20.30.51", "100.200.201.1", "2001:db8::1")
NODE = ("10.20.30.51", "100.200.201.1", "2001:db8::1")
ALL4, ALL6 = "0.0.0.0", "::"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([], {ALL4, ALL6}, id="nothing: all"),
        pytest.param(["10.20.30.0/24"], {"10.20.30.51", ALL6}, id="CIDR; IPv6 has none: all"),
        pytest.param(["0.0.0.0/0"], {ALL4, ALL6}, id="zero CIDR"),
        pytest.param(["2001:db8::/64", "::1/128"], {"2001:db8::1", "::1", ALL4}, id="IPv6 CIDRs"),
        pytest.param(["::/0"], {ALL6, ALL4}, id="zero CIDR of IPv6"),
        pytest.param(["127.0.0.1/32"], {"127.0.0.1", ALL6}, id="loopback alone"),
        pytest.param(
            ["10.20.30.0/24", "100.200.201.0/24"],
            {"10.20.30.51", "100.200.201.1", ALL6},
            id="two CIDRs",
        ),
        pytest.param(["10.20.30.0/24", "10.20.0.0/16"], {"10.20.30.51", ALL6}, id="overlapping"),
        pytest.param(["192.0.2.0/24"], {ALL6}, id="no match: none of that family, no error"),
        pytest.param(["1.2.3.0/24", "0.0.0.0/0"], {ALL4, ALL6}, id="a zero CIDR outdoes others"),
        pytest.param(
            ["0.0.0.0/0", "1.2.3.0/24", "2001:db8::1/128"],
            {ALL4, "2001:db8::1"},
            id="dual stack, all of IPv4",
        ),
        pytest.param(
            ["::/0", "10.20.30.0/24"], {"10.20.30.51", ALL6}, id="dual stack, all of IPv6"
        ),
        pytest.param([" 10.20.30.000/024 "], {"10.20.30.51", ALL6}, id="as the API server parses"),
        pytest.param(
            ["primary"], {"10.20.30.51", "2001:db8::1"}, id="primary: first of each family"
        ),
        pytest.param(["localhost"], {"127.0.0.1", "::1"}, id="localhost"),
        pytest.param(["all"], {ALL4, ALL6}, id="all"),
        pytest.param(["all", "primary", "10.20.30.0/24"], {ALL4, ALL6}, id="all outdoes the rest"),
        pytest.param(
            ["primary", "localhost"],
            {"10.20.30.51", "2001:db8::1", "127.0.0.1", "::1"},
            id="primary and localhost",
        ),
        pytest.param(
            ["primary", "100.200.0.0/16"],
            {"10.20.30.51", "100.200.201.1", "2001:db8::1"},
            id="primary with a CIDR: the keyword speaks for IPv6 too",
        ),
        pytest.param(["localhost", "::/0"], {"127.0.0.1", ALL6}, id="localhost with all of IPv6"),
    ],
)
def test_resolve(entries: list[str], expected: set[str]) -> None:
    resolved = resolve_nodeport_addresses(entries, INTERFACES, NODE)
    assert set(resolved) == expected
    assert len(resolved) == len(expected)


def test_a_loopback_address_of_its_own() -> None:
    assert resolve_nodeport_addresses(["127.0.0.0/8"], ["127.0.1.1"], []) == ("127.0.1.1", "::")


def test_without_ipv6_localhost_is_ipv4_alone() -> None:
    assert resolve_nodeport_addresses(["localhost"], ["127.0.0.1"], []) == ("127.0.0.1",)


def test_primary_of_a_node_that_is_not_known_yet() -> None:
    assert resolve_nodeport_addresses(["primary"], INTERFACES, []) == ()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param(
            "10.20.30.51",
            '"10.20.30.51" is not a network: did you mean 10.20.30.51/32?',
            id="address",
        ),
        pytest.param("::1", '"::1" is not a network: did you mean ::1/128?', id="IPv6 address"),
        pytest.param(
            "Primary",
            '"Primary" is not a network: expected a CIDR such as 192.0.2.0/24,'
            " or primary, localhost or all",
            id="unknown word",
        ),
        pytest.param(
            "10.0.0.0/33",
            '"10.0.0.0/33" is not a network: expected a CIDR such as 192.0.2.0/24,'
            " or primary, localhost or all",
            id="prefix too long",
        ),
    ],
)
def test_invalid_entries(entry: str, message: str) -> None:
    with pytest.raises(ValueError, match="is not a network") as caught:
        resolve_nodeport_addresses(["all", entry], INTERFACES, NODE)
    assert str(caught.value) == message
