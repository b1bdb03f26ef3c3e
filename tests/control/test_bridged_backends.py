"""Which backends are behind a bridge of this node, while Services come, change and go."""

from __future__ import annotations

import msgspec
import pytest

from tests.builders import endpoint_slice, local, port, service, table
from uproxy.control.bridged_backends import BridgedBackends
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import Backend
from uproxy.core.routing.service_routes import ServiceRoutes
from uproxy.host.pod_networks import Segment

WEB, API = ObjectName("default", "web"), ObjectName("default", "api")
MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
SEGMENT = Segment("10.244.1.0/24", 3, "cni0", MAC)
SEGMENT6 = Segment("fd00:1::/64", 3, "cni0", MAC)
NO_BRIDGE = Segment("10.244.5.0/24", 4, "ovs0", "")
A, B = Backend("10.244.1.2", 80), Backend("10.244.1.3", 80)


def wanted(name: str, *addresses: str, mode: str = "auto") -> ServiceRoutes:
    family = "IPv6" if addresses and ":" in addresses[0] else "IPv4"
    found = table(
        service(
            name,
            port(80),
            ip="fd00::1" if family == "IPv6" else "10.96.0.1",
            annotations={"uproxy.dev/preserve-client-ip": mode},
        ),
        endpoint_slice(name, *map(local, addresses), family=family, ports={"": 80}),
    )
    return found.services[ObjectName("default", name)]


@pytest.fixture
def backends() -> BridgedBackends:
    made = BridgedBackends()
    made.set_segments([SEGMENT, SEGMENT6, NO_BRIDGE])
    return made


def test_only_those_behind_a_bridge(backends: BridgedBackends) -> None:
    services = {
        WEB: wanted("web", "10.244.1.2", "10.244.2.2", "10.244.5.2", "192.0.2.1"),
        API: wanted("api", "fd00:1::5", "fd00:2::5"),
    }
    assert backends.update(services)
    assert backends.diverted() == {A: MAC, Backend("fd00:1::5", 80): MAC}


def test_not_of_services_that_do_not_show_pods(backends: BridgedBackends) -> None:
    assert not backends.update({WEB: wanted("web", "10.244.1.2", mode="local")})
    assert backends.diverted() == {}


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("::ffff:10.244.1.2", id="IPv4-mapped"),
        pytest.param("10.244.1.2; flush ruleset", id="text for nft"),
        pytest.param("010.244.1.2", id="leading zero"),
        pytest.param("fe80::1%eth0", id="zone"),
        pytest.param("", id="nothing"),
        pytest.param("10.244.1.2\n", id="line end"),
        pytest.param("10.244.1.2\0", id="null"),
    ],
)
def test_what_is_no_address_never_gets_to_nft(backends: BridgedBackends, address: str) -> None:
    """Not even if `derive` let it through, which it does not."""
    backends.update({WEB: with_backend(Backend(address, 80))})
    assert backends.diverted() == {}


@pytest.mark.parametrize("number", [0, -1, 65536])
def test_nor_what_is_no_port(backends: BridgedBackends, number: int) -> None:
    backends.update({WEB: with_backend(Backend("10.244.1.2", number))})
    assert backends.diverted() == {}


