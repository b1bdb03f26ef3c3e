"""Which addresses have to be claimed."""

from __future__ import annotations

import msgspec
import pytest

from uproxy.core.route import Announced, Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.core.routing.vips import Vips, may_be_claimed, needs_claim

WEB, METRICS = Frontend("TCP", "203.0.113.7", 80), Frontend("TCP", "203.0.113.7", 81)
OTHER = Frontend("UDP", "2001:db8::7", 53)


def route(frontend: Frontend, kind: FrontendKind = FrontendKind.CLUSTER_IP) -> Route:
    owner = ServicePortName("default", "web", "", frontend.protocol)
    return Route(frontend=frontend, owner=owner, kind=kind, backends=(Backend("10.0.0.1", 80),))


def routes(*frontends: Frontend) -> dict[Frontend, Route]:
    return {each: route(each) for each in frontends}


@pytest.mark.parametrize(
    ("address", "kind", "expected"),
    [
        pytest.param("203.0.113.7", FrontendKind.CLUSTER_IP, True, id="cluster IP"),
        pytest.param("203.0.113.7", FrontendKind.EXTERNAL_IP, True, id="external IP, as allowed"),
        pytest.param("203.0.113.7", FrontendKind.LOAD_BALANCER_IP, True, id="load-balancer IP"),
        pytest.param("2001:db8::7", FrontendKind.CLUSTER_IP, True, id="IPv6"),
        pytest.param("203.0.113.7", FrontendKind.NODE_PORT, False, id="NodePort: never"),
        pytest.param("192.0.2.1", FrontendKind.EXTERNAL_IP, False, id="an interface has it"),
        pytest.param("127.10.0.1", FrontendKind.CLUSTER_IP, False, id="loopback"),
    ],
)
def test_needs_claim(address: str, kind: FrontendKind, expected: bool) -> None:
    assert needs_claim(route(Frontend("TCP", address, 80), kind), {"192.0.2.1"}) is expected


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1", "169.254.1.1", "255.255.255.255", "::1"],
)
def test_what_is_not_one_hosts_address(address: str) -> None:
    assert not may_be_claimed(address)


class TestVips:
    def test_frontends_share_an_address(self) -> None:
        vips = Vips()
        assert vips.update([WEB, METRICS, OTHER], routes(WEB, METRICS, OTHER), ()) == {
            WEB,
            METRICS,
            OTHER,
        }
        assert vips.frontends == {"203.0.113.7": {WEB, METRICS}, "2001:db8::7": {OTHER}}
        assert vips.update([WEB], routes(METRICS, OTHER), ()) == {WEB}
        assert vips.frontends == {"203.0.113.7": {METRICS}, "2001:db8::7": {OTHER}}
        vips.update([METRICS], routes(OTHER), ())
        assert vips.frontends == {"2001:db8::7": {OTHER}}

    def test_only_the_given_frontends_are_looked_at(self) -> None:
        vips = Vips()
        vips.update([WEB], routes(WEB, OTHER), ())
        assert vips.frontends == {"203.0.113.7": {WEB}}

    def test_an_address_that_is_announced_is_not_claimed_for_any_frontend(self) -> None:
        """Every node that claimed it would answer ARP for it."""
        vips = Vips()
        plain = routes(WEB, METRICS, OTHER)
        announced = plain | {WEB: msgspec.structs.replace(plain[WEB], announced=Announced.L2)}
        vips.update(plain, plain, ())
        assert vips.update([WEB], announced, ()) == {WEB, METRICS}
        assert vips.frontends == {"2001:db8::7": {OTHER}}
        assert vips.update([METRICS], announced, ()) == set()
        assert vips.update([WEB], routes(METRICS, OTHER), ()) == {METRICS}
        assert vips.frontends == {"203.0.113.7": {METRICS}, "2001:db8::7": {OTHER}}

    def test_a_frontend_that_goes_while_another_one_is_announced_is_forgotten(self) -> None:
        vips = Vips()
        announced = {WEB: msgspec.structs.replace(route(WEB), announced=Announced.L2)}
        both = announced | routes(METRICS)
        assert vips.update(both, both, ()) == {METRICS}
        assert vips.update([METRICS], announced, ()) == {METRICS}
        assert vips.update([WEB], {}, ()) == set()
        assert vips.frontends == {}

    def test_what_routes_announce_needs_no_claim_without_a_backend(self) -> None:
        vips = Vips()
        usable = {WEB: msgspec.structs.replace(route(WEB), announced=Announced.ROUTES)}
        empty = {WEB: msgspec.structs.replace(usable[WEB], backends=())}
        assert vips.update([WEB], empty, ()) == set()
        assert vips.update([WEB], usable, ()) == {WEB}
        assert vips.update([WEB], empty, ()) == {WEB}

    def test_an_interface_gets_the_address_and_loses_it(self) -> None:
        vips = Vips()
        wanted = routes(WEB, OTHER)
        vips.update(wanted, wanted, ())
        assert vips.update(wanted, wanted, {"203.0.113.7"}) == {WEB}
        assert vips.frontends == {"2001:db8::7": {OTHER}}
        assert vips.update(wanted, wanted, ()) == {WEB}
        assert vips.update(wanted, wanted, ()) == set()
