"""Endpoints of a Service out of its slices: kube-proxy's endpoint-map tables."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.builders import NODE, endpoint, endpoint_slice, local, terminating
from uproxy.core.cluster.objects import Endpoint, EndpointPort, EndpointSlice
from uproxy.core.route import Backend
from uproxy.core.routing.topology import Candidate, Merged, PortKey, local_ready_ips, merge


def listed(merged: Merged, port: str = "", protocol: str = "TCP", ipv6: bool = False) -> list[str]:
    found = merged.ports.get(PortKey("IPv6" if ipv6 else "IPv4", port, protocol), ())
    return [str(each.backend) for each in found]


def merge_all(*slices: EndpointSlice) -> Merged:
    return merge(slices, NODE)


def only(*endpoints: Endpoint) -> Candidate:
    (found,) = merge_all(endpoint_slice("web", *endpoints)).ports[PortKey("IPv4", "", "TCP")]
    return found


class TestMerge:
    def test_both_ports_of_every_endpoint_with_locality(self) -> None:
        merged = merge_all(
            endpoint_slice(
                "web",
                *(endpoint(f"10.0.1.{i}", node=("node-1", "node-2")[i % 2]) for i in (1, 2, 3)),
                ports={"port-0": 80, "port-1": 443},
            )
        )
        for name, number in (("port-0", 80), ("port-1", 443)):
            found = merged.ports[PortKey("IPv4", name, "TCP")]
            assert [(c.backend, c.local) for c in found] == [
                (Backend("10.0.1.1", number), False),
                (Backend("10.0.1.2", number), True),
                (Backend("10.0.1.3", number), False),
            ]

    def test_the_union_of_slices_each_with_its_own_ports(self) -> None:
        merged = merge_all(
            endpoint_slice("web", "10.0.1.1", ports={"p": 80, "q": 81}, suffix="1"),
            endpoint_slice("web", "10.0.2.1", ports={"p": 80, "q": 81}, suffix="2"),
            endpoint_slice("web", "10.0.3.1", ports={"p": 80}, suffix="3"),
        )
        assert listed(merged, "p") == ["10.0.1.1:80", "10.0.2.1:80", "10.0.3.1:80"]
        assert listed(merged, "q") == ["10.0.1.1:81", "10.0.2.1:81"]

    def test_a_named_target_port_may_differ_between_slices(self) -> None:
        merged = merge_all(
            endpoint_slice("web", "10.0.1.1", ports={"http": 8080}, suffix="1"),
            endpoint_slice("web", "10.0.1.2", ports={"http": 9090}, suffix="2"),
        )
        assert listed(merged, "http") == ["10.0.1.1:8080", "10.0.1.2:9090"]

    def test_pods_of_one_service_may_have_its_named_ports_in_any_combination(self) -> None:
        """Upstream's "should function for service endpoints using named ports that resolve
        differently": the controller makes a slice for each set of numbers."""
        merged = merge_all(
            endpoint_slice("web", "10.0.1.1", ports={"http": 80, "admin": 9000}, suffix="1"),
            endpoint_slice("web", "10.0.1.2", ports={"http": 8080, "admin": 9000}, suffix="2"),
            endpoint_slice("web", "10.0.1.3", ports={"http": 9000, "admin": 80}, suffix="3"),
            endpoint_slice("web", "10.0.1.4", ports={"admin": 9001}, suffix="4"),
        )
        assert listed(merged, "http") == ["10.0.1.1:80", "10.0.1.2:8080", "10.0.1.3:9000"]
        assert listed(merged, "admin") == [
            "10.0.1.1:9000",
            "10.0.1.2:9000",
            "10.0.1.3:80",
            "10.0.1.4:9001",
        ]

    def test_slices_that_overlap_in_endpoints_and_ports(self) -> None:
        """Upstream's "multiple endpoint IPs specified in multiple EndpointSlices"."""
        merged = merge_all(
            endpoint_slice("web", "10.0.1.1", "10.0.1.2", ports={"p": 80, "q": 81}, suffix="1"),
            endpoint_slice("web", "10.0.1.2", "10.0.1.3", ports={"p": 80}, suffix="2"),
            endpoint_slice("web", "10.0.1.3", "10.0.1.1", ports={"q": 81}, suffix="3"),
        )
        assert listed(merged, "p") == ["10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80"]
        assert listed(merged, "q") == ["10.0.1.1:81", "10.0.1.2:81", "10.0.1.3:81"]

    def test_one_address_at_two_ports_is_two_endpoints(self) -> None:
        merged = merge_all(
            endpoint_slice("web", "10.0.1.1", ports={"": 80}, suffix="1"),
            endpoint_slice("web", "10.0.1.1", ports={"": 81}, suffix="2"),
        )
        assert listed(merged) == ["10.0.1.1:80", "10.0.1.1:81"]

    def test_sorted_whatever_the_order(self) -> None:
        addresses = ["10.0.0.3", "10.0.0.1", "10.0.0.2"]
        forwards = merge_all(endpoint_slice("web", *addresses))
        backwards = merge_all(endpoint_slice("web", *reversed(addresses)))
        assert forwards == backwards
        assert listed(forwards) == ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]

    def test_protocols_and_families_are_apart(self) -> None:
        merged = merge_all(
            endpoint_slice("web", "10.0.0.1", protocol="TCP", suffix="1"),
            endpoint_slice("web", "10.0.0.2", protocol="UDP", suffix="2"),
            endpoint_slice("web", "fd00::1", family="IPv6", suffix="3"),
        )
        assert listed(merged) == ["10.0.0.1:8080"]
        assert listed(merged, protocol="UDP") == ["10.0.0.2:8080"]
        assert listed(merged, ipv6=True) == ["[fd00::1]:8080"]

    def test_an_absent_protocol_is_tcp(self) -> None:
        assert listed(merge_all(endpoint_slice("web", "10.0.0.1", protocol=None))) == [
            "10.0.0.1:8080"
        ]

    @pytest.mark.parametrize(
        "unusable",
        [
            pytest.param(EndpointPort(name=None, port=80), id="nil name: not for Services"),
            pytest.param(EndpointPort(name="", port=None), id="nil port"),
            pytest.param(EndpointPort(name="", port=0), id="port 0"),
        ],
    )
    def test_ports_that_do_not_count(self, unusable: EndpointPort) -> None:
        base = endpoint_slice("web", "10.0.0.1")
        merged = merge_all(
            EndpointSlice(
                metadata=base.metadata,
                address_type="IPv4",
                endpoints=base.endpoints,
                ports=(unusable,),
            )
        )
        assert merged.ports == {}

    def test_nil_lists(self) -> None:
        base = endpoint_slice("web")
        assert merge_all(EndpointSlice(metadata=base.metadata, address_type="IPv4")).ports == {}

    def test_host_names_are_ignored(self) -> None:
        assert merge_all(endpoint_slice("web", "db.example", family="FQDN")) == Merged({}, ())

    def test_only_the_first_address_counts(self) -> None:
        merged = merge_all(
            endpoint_slice("web", Endpoint(addresses=("10.0.0.1", "10.0.0.2")), Endpoint())
        )
        assert listed(merged) == ["10.0.0.1:8080"]

    def test_leading_zeros_and_what_is_no_address(self) -> None:
        merged = merge_all(endpoint_slice("web", "10.180.00.001", "10.0.0.999", "fd00::1"))
        assert listed(merged) == ["10.180.0.1:8080"]
        assert merged.unparsable == ("10.0.0.999", "fd00::1"), "of the wrong family is no use too"

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            pytest.param(endpoint("10.0.0.1"), (True, True, False), id="nil: ready and serving"),
            pytest.param(
                endpoint("10.0.0.1", ready=False, serving=False),
                (False, False, False),
                id="unready",
            ),
            pytest.param(terminating("10.0.0.1"), (False, True, True), id="terminating, serving"),
            pytest.param(
                endpoint("10.0.0.1", ready=False, serving=False, terminating=True),
                (False, False, True),
                id="terminating, not serving",
            ),
        ],
    )
    def test_conditions(self, given: Endpoint, expected: tuple[bool, bool, bool]) -> None:
        found = only(given)
        assert (found.ready, found.serving, found.terminating) == expected

    def test_hints(self) -> None:
        found = only(endpoint("10.0.0.1", zones=["a", "b"], nodes=["n1"]))
        assert (found.zones, found.nodes) == (("a", "b"), ("n1",))

    @pytest.mark.parametrize(
        ("on", "mine", "expected"),
        [
            pytest.param("node-1", "node-1", True, id="here"),
            pytest.param("node-2", "node-1", False, id="elsewhere"),
            pytest.param(None, "node-1", False, id="nil node"),
            pytest.param(None, "", False, id="nil node, and we have no name"),
            pytest.param("", "", False, id="empty names are not equal"),
        ],
    )
    def test_locality(self, on: str | None, mine: str, expected: bool) -> None:
        merged = merge([endpoint_slice("web", endpoint("10.0.0.1", node=on))], mine)
        assert [c.local for c in merged.ports[PortKey("IPv4", "", "TCP")]] == [expected]

    @pytest.mark.parametrize(
        ("first", "second", "kept"),
        [
            pytest.param(
                terminating("10.0.0.1"), local("10.0.0.1"), 2, id="running replaces terminating"
            ),
            pytest.param(
                local("10.0.0.1"), terminating("10.0.0.1"), 1, id="terminating never replaces"
            ),
            pytest.param(endpoint("10.0.0.1"), local("10.0.0.1"), 2, id="both running: the later"),
            pytest.param(
                terminating("10.0.0.1"),
                terminating("10.0.0.1", node=NODE),
                2,
                id="both terminating: the later",
            ),
        ],
    )
    def test_the_same_endpoint_in_two_slices(
        self, first: Endpoint, second: Endpoint, kept: int
    ) -> None:
        """kube-proxy's TestEndpointInfoByServicePort."""
        slices = [
            endpoint_slice("web", each, suffix=str(i)) for i, each in enumerate((first, second))
        ]
        assert merge(slices, NODE).ports == merge([slices[kept - 1]], NODE).ports


