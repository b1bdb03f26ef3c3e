from __future__ import annotations

import msgspec
import pytest

from tests.builders import (
    NODE,
    SOURCE,
    cluster,
    endpoint,
    endpoint_slice,
    metadata,
    node,
    port,
    service,
)
from uproxy.core.cluster.host_addresses import API_SERVER
from uproxy.core.cluster.legacy import as_slices
from uproxy.core.cluster.objects import (
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSlice,
    EndpointSubset,
    Node,
    ObjectName,
    Service,
)
from uproxy.core.cluster.state import ClusterState, NodeFacts
from uproxy.core.route import Backend
from uproxy.core.routing.topology import PortKey, merge

WEB = ObjectName("default", "web")
API = ObjectName("default", "api")
SLICE = ObjectName("default", "web-1")


def legacy(full_name: str, *subsets: EndpointSubset) -> Endpoints:
    return Endpoints(metadata=metadata(full_name), subsets=subsets)


def subset(
    *ips: str, not_ready: tuple[str, ...] = (), ports: dict[str | None, int] | None = None
) -> EndpointSubset:
    numbers: dict[str | None, int] = {None: 80} if ports is None else ports
    return EndpointSubset(
        addresses=tuple(EndpointAddress(ip=ip) for ip in ips),
        not_ready_addresses=tuple(EndpointAddress(ip=ip) for ip in not_ready),
        ports=tuple(EndpointPort(name=name, port=number) for name, number in numbers.items()),
    )


