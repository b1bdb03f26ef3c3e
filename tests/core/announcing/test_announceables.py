"""Who may announce what, by the cluster's objects; cases of MetalLB's suite by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from tests.builders import endpoint, endpoint_slice, service, terminating
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.announcing.advertisements import EVERYWHERE, Advertisement, PreferredNodes
from uproxy.core.announcing.announceables import Announceables
from uproxy.core.announcing.candidates import EXCLUDED
from uproxy.core.announcing.view import Allowance, Announceable, ClusterNode
from uproxy.core.cluster.labels import LabelSelector
from uproxy.core.cluster.load_balancer import ASSIGNED
from uproxy.core.cluster.objects import Endpoint, EndpointSlice, ObjectName, Service

IP = "192.0.2.10"
POOL = Pool(
    name="default",
    ranges=(AddressRange.parse("192.0.2.0/24"), AddressRange.parse("2001:db8::/64")),
    labels=(("tier", "front"),),
)
NODES = {name: ClusterNode({"name": name, "zone": name[-1]}) for name in ("n1", "n2", "n3")}
ALL = Advertisement(name="all")


def selects(**labels: str) -> LabelSelector:
    return LabelSelector(match_labels=labels)


def balanced(name: str = "web", ip: str = IP, **fields: object) -> Service:
    spec: dict[str, object] = {"type": "LoadBalancer", "ingress": ip.split(","), **fields}
    return service(name, annotations={ASSIGNED: ip}, **spec)  # type: ignore[arg-type]


READY = endpoint_slice("web", endpoint("10.0.0.1", node="n1"))


def found(
    *services: tuple[Service, Iterable[EndpointSlice]],
    ads: Iterable[Advertisement] = (ALL,),
    nodes: Mapping[str, ClusterNode] = NODES,
    pools: tuple[Pool, ...] = (POOL,),
) -> Mapping[str, Announceable]:
    view = Announceables()
    view.configure(pools, tuple(ads), nodes)
    for each, slices in services or ((balanced(), (READY,)),):
        view.put(each, tuple(slices))
    return view.current()


def allowed(
    *ads: Advertisement, nodes: Mapping[str, ClusterNode] = NODES
) -> Mapping[str, Allowance]:
    return found(ads=ads, nodes=nodes)[IP].candidates.nodes


def test_policy_cluster_all_nodes_may() -> None:
    each = found()[IP]
    assert each.candidates.nodes.keys() == {"n1", "n2", "n3"}
    assert (each.reason, each.services) == ("", (ObjectName("default", "web"),))


@pytest.mark.parametrize(
    ("endpoints", "nodes"),
    [
        pytest.param([endpoint("10.0.0.1", node="n2")], {"n2"}, id="the node of the pod"),
        pytest.param([endpoint("10.0.0.1", node="n9")], set(), id="a node that is not there"),
        pytest.param([endpoint("10.0.0.1")], set(), id="a pod without a node"),
        pytest.param(
            [endpoint("10.0.0.1", node="n1"), terminating("10.0.0.2", node="n2")],
            {"n1"},
            id="a pod that ends, next to a ready one",
        ),
        pytest.param([terminating("10.0.0.2", node="n2")], {"n2"}, id="only pods that end"),
        pytest.param(
            [endpoint("10.0.0.1", node="n1", ready=False), endpoint("10.0.0.2", node="n3")],
            {"n3"},
            id="a pod that is not ready",
        ),
    ],
)
def test_policy_local_nodes_with_a_ready_endpoint_may(
    endpoints: list[Endpoint], nodes: set[str]
) -> None:
    local = balanced(external_traffic_policy="Local")
    each = found((local, [endpoint_slice("web", *endpoints)]))[IP]
    assert each.candidates.nodes.keys() == nodes
    assert bool(each.reason) == (not nodes)
    assert "no ready endpoint of default/web" in each.candidates.refusal("n0")


@pytest.mark.parametrize(
    "slices",
    [
        pytest.param([], id="no endpoints"),
        pytest.param([endpoint_slice("web", endpoint("10.0.0.1", ready=False))], id="not ready"),
        pytest.param([endpoint_slice("web", "2001:db8::1", family="IPv6")], id="other family"),
    ],
)
def test_without_a_serving_endpoint_nobody_may(slices: list[EndpointSlice]) -> None:
    assert found((balanced(), slices))[IP].reason == "no endpoint of default/web is ready"


def test_not_be_announced_from_a_node_with_a_network_unavailable_condition() -> None:
    nodes = {**NODES, "n1": ClusterNode({}, network_unavailable=True)}
    each = found(nodes=nodes)[IP].candidates
    assert each.nodes.keys() == {"n2", "n3"}
    assert "NetworkUnavailable" in each.refusal("n1")


def test_adding_node_exclude_balancers_label() -> None:
    nodes = {**NODES, "n1": ClusterNode({EXCLUDED: ""})}
    each = found(nodes=nodes)[IP].candidates
    assert each.nodes.keys() == {"n2", "n3"}
    assert EXCLUDED in each.refusal("n1")
    assert not each.exclusion_ignored


def test_a_node_that_is_about_to_be_removed_comes_last_whatever_is_preferred() -> None:
    everywhere = LabelSelector()
    ad = replace(ALL, preferred=(PreferredNodes(everywhere, 50),))
    nodes = {**NODES, "n1": ClusterNode(NODES["n1"].labels, leaving=True)}
    each = found(ads=[ad], nodes=nodes)[IP].candidates
    assert {name: of.weight for name, of in each.nodes.items()} == {"n1": -1, "n2": 50, "n3": 50}


def test_the_label_is_ignored_where_all_nodes_have_it() -> None:
    nodes = {name: ClusterNode({EXCLUDED: "true"}) for name in NODES}
    each = found(nodes=nodes)[IP].candidates
    assert each.nodes.keys() == NODES.keys()
    assert each.exclusion_ignored


def test_the_label_counts_where_only_a_node_with_it_has_the_endpoint() -> None:
    nodes = {**NODES, "n1": ClusterNode({EXCLUDED: ""})}
    local = balanced(external_traffic_policy="Local")
    assert "no node that may announce it" in found((local, [READY]), nodes=nodes)[IP].reason


INTERFACES = [
    pytest.param([ALL], (), id="all"),
    pytest.param([replace(ALL, interfaces=("eth0",))], ("eth0",), id="modify interface"),
    pytest.param(
        [
            Advertisement(name="a", interfaces=("eth0",)),
            Advertisement(name="b", interfaces=("eth1",)),
        ],
        ("eth0", "eth1"),
        id="pool with two ads",
    ),
    pytest.param(
        [Advertisement(name="a", interfaces=("eth0",)), Advertisement(name="b")],
        (),
        id="pool with two ads, one of them for all interfaces",
    ),
    pytest.param(
        [
            Advertisement(name="a", interfaces=("eth0",), node_selectors=(selects(name="n2"),)),
            Advertisement(name="b", interfaces=("eth1",), node_selectors=(selects(name="n1"),)),
        ],
        ("eth1",),
        id="node selector",
    ),
]


@pytest.mark.parametrize(("ads", "interfaces"), INTERFACES)
def test_interface_selector(ads: list[Advertisement], interfaces: tuple[str, ...]) -> None:
    assert allowed(*ads)["n1"].interfaces == interfaces


NODE_SELECTORS = [
    pytest.param([replace(ALL, node_selectors=(selects(name="n1"),))], {"n1"}, id="one node"),
    pytest.param(
        [replace(ALL, node_selectors=(selects(name="n1"), selects(name="n2")))],
        {"n1", "n2"},
        id="any of several selectors",
    ),
    pytest.param(
        [
            Advertisement(name="a", node_selectors=(selects(name="n1"),)),
            Advertisement(name="b", node_selectors=(selects(name="n3"),)),
        ],
        {"n1", "n3"},
        id="two advertisements",
    ),
]


@pytest.mark.parametrize(("ads", "nodes"), NODE_SELECTORS)
def test_node_selector(ads: list[Advertisement], nodes: set[str]) -> None:
    assert allowed(*ads).keys() == nodes


def test_a_node_that_no_advertisement_selects_is_told_so() -> None:
    each = found(ads=[replace(ALL, node_selectors=(selects(name="n1"),))])[IP].candidates
    assert each.refusal("n2") == "no L2Advertisement of pool default selects it"


SERVICE_SELECTORS = [
    pytest.param(
        [replace(ALL, pools=frozenset({"default"}), service_selectors=(selects(app="a"),))],
        {"app": "a"},
        "",
        id="pool and service selectors",
    ),
    pytest.param(
        [
            Advertisement(name="a", service_selectors=(selects(app="a"),)),
            Advertisement(name="b", service_selectors=(selects(app="a"),)),
        ],
        {"app": "a"},
        "",
        id="both ads match",
    ),
    pytest.param(
        [
            Advertisement(name="a", pools=frozenset({"other"})),
            Advertisement(name="b", service_selectors=(selects(app="b"),)),
        ],
        {"app": "a"},
        "no L2Advertisement of pool default selects default/web",
        id="none when no ad matches both",
    ),
    pytest.param(
        [replace(ALL, service_selectors=(selects(app="b"), selects(app="a")))],
        {"app": "a"},
        "",
        id="OR logic",
    ),
]


@pytest.mark.parametrize(("ads", "labels", "reason"), SERVICE_SELECTORS)
def test_service_selector(ads: list[Advertisement], labels: dict[str, str], reason: str) -> None:
    assert found((balanced(labels=labels), [READY]), ads=ads)[IP].reason == reason


def prefers(weight: int, **labels: str) -> PreferredNodes:
    return PreferredNodes(selects(**labels), weight)


PREFERENCES = [
    pytest.param([ALL], {"n1": 0, "n2": 0, "n3": 0}, id="none"),
    pytest.param(
        [replace(ALL, preferred=(prefers(10, name="n2"),))],
        {"n1": 0, "n2": 10, "n3": 0},
        id="prefer",
    ),
    pytest.param(
        [replace(ALL, preferred=(prefers(10, name="n9"),))],
        {"n1": 0, "n2": 0, "n3": 0},
        id="no match = baseline",
    ),
    pytest.param(
        [
            Advertisement(name="a", preferred=(prefers(10, name="n1"), prefers(5, zone="1"))),
            Advertisement(name="b", preferred=(prefers(3, name="n1"),)),
        ],
        {"n1": 18, "n2": 0, "n3": 0},
        id="weights sum",
    ),
    pytest.param(
        [replace(ALL, preferred=(prefers(9, name="n1"),), node_selectors=(selects(name="n2"),))],
        {"n2": 0},
        id="nodeSelectors are hard",
    ),
    pytest.param(
        [
            Advertisement(name="a", preferred=(prefers(9, name="n1"),)),
            Advertisement(
                name="b", preferred=(prefers(50, name="n3"),), service_selectors=(selects(x="y"),)
            ),
        ],
        {"n1": 9, "n2": 0, "n3": 0},
        id="scoped by serviceSelectors",
    ),
]


@pytest.mark.parametrize(("ads", "weights"), PREFERENCES)
def test_preferred_node(ads: list[Advertisement], weights: dict[str, int]) -> None:
    assert {name: each.weight for name, each in allowed(*ads).items()} == weights


@pytest.mark.parametrize(
    ("ad", "concerns"),
    [
        pytest.param(Advertisement(name="a", pools=frozenset({"default"})), True, id="by name"),
        pytest.param(
            Advertisement(name="a", pool_selectors=(selects(tier="front"),)), True, id="by label"
        ),
        pytest.param(Advertisement(name="a", pools=frozenset({"other"})), False, id="another pool"),
        pytest.param(
            Advertisement(name="a", pool_selectors=(selects(tier="x"),)), False, id="another label"
        ),
        pytest.param(
            Advertisement(
                name="a", pools=frozenset({"x"}), pool_selectors=(selects(tier="front"),)
            ),
            True,
            id="either",
        ),
        pytest.param(EVERYWHERE, True, id="pools of flags"),
    ],
)
def test_which_pools_an_advertisement_is_for(ad: Advertisement, concerns: bool) -> None:
    reason = found(ads=[ad])[IP].reason
    assert reason == ("" if concerns else "no L2Advertisement is for pool default")


def test_services_that_share_an_address_need_no_advertisement_for_some_services() -> None:
    sharers = [(balanced(name), [endpoint_slice(name, "10.0.0.1")]) for name in ("web", "dns")]
    ads = [ALL, Advertisement(name="b", service_selectors=(selects(app="a"),))]
    each = found(*sharers, ads=ads)[IP]
    assert "default/dns and default/web share 192.0.2.10" in each.reason
    assert not found(*sharers)[IP].reason


def test_local_services_that_share_an_address_need_a_node_with_endpoints_of_both() -> None:
    def sharer(name: str, *nodes: str) -> tuple[Service, list[EndpointSlice]]:
        endpoints = [endpoint(f"10.0.0.{n[-1]}", node=n) for n in nodes]
        return balanced(name, external_traffic_policy="Local"), [endpoint_slice(name, *endpoints)]

    assert found(sharer("a", "n1", "n2"), sharer("b", "n2", "n3"))[IP].candidates.nodes.keys() == {
        "n2"
    }
    assert (
        "default/a and default/b share it" in found(sharer("a", "n1"), sharer("b", "n3"))[IP].reason
    )


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(balanced(ip="198.51.100.1"), id="in no pool"),
        pytest.param(service("web", type="LoadBalancer", ingress=[IP]), id="not assigned by us"),
        pytest.param(balanced(load_balancer_class="example.com/other"), id="another class"),
        pytest.param(balanced(type="NodePort"), id="not a load balancer"),
    ],
)
def test_what_is_not_ours_is_not_announced(other: Service) -> None:
    assert not found((other, [READY]))


def test_both_families_are_announced_by_themselves() -> None:
    dual = balanced(ip=f"{IP},2001:db8::a")
    each = found((dual, [READY]))
    assert not each[IP].reason
    assert "no endpoint" in each["2001:db8::a"].reason


def test_without_nodes_the_reason_says_so() -> None:
    assert found(nodes={})[IP].reason == "there are no nodes"


def test_a_change_of_one_service_leaves_the_others_as_they_are() -> None:
    view = Announceables()
    view.configure((POOL,), (ALL,), NODES)
    view.put(balanced(), (READY,))
    view.put(balanced("b", "192.0.2.11"), (endpoint_slice("b", "10.0.0.2"),))
    before = view.current()
    view.put(balanced(), (READY,))
    view.configure((POOL,), (ALL,), NODES)
    assert view.current() is before
    view.remove(ObjectName("default", "b"))
    after = view.current()
    assert after.keys() == {IP}
    assert after[IP] is before[IP]


def test_addresses_with_the_same_candidates_share_them() -> None:
    each = found(
        (balanced(), [READY]), (balanced("b", "192.0.2.11"), [endpoint_slice("b", "10.0.0.2")])
    )
    assert each[IP].candidates is each["192.0.2.11"].candidates