class TestLocalReadyIPs:
    """kube-proxy's TestGetLocalEndpointIPs; health node ports answer with the counts."""

    @pytest.mark.parametrize(
        ("endpoints", "expected"),
        [
            pytest.param([endpoint("10.0.0.1", node="other")], set(), id="not local"),
            pytest.param([local("10.0.0.1")], {"10.0.0.1"}, id="local, once for its two ports"),
            pytest.param(
                [local("10.0.0.1"), local("10.0.0.2"), endpoint("10.0.0.3")],
                {"10.0.0.1", "10.0.0.2"},
                id="several",
            ),
            pytest.param(
                [local("10.0.0.1", ready=False), local("10.0.0.2")], {"10.0.0.2"}, id="unready"
            ),
            pytest.param(
                [terminating("10.0.0.1", node=NODE)], set(), id="all terminating: 503 comes first"
            ),
        ],
    )
    def test_addresses(self, endpoints: Iterable[Endpoint], expected: set[str]) -> None:
        merged = merge_all(endpoint_slice("web", *endpoints, ports={"p": 80, "q": 81}))
        assert local_ready_ips(merged) == {"IPv4": expected, "IPv6": set()}

    def test_by_family(self) -> None:
        merged = merge_all(
            endpoint_slice("web", local("10.0.0.1"), suffix="4"),
            endpoint_slice("web", local("fd00::1"), family="IPv6", suffix="6"),
        )
        assert local_ready_ips(merged) == {"IPv4": {"10.0.0.1"}, "IPv6": {"fd00::1"}}