class TestDirt:
    def test_each_kind_dirties_its_service_alone(self) -> None:
        state = cluster(service("web"), service("api"))
        assert state.take_dirty() == {WEB, API}
        assert state.take_dirty() == set()
        state.apply(SOURCE, service("api", port(81)))
        assert state.take_dirty() == {API}
        state.apply(SOURCE, endpoint_slice("web", "10.0.0.1"))
        assert state.take_dirty() == {WEB}
        state.apply(SOURCE, legacy("api", subset("10.0.0.1")))
        assert state.take_dirty() == {API}

    def test_an_identical_object_is_no_change(self) -> None:
        state = cluster(service("web"), endpoint_slice("web", "10.0.0.1"))
        state.take_dirty()
        state.apply(SOURCE, service("web"))
        state.apply(SOURCE, endpoint_slice("web", "10.0.0.1"))
        assert state.take_dirty() == set()

    def test_a_slice_that_changes_hands_dirties_both(self) -> None:
        before = endpoint_slice("web", "10.0.0.1")
        after = EndpointSlice(
            metadata=metadata("web-1", labels={"kubernetes.io/service-name": "api"}),
            address_type="IPv4",
            endpoints=before.endpoints,
            ports=before.ports,
        )
        state = cluster(before)
        state.take_dirty()
        state.apply(SOURCE, after)
        assert state.take_dirty() == {WEB, API}
        assert (list(state.slices_of(WEB)), list(state.slices_of(API))) == ([], [after])

    def test_removal(self) -> None:
        state = cluster(service("web"), endpoint_slice("web", "10.0.0.1"))
        state.take_dirty()
        state.remove(SOURCE, EndpointSlice, SLICE)
        assert state.take_dirty() == {WEB}
        assert not state.slices_of(WEB)
        state.remove(SOURCE, Service, WEB)
        assert state.take_dirty() == {WEB}
        assert state.service(WEB) is None

    def test_whoever_observes_is_told_of_every_change_and_of_nothing_else(self) -> None:
        state = cluster(service("web"))
        seen = list[tuple[type, ObjectName]]()
        state.observe(lambda kind, name: seen.append((kind, name)))
        state.apply(SOURCE, service("web"))
        assert seen == []
        state.apply(SOURCE, service("web", port(81)))
        state.apply(SOURCE, endpoint_slice("web", "10.0.0.1"))
        state.apply(SOURCE, node("there"))
        state.remove(SOURCE, Service, WEB)
        state.remove(SOURCE, Service, WEB)
        there = ObjectName("", "there")
        assert seen == [(Service, WEB), (EndpointSlice, SLICE), (Node, there), (Service, WEB)]

    def test_any_node_can_be_looked_up(self) -> None:
        state = cluster(node("there"))
        assert state.node_object("there") == node("there")
        state.remove(SOURCE, Node, ObjectName("", "there"))
        assert state.node_object("there") is None

    @pytest.mark.parametrize(
        "kind", [pytest.param(kind, id=kind.__name__) for kind in (Service, EndpointSlice, Node)]
    )
    def test_removing_what_is_not_there(
        self, kind: type[Service] | type[EndpointSlice] | type[Node]
    ) -> None:
        state = cluster(service("web"))
        state.take_dirty()
        state.remove(SOURCE, kind, ObjectName("default", "unknown"))
        assert state.take_dirty() == set()

    def test_slices_without_service_or_with_host_names_do_not_count(self) -> None:
        unowned = EndpointSlice(metadata=metadata("stray"), address_type="IPv4")
        state = cluster(unowned, endpoint_slice("web", "db.example", family="FQDN"))
        assert state.take_dirty() == set()
        assert not state.slices_of(WEB)

    def test_a_slice_that_turns_into_host_names_is_gone(self) -> None:
        state = cluster(endpoint_slice("web", "10.0.0.1"))
        state.take_dirty()
        state.apply(SOURCE, endpoint_slice("web", "db.example", family="FQDN"))
        assert state.take_dirty() == {WEB}
        assert not state.slices_of(WEB)

    def test_what_is_no_address_of_the_api_server_hides_none_of_the_others(self) -> None:
        state = cluster(endpoint_slice("default/kubernetes", "no address", "192.0.2.9"))
        state.take_dirty()
        assert state.hosts.host_of("192.0.2.9") == API_SERVER
        assert state.hosts.host_of("no address") == ""

    @pytest.mark.parametrize(
        "before", [pytest.param([], id="new"), pytest.param([service("web")], id="changed")]
    )
    def test_an_object_that_could_not_be_applied_is_a_change_when_it_comes_again(
        self, before: list[Service], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise ValueError("a bug")

        state = cluster(*before)
        state.take_dirty()
        with monkeypatch.context() as patch:
            patch.setattr(state, "_record_change", fail)
            with pytest.raises(ValueError, match="a bug"):
                state.apply(SOURCE, service("web", port(81)))
        assert state.all_objects() == before
        state.apply(SOURCE, service("web", port(81)))
        assert state.take_dirty() == {WEB}
        assert state.all_objects() == [service("web", port(81))]

    def test_slices_come_by_name(self) -> None:
        state = cluster(*(endpoint_slice("web", suffix=each) for each in "cab"))
        assert [each.key.name for each in state.slices_of(WEB)] == ["web-a", "web-b", "web-c"]


class TestChangesCollapse:
    """kube-proxy's change tracker: what counts is before the first and after the last change."""

    def test_add_then_update_is_one_service_to_look_at(self) -> None:
        state = cluster()
        state.apply(SOURCE, service("web"))
        state.apply(SOURCE, service("web", port(81)))
        assert state.take_dirty() == {WEB}
        found = state.service(WEB)
        assert found is not None
        assert found.ports == (port(81),)

    def test_add_then_delete_leaves_nothing(self) -> None:
        state = cluster()
        state.apply(SOURCE, service("web"))
        state.remove(SOURCE, Service, WEB)
        assert state.take_dirty() == {WEB}
        assert state.service(WEB) is None

    def test_delete_then_add_is_an_update(self) -> None:
        state = cluster(service("web"))
        state.take_dirty()
        state.remove(SOURCE, Service, WEB)
        state.apply(SOURCE, service("web", port(81)))
        assert state.take_dirty() == {WEB}


class TestSources:
    def test_synced_once_every_source_has_listed_and_ever_after(self) -> None:
        state = ClusterState(["services", "slices"])
        seen = [state.synced]
        state.replace("services", [])
        seen.append(state.synced)
        state.apply("slices", endpoint_slice("web"))
        seen.append(state.synced)
        state.sync("slices")
        seen.append(state.synced)
        state.replace("slices", [])
        seen.append(state.synced)
        assert seen == [False, False, False, True, True]

    def test_which_sources_have_listed(self) -> None:
        state = ClusterState(["one", "other"])
        state.sync("one")
        state.accept_last_known("other")
        assert (state.listed("one"), state.listed("other")) == (True, False)
        with pytest.raises(KeyError):
            state.listed("third")

    def test_a_full_list_removes_what_it_lacks_and_dirties_what_differs(self) -> None:
        same, changed, gone = service("same"), service("changed"), service("gone")
        state = cluster(same, changed, gone)
        state.take_dirty()
        state.replace(SOURCE, [same, service("changed", port(81)), service("added")])
        assert {name.name for name in state.take_dirty()} == {"changed", "gone", "added"}
        assert {name.name for name in state.service_names()} == {"same", "changed", "added"}

    def test_a_list_of_one_source_leaves_the_others_alone(self) -> None:
        state = ClusterState(["a", "b"])
        state.apply("a", service("web"))
        state.apply("b", service("api"))
        state.replace("a", [])
        assert state.service_names() == {API}

    def test_the_labels_of_services(self) -> None:
        state = cluster(service("plain"))
        labelled = service("web")
        labels = {"app": "web"}
        metadata = msgspec.structs.replace(labelled.metadata, labels=labels)
        state.apply(SOURCE, msgspec.structs.replace(labelled, metadata=metadata))
        found = {name.name: each for name, each in state.service_labels().items()}
        assert found == {"plain": {}, "web": labels}

    def test_the_source_named_first_wins_and_the_other_takes_over(self) -> None:
        state = ClusterState(["a", "b"])
        first, second = service("web", port(1)), service("web", port(2))
        state.apply("b", second)
        assert state.service(WEB) is second
        state.apply("a", first)
        assert state.service(WEB) is first
        state.take_dirty()
        state.apply("b", service("web", port(3)))
        assert state.take_dirty() == set()
        state.replace("a", [])
        assert state.take_dirty() == {WEB}
        assert state.service(WEB) == service("web", port(3))

    def test_unknown_sources_are_errors(self) -> None:
        state = ClusterState(["a"])
        with pytest.raises(KeyError):
            state.sync("b")
        with pytest.raises(KeyError):
            state.apply("b", service("web"))


class TestLegacyEndpoints:
    def test_ports_to_endpoints_map(self) -> None:
        """U1 of kube-proxy's userspace mode, TestBuildPortsToEndpointsMap."""
        endpoints = legacy(
            "web",
            subset("10.0.0.1", "10.0.0.2", ports={"http": 80, "https": 443}),
            subset("10.0.0.1", "10.0.0.3", ports={"http": 8080, "dns": 53}),
            EndpointSubset(),
        )
        ports = merge(as_slices(endpoints), NODE).ports
        found = {key.port: {str(c.backend) for c in of} for key, of in ports.items()}
        assert found == {
            "http": {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:8080", "10.0.0.3:8080"},
            "https": {"10.0.0.1:443", "10.0.0.2:443"},
            "dns": {"10.0.0.1:53", "10.0.0.3:53"},
        }

    def test_both_families_conditions_and_the_unnamed_port(self) -> None:
        endpoints = legacy("web", subset("10.0.0.1", "fd00::1", not_ready=("10.0.0.2",)))
        ports = merge(as_slices(endpoints), NODE).ports
        ipv4, ipv6 = ports[PortKey("IPv4", "", "TCP")], ports[PortKey("IPv6", "", "TCP")]
        assert [(c.backend, c.ready, c.serving) for c in ipv4] == [
            (Backend("10.0.0.1", 80), True, True),
            (Backend("10.0.0.2", 80), False, False),
        ]
        assert [c.backend for c in ipv6] == [Backend("fd00::1", 80)]

    def test_an_unparsable_address_is_reported(self) -> None:
        merged = merge(as_slices(legacy("web", subset("10.0.0.999"))), NODE)
        assert merged.unparsable == ("10.0.0.999",)

    def test_only_where_there_is_no_slice(self) -> None:
        state = cluster(legacy("web", subset("10.0.0.1")), endpoint_slice("web", "10.0.0.2"))
        assert state.slices_of(WEB) == [endpoint_slice("web", "10.0.0.2")]
        state.take_dirty()
        state.apply(SOURCE, legacy("web", subset("10.0.0.3")))
        assert state.take_dirty() == set(), "it does not count while there is a slice"
        state.remove(SOURCE, EndpointSlice, SLICE)
        assert state.take_dirty() == {WEB}
        assert state.slices_of(WEB) == as_slices(legacy("web", subset("10.0.0.3")))


class TestNode:
    def test_facts(self) -> None:
        mine = node(
            zone="a",
            addresses=["192.0.2.1", "2001:DB8::1"],
            pod_cidrs=["10.0.0.0/24"],
            taints=["ToBeDeletedByClusterAutoscaler"],
            deleted="2026-01-01T00:00:00Z",
        )
        assert cluster(mine).node == NodeFacts(
            name=NODE,
            known=True,
            zone="a",
            pod_cidrs=("10.0.0.0/24",),
            addresses=("192.0.2.1", "2001:db8::1"),
            deleting=True,
            taints=("ToBeDeletedByClusterAutoscaler",),
        )

    def test_without_a_node_object_nothing_is_known_but_the_name(self) -> None:
        assert cluster().node == NodeFacts(name=NODE)

    def test_other_nodes_do_not_matter(self) -> None:
        state = cluster(service("web"))
        state.take_dirty()
        state.apply(SOURCE, node("other", zone="b"))
        assert state.node == NodeFacts(name=NODE)
        assert state.take_dirty() == set()

    @pytest.mark.parametrize(
        ("after", "dirty"),
        [
            pytest.param(node(zone="b", addresses=["192.0.2.1"]), {WEB, API}, id="zone"),
            pytest.param(node(zone="a", addresses=["192.0.2.2"]), {WEB, API}, id="address"),
            pytest.param(
                node(zone="a", addresses=["192.0.2.1"], version="2"), set(), id="heartbeat"
            ),
            pytest.param(node(zone="a", addresses=["192.0.2.1"], taints=["x"]), set(), id="taint"),
        ],
    )
    def test_what_makes_every_service_dirty(self, after: Node, dirty: set[ObjectName]) -> None:
        state = cluster(service("web"), service("api"), node(zone="a", addresses=["192.0.2.1"]))
        state.take_dirty()
        state.apply(SOURCE, after)
        assert state.take_dirty() == dirty
        assert state.node == NodeFacts.of(after)

    def test_what_was_known_of_a_node_that_is_removed_stays_known(self) -> None:
        """Its pods, its addresses and its zone are still there; nothing is derived again."""
        mine = node(
            zone="a",
            addresses=["192.0.2.1"],
            pod_cidrs=["10.0.0.0/24"],
            taints=["x"],
            deleted="now",
        )
        state = cluster(service("web"), mine)
        state.take_dirty()
        state.remove(SOURCE, Node, ObjectName("", NODE))
        assert state.node == NodeFacts(
            name=NODE, zone="a", pod_cidrs=("10.0.0.0/24",), addresses=("192.0.2.1",)
        )
        assert state.take_dirty() == set()
        assert state.hosts.own == {"192.0.2.1"}, "or it could be claimed while no interface has it"

    def test_a_node_that_comes_back_is_another_one(self) -> None:
        state = cluster(service("web"), node(zone="a", pod_cidrs=["10.0.0.0/24"]))
        state.remove(SOURCE, Node, ObjectName("", NODE))
        state.take_dirty()
        state.apply(SOURCE, node())
        assert state.node == NodeFacts(name=NODE, known=True)
        assert state.take_dirty() == {WEB}

    def test_nodes_that_have_an_address(self) -> None:
        state = cluster(
            node("b", addresses=["192.0.2.2", "192.0.2.3"]), node("a", addresses=["192.0.2.1"])
        )
        assert state.hosts.nodes_at(["192.0.2.3", "192.0.2.1", "192.0.2.2"]) == ["a", "b"]
        assert state.hosts.nodes_at(["192.0.2.9"]) == []


def test_endpoints_are_kept_not_copied() -> None:
    """100,000 endpoints would otherwise be in memory twice."""
    mine = endpoint_slice("web", endpoint("10.0.0.1"))
    assert cluster(mine).slices_of(WEB)[0] is mine
