"""Values as people write them: what is understood, and what is said about the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uproxy.config import syntax
from uproxy.config.settings import Address


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("30s", 30.0, id="seconds"),
        pytest.param("1m30s", 90.0, id="two-units"),
        pytest.param("250ms", 0.25, id="milliseconds"),
        pytest.param("1.5h", 5400.0, id="fraction"),
        pytest.param(".5s", 0.5, id="no-digit-before-the-point"),
        pytest.param("0", 0.0, id="zero-without-a-unit"),
        pytest.param("0s", 0.0, id="zero"),
        pytest.param("+1s", 1.0, id="sign"),
        pytest.param("2us", 2e-6, id="microseconds"),
        pytest.param("2µs", 2e-6, id="micro-sign"),
        pytest.param("1h0m0.5s", 3600.5, id="as-go-prints-it"),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert syntax.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86400.0, "24h"), (120.0, "2m"), (90.0, "90s"), (1.5, "1.5s"), (0.01, "10ms"), (0.0, "0")],
)
def test_durations_are_written_shortly(seconds: float, text: str) -> None:
    assert syntax.format_duration(seconds) == text
    assert syntax.parse_duration(text) == seconds


@given(st.floats(1e-9, 9e9) | st.integers(1, 2_000_000).map(lambda hours: hours * 3600.0))
@example(1234567.0)
@example(1e-9)
def test_any_duration_that_is_written_can_be_read(seconds: float) -> None:
    """A number with an exponent, such as 1.23457e+06s, cannot."""
    text = syntax.format_duration(seconds)
    assert syntax.positive_duration(text) == pytest.approx(seconds, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("127.0.0.1:10249", Address("127.0.0.1", 10249), id="ipv4"),
        pytest.param("[::]:10256", Address("::", 10256), id="ipv6"),
        pytest.param("0.0.0.0", Address("0.0.0.0", 1), id="ipv4-without-port"),
        pytest.param("::1", Address("::1", 1), id="ipv6-without-port"),
        pytest.param("[::1]", Address("::1", 1), id="brackets-without-port"),
        pytest.param("010.0.0.1:80", Address("10.0.0.1", 80), id="leading-zero-is-decimal"),
        pytest.param("", None, id="off"),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    assert syntax.parse_address(text, 1) == address


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        pytest.param("192.0.2.1", ("192.0.2.1:6443",), id="default-port"),
        pytest.param("192.0.2.1:443,192.0.2.2", ("192.0.2.1:443", "192.0.2.2:6443"), id="list"),
        pytest.param("2001:DB8::1", ("[2001:db8::1]:6443",), id="ipv6"),
        pytest.param("[2001:db8::1]:443", ("[2001:db8::1]:443",), id="ipv6-with-port"),
        pytest.param("API.example:0443", ("api.example:443",), id="name"),
        pytest.param("fd00::10:1", ("[fd00::10:1]:6443",), id="ipv6-that-ends-in-digits"),
        pytest.param("1:2:3:4:5:6:7:6443", ("[1:2:3:4:5:6:7:6443]:6443",), id="ipv6-in-full"),
        pytest.param("API.example.", ("api.example.:6443",), id="fully-qualified"),
        pytest.param("kind-control-plane", ("kind-control-plane:6443",), id="short-name"),
        pytest.param(" , ", (), id="none"),
    ],
)
def test_server_addresses(text: str, addresses: tuple[str, ...]) -> None:
    assert syntax.parse_server_addresses(text) == addresses


@pytest.mark.parametrize(
    "text",
    [
        "https://192.0.2.1:6443",
        "192.0.2.256",
        "192.0.2:1",
        "[name]:1",
        "[::1",
        "a b",
        "me@host",
        "ho_st",
        "-host",
        "host-.example",
        "a..b",
        "",
    ],
)
def test_what_is_no_server_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST or HOST:PORT; give for example"):
        syntax.parse_server_address(text)


def test_an_ipv6_address_that_seems_to_have_a_port() -> None:
    with pytest.raises(
        ValueError, match=r"an IPv6 address, or one with a port; give \[::1\]:6443,"
    ):
        syntax.parse_server_address("::1:6443")


@pytest.mark.parametrize("port", ["", "0", "65536", "x", "-1", "99999999999"])
def test_what_is_no_port_of_a_server(port: str) -> None:
    with pytest.raises(ValueError, match="has no valid port; give 1 to 65535"):
        syntax.parse_server_address(f"192.0.2.1:{port}")


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        pytest.param(
            syntax.parse_duration, "10", '"10" has no unit; give 10s for seconds', id="no-unit"
        ),
        pytest.param(
            syntax.parse_duration,
            "soon",
            '"soon" is not a duration; give for example 30s, 1m30s or 250ms',
            id="no-duration",
        ),
        pytest.param(
            syntax.parse_duration, "1s2", '"1s2" is not a duration; ', id="rest-without-unit"
        ),
        pytest.param(syntax.parse_duration, "", '"" is not a duration; ', id="empty-duration"),
        pytest.param(
            syntax.parse_duration, "-1s", '"-1s" is negative; give 0 or more', id="negative"
        ),
        pytest.param(
            syntax.positive_duration, "0s", '"0s" is zero; give more, for example 30s', id="zero"
        ),
        pytest.param(
            syntax.parse_address, "10.10.10.10", '"10.10.10.10" is not IP:port; ', id="no-port"
        ),
        pytest.param(
            syntax.parse_address,
            "123.456.789.10:12345",
            '"123.456.789.10:12345" has no valid IP address; ',
            id="ip",
        ),
        pytest.param(syntax.parse_address, ":10256", "has no valid IP address", id="no-host"),
        pytest.param(syntax.parse_address, "localhost:1", "has no valid IP address", id="name"),
        pytest.param(syntax.parse_address, "[::1", "has no valid IP address", id="bracket"),
        pytest.param(syntax.parse_address, "[::1]1", "has no valid IP address", id="no-colon"),
        pytest.param(syntax.parse_address, "1.2.3.4:foo", "has no valid port; give", id="port"),
        pytest.param(syntax.parse_address, "1.2.3.4:0", "has no valid port; give", id="port-0"),
        pytest.param(syntax.parse_address, "1.2.3.4:", "has no valid port; give", id="empty-port"),
        pytest.param(
            syntax.parse_address, "1.2.3.4:65536", "has no valid port; give", id="port-too-big"
        ),
        pytest.param(
            syntax.parse_networks,
            "10.0.0.0/8,foo",
            '"foo" is not a CIDR; give for example 10.0.0.0/8 or fd00::/8',
            id="network",
        ),
        pytest.param(
            syntax.parse_nodeport_addresses,
            "::1",
            '"::1" is not a CIDR, primary, localhost or all; give ::1/128 for one address',
            id="nodeport-ipv6",
        ),
        pytest.param(
            syntax.parse_nodeport_addresses, "10.20.30.40", "give 10.20.30.40/32", id="nodeport-ip"
        ),
        pytest.param(syntax.parse_nodeport_addresses, "1.2.3", "is not a CIDR", id="nodeport-part"),
        pytest.param(syntax.parse_nodeport_addresses, "0", "is not a CIDR", id="nodeport-number"),
        pytest.param(
            syntax.parse_cluster_cidr,
            "10.0.0.0/8,11.0.0.0/8",
            "has two IPv4 CIDRs; give one of each family",
            id="two-of-one-family",
        ),
        pytest.param(
            syntax.parse_cluster_cidr,
            "10.0.0.0/8,fd00::/8,fd01::/16",
            "has 3 CIDRs; give one, or one of each family",
            id="three-networks",
        ),
        pytest.param(
            syntax.parse_boolean, "maybe", '"maybe" is neither true nor false', id="boolean"
        ),
        pytest.param(
            lambda text: syntax.parse_choice(text, ["text", "json"]),
            "jsn",
            '"jsn" is not text or json; did you mean json?',
            id="choice",
        ),
        pytest.param(
            lambda text: syntax.parse_whole_number(text, 1, 64, "2"),
            "1.5",
            '"1.5" is not a whole number; give 1 to 64, for example 2',
            id="whole-number",
        ),
        pytest.param(
            lambda text: syntax.parse_whole_number(text, 1, 64, "2"),
            "65",
            '"65" is out of range; give 1 to 64, for example 2',
            id="range",
        ),
        pytest.param(
            lambda text: syntax.parse_whole_number(text, 1, 64, "2"),
            "9" * 5000,
            "is not a whole number",
            id="more-digits-than-python-converts",
        ),
    ],
)
def test_what_is_refused(parse: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"give|neither|mean") as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_become_canonical() -> None:
    found = syntax.parse_networks(" 10.1.2.3/8, FD00::1/8 ,,")
    assert found == ("10.0.0.0/8", "fd00::/8")


def test_nodeport_keywords_mix_with_networks() -> None:
    found = syntax.parse_nodeport_addresses("primary,localhost,10.0.0.0/8")
    assert found == ("primary", "localhost", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("override", "environ", "hostname", "name"),
    [
        pytest.param("A ", {"NODE_NAME": "b"}, "c", "a", id="flag"),
        pytest.param("", {"NODE_NAME": " B"}, "c", "b", id="variable"),
        pytest.param("", {"NODE_NAME": " "}, "C.example.com", "c.example.com", id="hostname"),
    ],
)
def test_node_name(override: str, environ: dict[str, str], hostname: str, name: str) -> None:
    assert syntax.node_name(override, environ, hostname) == name


def test_no_node_name() -> None:
    with pytest.raises(ValueError, match="--hostname-override"):
        syntax.node_name("", {}, "  ")
