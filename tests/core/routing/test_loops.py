"""The loop guard: never dial a frontend of our own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import SOURCE, cluster, endpoint_slice, local, node, port, service, table
from uproxy.core.cluster.objects import EndpointSlice, Object, ObjectName, Service
from uproxy.core.route import Frontend, Route
from uproxy.core.routing import draft
from uproxy.core.routing.build import build
from uproxy.core.routing.loops import guarded
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable

WEB = Frontend("TCP", "10.96.0.1", 80)
LOCAL = frozenset({"192.0.2.1", "2001:db8::1"})
NODE_PORT = service("np", port(80, node_port=30080), ip="10.96.0.9", type="NodePort")

BAD = "not a host address of its slice's addressType; it is left out"


def backends(route: Route) -> list[str]:
    return [str(backend) for backend in route.backends]


@pytest.mark.parametrize(
    ("other", "backend", "number", "refused"),
    [
        pytest.param(service("o", ip="10.96.0.2"), "10.96.0.2", 80, True, id="a ClusterIP"),
        pytest.param(service("o", ip="10.96.0.2"), "10.96.0.2", 81, False, id="another port"),
        pytest.param(
            service("o", port(80, protocol="UDP"), ip="10.96.0.2"),
            *("10.96.0.2", 80, False),
            id="another protocol",
        ),
        pytest.param(
            service("o", ip="10.96.0.2", external_ips=("198.51.100.7",)),
            *("198.51.100.7", 80, True),
            id="an external IP",
        ),
        pytest.param(NODE_PORT, "192.0.2.1", 30080, True, id="a NodePort on this node"),
        pytest.param(NODE_PORT, "127.0.0.5", 30080, True, id="a NodePort on loopback"),
        pytest.param(NODE_PORT, "10.96.0.9", 30080, True, id="a NodePort at a ClusterIP"),
        pytest.param(NODE_PORT, "10.96.0.8", 30080, False, id="a NodePort at an unknown address"),
        pytest.param(NODE_PORT, "192.0.2.2", 30080, False, id="a NodePort on another node"),
        pytest.param(NODE_PORT, "192.0.2.1", 30081, False, id="another port of this node"),
    ],
)
def test_a_backend_that_is_a_frontend(
    other: Service, backend: str, number: int, refused: bool
) -> None:
    slices = endpoint_slice("web", backend, "10.0.0.1", ports={"": number})
    route = table(service("web"), slices, other, local_addresses=LOCAL).routes[WEB]
    good = f"10.0.0.1:{number}"
    if refused:
        assert backends(route) == [good]
        assert route.reason == (
            f"backends that are frontends of uproxy itself are left out: {backend}:{number}"
        )
    else:
        assert backends(route) == [good, f"{backend}:{number}"]
        assert route.reason == ""


def test_a_frontend_that_is_its_own_backend_is_not_usable() -> None:
    route = table(service("web"), endpoint_slice("web", "10.96.0.1", ports={"": 80})).routes[WEB]
    assert not route.usable
    assert "10.96.0.1:80" in route.reason


def test_ipv6_wildcards_count_for_ipv6() -> None:
    other = service("o", port(80, node_port=30080), ip="fd00::9")
    mine = service("web", ip="fd00::1")
    slices = endpoint_slice("web", "2001:db8::1", "::1", family="IPv6", ports={"": 30080})
    found = table(mine, slices, other, local_addresses=LOCAL)
    assert backends(found.routes[Frontend("TCP", "fd00::1", 80)]) == []


def test_an_ipv4_wildcard_is_no_ipv6_frontend() -> None:
    mine = service("web", ip="fd00::1")
    slices = endpoint_slice("web", "::1", family="IPv6", ports={"": 30080})
    found = table(mine, slices, NODE_PORT)
    assert backends(found.routes[Frontend("TCP", "fd00::1", 80)]) == ["[::1]:30080"]


@pytest.mark.parametrize(
    ("address", "family", "usable"),
    [
        pytest.param("0.0.0.0", "IPv4", False, id="whoever connects to it"),
        pytest.param("0.1.2.3", "IPv4", False, id="this network"),
        pytest.param("::", "IPv6", False, id="the same in IPv6"),
        pytest.param("::ffff:0.0.0.0", "IPv6", False, id="the same in disguise"),
        pytest.param("224.0.0.1", "IPv4", False, id="multicast"),
        pytest.param("239.255.255.255", "IPv4", False, id="the last multicast address"),
        pytest.param("255.255.255.255", "IPv4", False, id="broadcast"),
        pytest.param("ff02::1", "IPv6", False, id="IPv6 multicast"),
        pytest.param("223.255.255.255", "IPv4", True, id="before multicast"),
        pytest.param("240.0.0.1", "IPv4", True, id="class E, which clusters use"),
        pytest.param("1.0.0.1", "IPv4", True, id="the first network"),
        pytest.param("fe80::1", "IPv6", True, id="before IPv6 multicast"),
        pytest.param("::2", "IPv6", True, id="beside the loopback address"),
    ],
)
def test_a_backend_that_is_no_single_host(address: str, family: str, usable: bool) -> None:
    mine = service("web", ip="fd00::1" if family == "IPv6" else "10.96.0.1")
    slices = endpoint_slice("web", address, family=family, ports={"": 30080})
    found = table(mine, slices, NODE_PORT)
    (route,) = (each for each in found.routes.values() if each.owner.name == "web")
    assert bool(route.backends) is usable
    (wanted,) = (each for each in found.services.values() if each.service.name == "web")
    assert wanted.reasons == (() if usable else (f'endpoint address "{address}" is {BAD}',))


class TestNodePortsOfOtherNodes:
    """NodePorts of other nodes lead to the same Services, and perhaps back to this node."""

    @pytest.mark.parametrize(
        ("backend", "number", "refused"),
        [
            pytest.param("192.0.2.2", 30080, True, id="a NodePort of another node"),
            pytest.param("192.0.2.2", 30081, False, id="no NodePort"),
            pytest.param("192.0.2.3", 30080, False, id="not a node"),
            pytest.param("192.0.2.2", 53, False, id="a NodePort of another protocol"),
        ],
    )
    def test_they_are_left_out(self, backend: str, number: int, refused: bool) -> None:
        datagrams = service("u", port(53, node_port=53, protocol="UDP"), ip="10.96.0.8")
        slices = endpoint_slice("web", backend, ports={"": number})
        other = node("node-2", addresses=["192.0.2.2", "2001:db8::2"])
        route = table(service("web"), slices, NODE_PORT, datagrams, other).routes[WEB]
        assert backends(route) == ([] if refused else [f"{backend}:{number}"])
        assert ("left out" in route.reason) is refused

    def test_whatever_addresses_our_own_node_ports_have(self) -> None:
        slices = endpoint_slice("web", "192.0.2.2", ports={"": 30080})
        other = node("node-2", addresses=["192.0.2.2"])
        found = table(
            *(service("web"), slices, NODE_PORT, other),
            local_addresses=LOCAL,
            nodeport_addresses=("192.0.2.1",),
        )
        assert backends(found.routes[WEB]) == []

    def test_whatever_the_order(self) -> None:
        slices: Object = endpoint_slice("web", "192.0.2.2", ports={"": 30080})
        mine: Object = service("web")
        other: Object = node("node-2", addresses=["192.0.2.2"])
        moved: Object = node("node-2", addresses=["192.0.2.3"])
        there = ["192.0.2.2:30080"]
        run = TestStepByStep().run
        options = RoutingOptions()
        steps = [("+", mine), ("+", slices), ("+", NODE_PORT), ("+", other), ("+", moved)]
        assert run(options, *steps) == [[], there, there, [], there]
        steps = [("+", mine), ("+", slices), ("+", other), ("+", NODE_PORT), ("-", NODE_PORT)]
        assert run(options, *steps) == [[], there, there, [], there]
        steps = [("+", NODE_PORT), ("+", other), ("+", mine), ("+", slices), ("-", other)]
        assert run(options, *steps) == [["-"], ["-"], [], [], there]


def test_node_ports_on_single_addresses_do_not_catch_others() -> None:
    slices = endpoint_slice("web", "192.0.2.1", "127.0.0.1", ports={"": 30080})
    found = table(
        *(service("web"), slices, NODE_PORT),
        local_addresses=LOCAL,
        nodeport_addresses=("127.0.0.1",),
    )
    assert backends(found.routes[WEB]) == ["192.0.2.1:30080"]


def test_local_backends_are_guarded_too_and_reasons_add_up() -> None:
    given = service("web", external_ips=("198.51.100.7",), external_traffic_policy="Local")
    slices = endpoint_slice("web", local("192.0.2.1"), "10.0.0.1", ports={"": 30080})
    found = table(given, slices, NODE_PORT, local_addresses=LOCAL)
    route = found.routes[Frontend("TCP", "198.51.100.7", 80)]
    assert (backends(route), route.local_backends) == (["10.0.0.1:30080"], ())
    inside = service("web", internal_traffic_policy="Local", external_ips=("198.51.100.7",))
    unready = endpoint_slice("web", local("10.0.0.2", ready=False), "192.0.2.1", ports={"": 30080})
    found = table(inside, unready, NODE_PORT, local_addresses=LOCAL)
    assert found.routes[WEB].reason == (
        "internalTrafficPolicy is Local and this node has no ready endpoint"
    )
    assert "left out" in found.routes[Frontend("TCP", "198.51.100.7", 80)].reason


class TestStepByStep:
    """The frontend may come after the backend, or go before it."""

    def run(self, options: RoutingOptions, *steps: tuple[str, Object]) -> list[list[str]]:
        state, found = cluster(), RoutingTable()
        seen = []
        for verb, obj in steps:
            if verb == "+":
                state.apply(SOURCE, obj)
            else:
                state.remove(SOURCE, type(obj), obj.key)
            before = found.routes.get(WEB)
            found = build(state, options, found, state.take_dirty())
            after = found.routes.get(WEB)
            assert (WEB in found.changed) is (after is not before)
            assert (WEB in found.looping) is (after is not None and "left out" in after.reason)
            seen.append(backends(after) if after is not None else ["-"])
        return seen

    @pytest.mark.parametrize(
        ("other", "address", "number"),
        [
            pytest.param(service("o", ip="10.96.0.2"), "10.96.0.2", 80, id="exact"),
            pytest.param(NODE_PORT, "127.0.0.1", 30080, id="wildcard, loopback"),
            pytest.param(NODE_PORT, "192.0.2.1", 30080, id="wildcard, address of the node"),
            pytest.param(NODE_PORT, "10.96.0.9", 30080, id="wildcard, address of a frontend"),
        ],
    )
    def test_whatever_the_order(self, other: Object, address: str, number: int) -> None:
        options = RoutingOptions(local_addresses=LOCAL)
        mine: Object = service("web")
        slices: Object = endpoint_slice("web", address, ports={"": number})
        there = [f"{address}:{number}"]
        for steps, expected in (
            ([mine, slices, other], [[], there, []]),
            ([mine, other, slices], [[], [], []]),
            ([other, slices, mine], [["-"], ["-"], []]),
        ):
            assert self.run(options, *[("+", each) for each in steps]) == expected
        back_and_forth: list[tuple[str, Object]] = [
            *(("+", mine), ("+", slices), ("+", other), ("-", other), ("+", other)),
            *(("-", slices), ("+", slices), ("-", other)),
        ]
        assert self.run(options, *back_and_forth) == [[], there, [], there, [], [], [], there]

    @pytest.mark.parametrize("first", ["NodePort", "address"])
    def test_a_wildcard_and_an_address_of_different_services(self, first: str) -> None:
        """The guard has to look again when either of them comes, and when either goes."""
        other: Object = service("o", external_ips=("198.51.100.7",), ip="10.96.0.2")
        both: list[Object] = [NODE_PORT, other] if first == "NodePort" else [other, NODE_PORT]
        slices = endpoint_slice("web", "198.51.100.7", ports={"": 30080})
        steps: list[tuple[str, Object]] = [("+", service("web")), ("+", slices)]
        for each in both:
            steps += [("+", both[0]), ("+", both[1]), ("-", each)]
            steps += [("+", each), ("-", both[0]), ("-", both[1])]
        there = ["198.51.100.7:30080"]
        expected = [[], there, *(2 * [there, [], there, [], there, there])]
        assert self.run(RoutingOptions(), *steps) == expected

    def test_an_address_stays_while_another_frontend_has_it(self) -> None:
        first, second = (
            service(name, port(number), ip=ip, external_ips=("198.51.100.7",))
            for name, number, ip in (("o", 81, "10.96.0.2"), ("p", 82, "10.96.0.3"))
        )
        slices = endpoint_slice("web", "198.51.100.7", ports={"": 30080})
        steps: list[tuple[str, Object]] = [
            *(("+", service("web")), ("+", slices), ("+", NODE_PORT), ("+", first)),
            *(("+", second), ("-", first), ("-", second)),
        ]
        there = ["198.51.100.7:30080"]
        assert self.run(RoutingOptions(), *steps) == [[], there, there, [], [], [], there]

    def test_the_winner_of_a_conflict_counts_as_well_as_its_successor(self) -> None:
        rival = service("rival", ip="10.96.0.2")
        other = service("o", ip="10.96.0.2", created="2026-01-01T00:00:00Z")
        slices = endpoint_slice("web", "10.96.0.2", ports={"": 80})
        steps: list[tuple[str, Object]] = [
            *(("+", service("web")), ("+", slices), ("+", other), ("+", rival)),
            *(("-", other), ("-", rival)),
        ]
        there = ["10.96.0.2:80"]
        assert self.run(RoutingOptions(), *steps) == [[], there, [], [], [], there]

    def test_only_what_led_to_a_frontend_that_goes_is_guarded_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An attacker may arrange for thousands of Services that lead to each other."""
        state, found, count = cluster(), RoutingTable(), 50
        for number in range(count):
            state.apply(SOURCE, service(f"s{number}", ip=f"10.96.0.{number + 1}"))
            backend = f"10.96.0.{(number + 1) % count + 1}"
            state.apply(SOURCE, endpoint_slice(f"s{number}", backend, ports={"": 80}))
        found = build(state, RoutingOptions(), found, state.take_dirty())
        assert len(found.looping) == count
        looked_at = list[Frontend]()

        def counted(route: Route, *rest: Any) -> Route:
            looked_at.append(route.frontend)
            return guarded(route, *rest)

        monkeypatch.setattr(draft, "guarded", counted)
        state.remove(SOURCE, Service, ObjectName("default", "s7"))
        found = build(state, RoutingOptions(), found, state.take_dirty())
        assert looked_at == [Frontend("TCP", "10.96.0.7", 80)]
        assert backends(found.routes[looked_at[0]]) == ["10.96.0.8:80"]

    def test_an_address_of_a_node_and_a_node_port_that_go_together(self) -> None:
        there = node("there", addresses=("192.0.2.9",))
        slices = endpoint_slice("web", "192.0.2.9", ports={"": 30080})
        state, found = cluster(service("web"), slices, NODE_PORT, there), RoutingTable()
        found = build(state, RoutingOptions(), found, state.take_dirty())
        assert backends(found.routes[WEB]) == []
        for each in (NODE_PORT, there):
            state.remove(SOURCE, type(each), each.key)
        found = build(state, RoutingOptions(), found, state.take_dirty())
        assert backends(found.routes[WEB]) == ["192.0.2.9:30080"]

    def test_new_options_are_looked_at_too(self) -> None:
        slices = endpoint_slice("web", "192.0.2.1", "127.0.0.1", ports={"": 30080})
        state, found = cluster(service("web"), slices, NODE_PORT), RoutingTable()
        seen = []
        for addresses in (frozenset[str](), LOCAL, frozenset[str]()):
            options = RoutingOptions(local_addresses=addresses)
            found = build(state, options, found, state.take_dirty())
            seen.append(backends(found.routes[WEB]))
        assert seen == [["192.0.2.1:30080"], [], ["192.0.2.1:30080"]]


def test_unknown_objects_do_not_matter() -> None:
    state = cluster(service("web"))
    found = build(state, RoutingOptions(), RoutingTable(), state.take_dirty())
    state.remove(SOURCE, EndpointSlice, ObjectName("default", "unknown"))
    again = build(state, RoutingOptions(), found, {ObjectName("default", "unknown")})
    assert (again.routes, again.changed) == (found.routes, frozenset())