def test_an_unchanged_service_is_not_looked_at(
    backends: BridgedBackends, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {ObjectName("default", f"s{i}"): wanted(f"s{i}", "10.244.1.9") for i in range(9)}
    backends.update({**many, WEB: wanted("web", "10.244.1.2")})
    looked_at = []
    put = BridgedBackends._put

    def recorded(self: BridgedBackends, name: ObjectName, found: ServiceRoutes | None) -> bool:
        looked_at.append(name)
        return put(self, name, found)

    monkeypatch.setattr(BridgedBackends, "_put", recorded)
    assert backends.update({**many, WEB: wanted("web", "10.244.1.2", "10.244.1.3")})
    assert looked_at == [WEB]
    assert backends.diverted().keys() == {A, B, Backend("10.244.1.9", 80)}


def test_a_backend_of_two_services_stays_as_long_as_one_has_it(backends: BridgedBackends) -> None:
    both = {WEB: wanted("web", "10.244.1.2"), API: wanted("api", "10.244.1.2")}
    backends.update(both)
    assert not backends.update({API: both[API]})
    backends.forget(frozenset)
    assert backends.diverted() == {A: MAC}
    backends.update({})
    forget(backends)
    assert backends.diverted() == {}


@pytest.mark.parametrize("with_flows", [WEB, API])
def test_a_backend_that_has_left_two_services_stays_as_long_as_either_has_flows(
    backends: BridgedBackends, with_flows: ObjectName
) -> None:
    backends.update({WEB: wanted("web", "10.244.1.2"), API: wanted("api", "10.244.1.2")})
    backends.update({API: wanted("api", "10.244.1.2")})
    backends.update({})
    forget(backends, with_flows)
    assert backends.diverted() == {A: MAC}
    backends.set_segments([Segment("10.244.1.0/24", 9, "cni0", OTHER_MAC)])
    forget(backends, with_flows)
    assert backends.diverted() == {A: OTHER_MAC}
    forget(backends)
    assert backends.diverted() == {}


def test_a_backend_stays_until_workers_have_reported_the_flows_that_it_got_last(
    backends: BridgedBackends,
) -> None:
    backends.update({WEB: wanted("web", "10.244.1.2")})
    backends.update({})
    backends.forget(frozenset)
    assert backends.diverted() == {A: MAC}
    backends.forget(lambda: frozenset([WEB]))
    assert backends.diverted() == {A: MAC}


def forget(backends: BridgedBackends, *with_flows: ObjectName) -> None:
    """What has left its Service by now, and is in no Service that has flows, is gone."""
    for _ in range(2):
        backends.forget(lambda: frozenset(with_flows))


def test_a_backend_that_has_left_stays_as_long_as_its_service_has_flows(
    backends: BridgedBackends,
) -> None:
    backends.update({WEB: wanted("web", "10.244.1.2", "10.244.1.3")})
    assert not backends.update({WEB: wanted("web", "10.244.1.3")})
    forget(backends, WEB)
    assert backends.diverted() == {A: MAC, B: MAC}
    forget(backends, API)
    assert backends.diverted() == {B: MAC}


def test_one_that_comes_back_is_a_backend_again(backends: BridgedBackends) -> None:
    backends.update({WEB: wanted("web", "10.244.1.2")})
    backends.update({WEB: wanted("web", "10.244.1.3")})
    assert backends.update({WEB: wanted("web", "10.244.1.2")})
    forget(backends)
    assert backends.diverted() == {A: MAC}


def test_those_that_have_left_are_bounded(
    backends: BridgedBackends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uproxy.control.bridged_backends._MOST_FORMER", 2)
    backends.update({WEB: wanted("web", *(f"10.244.1.{number}" for number in range(2, 9)))})
    backends.update({WEB: wanted("web", "10.244.1.8")})
    backends.forget(lambda: frozenset([WEB]))
    assert len(backends.diverted()) == 3


def test_another_bridge(backends: BridgedBackends) -> None:
    """Created again, or with another address; a network that is gone takes its backends along."""
    backends.update({WEB: wanted("web", "10.244.1.2"), API: wanted("api", "fd00:1::5")})
    backends.set_segments([Segment("10.244.1.0/24", 9, "cni0", OTHER_MAC)])
    assert backends.diverted() == {A: OTHER_MAC}
    backends.set_segments([])
    assert backends.diverted() == {}
    backends.set_segments([SEGMENT6])
    assert backends.diverted() == {Backend("fd00:1::5", 80): MAC}


def test_many_endpoints(backends: BridgedBackends) -> None:
    """Most of them on other nodes."""
    addresses = [f"10.244.{high}.{low}" for high in range(40) for low in range(1, 251)]
    backends.update({WEB: wanted("web", *addresses)})
    assert len(backends.diverted()) == 250


def with_backend(backend: Backend) -> ServiceRoutes:
    """What no Service can want."""
    found = wanted("web", "10.244.1.2")
    routes = [msgspec.structs.replace(each, backends=(backend,)) for each in found.routes]
    return ServiceRoutes(service=WEB, routes=tuple(routes))
