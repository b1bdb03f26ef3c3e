"""MetalLB's L2 cases with its own objects, under the names that they have in its test suite
(e2etest/l2tests): which nodes announce, and on which interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fake_api.kinds import ADVERTISEMENTS, EVENTS, L2_STATUSES, SERVICES
from tests.netns import kit
from tests.netns.lb_segment import POOL, PORT, Segment, segment, vip
from tests.netns.node import wait_for
from tests.netns.peers import ask

pytestmark = kit.needs()

NAMESPACE = "metallb-system"
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """Three nodes with two interfaces each, a uproxy on each, and a pool without advertisement."""
    with segment(tmp_path_factory.mktemp("segment"), 3, interfaces=2) as made:
        made.options = ("--preserve-client-ip", "never", "--lb", "metallb")
        made.apply(pool("web", *POOL.split(",")))
        made.start()
        yield made


@pytest.fixture(autouse=True)
def clean(lan: Segment) -> Iterator[None]:
    """No Service, no advertisement, no labels before each test."""
    yield
    for kind, namespace in ((SERVICES, "default"), (ADVERTISEMENTS, NAMESPACE)):
        for name in lan.api.call(lambda server, kind=kind: list(server.store.items(kind))):  # type: ignore[misc]
            lan.api.call(
                lambda server, kind=kind, namespace=namespace, name=name: server.delete(  # type: ignore[misc]
                    kind, name[1], namespace
                )
            )
    lan.apply(*(lan.node(name) for name in NODES))


def metallb(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "metallb.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def pool(name: str, *addresses: str, **spec: Any) -> dict[str, Any]:
    return metallb("IPAddressPool", name, {"addresses": list(addresses), **spec})


def advertisement(name: str = "all", **spec: Any) -> dict[str, Any]:
    return metallb("L2Advertisement", name, spec)


def at(*names: str) -> dict[str, Any]:
    """A selector of nodes."""
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(names)}
    return {"matchExpressions": [expression]}


def labelled(**labels: str) -> dict[str, Any]:
    return {"matchLabels": labels}


def prefer(*names: str, weight: int = 50) -> dict[str, Any]:
    return {"weight": weight, "preference": at(*names)}


def holder(lan: Segment, number: int, interface: str = "eth0") -> str:
    """The node that announces the IPv4 address of a number, on an interface; the IPv6 address is
    announced too, perhaps by another node."""
    ipv4, ipv6 = vip(number)
    lan.holder(ipv6)
    found = lan.holder(ipv4)
    wait_for(interface, lambda: f"{ipv4}/32" in lan[found].held(interface))
    return found


def check_holders(lan: Segment, number: int, *nodes: str) -> None:
    """Wait until exactly these nodes have both addresses of a number."""
    for address in vip(number):
        lan.wait_holders(address, *nodes)
        assert lan.holders(address) == set(nodes)


def answers(lan: Segment, number: int, name: str = "web") -> None:
    for address in vip(number):
        wait_for(
            "an answer",
            lambda address=address: ask(  # type: ignore[misc]
                lan.client.space, "TCP", address, PORT, patience=2
            ).startswith(name),
        )


def events(lan: Segment, reason: str) -> list[str]:
    found = lan.api.call(lambda server: [each.data for each in server.store.items(EVENTS).values()])
    return [each["note"] for each in found if each["reason"] == reason]


def statuses(lan: Segment) -> list[dict[str, Any]]:
    found = lan.api.call(
        lambda server: [each.data for each in server.store.items(L2_STATUSES).values()]
    )
    return [each["status"] for each in found if "status" in each]


class TestService:
    """e2etest/l2tests/l2.go"""

    def test_process_the_status_as_l2servicestatus(self, lan: Segment) -> None:
        lan.apply(advertisement())
        lan.serve("web", vip(0))
        node = holder(lan, 0)

        def said() -> bool:
            found = [each["node"] for each in statuses(lan)]
            return bool(found) and set(found) == lan.holders(vip(0)[0]) | lan.holders(vip(0)[1])

        wait_for("a ServiceL2Status", said)
        assert f'"{node}"' in " ".join(events(lan, "nodeAssigned"))
        lan.remove("web")
        wait_for("none", lambda: not statuses(lan))

    def test_a_pool_without_an_l2advertisement_is_not_announced(self, lan: Segment) -> None:
        lan.serve("silent", vip(1))
        wait_for("an Event", lambda: "L2Advertisement" in str(events(lan, "announceFailed")))
        assert not lan.holders(vip(1)[0])
        lan.apply(advertisement(ipAddressPools=["other"]))
        lan.apply(advertisement("web", ipAddressPools=["web"]))
        holder(lan, 1)

    def test_not_be_announced_from_a_node_with_a_networkunavailable_condition(
        self, lan: Segment
    ) -> None:
        lan.apply(advertisement())
        lan.serve("web", vip(2))
        node = holder(lan, 2)
        unavailable = {"type": "NetworkUnavailable", "status": "True"}
        lan.apply(lan.node(node, conditions=[unavailable]))
        assert lan.holder(vip(2)[0], other_than=node) != node

    def test_adding_nodeexcludebalancers_label(self, lan: Segment) -> None:
        label = "node.kubernetes.io/exclude-from-external-load-balancers"
        lan.apply(advertisement())
        lan.serve("web", vip(3))
        node = holder(lan, 3)
        lan.apply(lan.node(node, labels={label: ""}))
        other = lan.holder(vip(3)[0], other_than=node)
        # Where every node has it, as on a cluster of control planes, it is ignored.
        lan.apply(*(lan.node(each, labels={label: ""}) for each in NODES))
        answers(lan, 3)
        assert lan.holders(vip(3)[0]) <= {node, other}

    @pytest.mark.parametrize("mode", ["range", "prefix"])
    def test_set_different_addresspools_ranges_modes(self, lan: Segment, mode: str) -> None:
        """And "requesting a specific address pool"."""
        ranges = {
            "range": ("192.0.2.230-192.0.2.233", "2001:db8:1::e0-2001:db8:1::e3"),
            "prefix": ("192.0.2.232/30", "2001:db8:1::e8/126"),
        }
        lan.apply(pool(mode, *ranges[mode], autoAssign=False), advertisement())
        wanted = {"metallb.io/address-pool": mode}
        lan.serve("web", (), assigned=False, annotations=wanted)

        def assigned() -> list[str]:
            found = lan.api.call(lambda server: server.store.get(SERVICES, ("default", "web")).data)
            return [each["ip"] for each in found["status"]["loadBalancer"].get("ingress", [])]

        wait_for("two addresses", lambda: len(assigned()) == 2)
        first = ranges[mode][0].split("-")[0].split("/")[0]
        assert first in assigned()
        for address in assigned():
            wait_for(
                "an answer",
                lambda address=address: ask(  # type: ignore[misc]
                    lan.client.space, "TCP", address, PORT, patience=2
                ).startswith("web"),
            )
        lan.remove("web")
        for address in assigned_to(ranges[mode]):
            lan.wait_holders(address)

    def test_loadbalancer_class(self, lan: Segment) -> None:
        """Of another class, it is left alone, although its address is in the pool."""
        lan.apply(advertisement())
        lan.serve("theirs", vip(4), loadBalancerClass="example.com/other")
        lan.serve("ours", vip(5), loadBalancerClass="uproxy.dev/lb")
        holder(lan, 5)
        assert not lan.holders(vip(4)[0])


def assigned_to(ranges: tuple[str, str]) -> list[str]:
    return [each.split("-")[0].split("/")[0] for each in ranges]


class TestInterfaceSelector:
    """e2etest/l2tests/interface_selector.go"""

    def test_validate_the_lb_ips_mac_and_modify_the_interface(self, lan: Segment) -> None:
        lan.apply(advertisement(interfaces=["eth1"], nodeSelectors=[at("n1")]))
        lan.serve("web", vip(6))
        assert holder(lan, 6, "eth1") == "n1"
        with lan.asking(vip(6)[0]) as questions:
            mac = lan["n1"].mac_of("eth1")
            wait_for("eth1", lambda: mac in questions.answering())
            lan.apply(advertisement(interfaces=["eth0"], nodeSelectors=[at("n1")]))
            wait_for("eth0", lambda: questions.answers[-1].mac == lan["n1"].mac)
        written = [[{"name": "eth0"}]]
        wait_for("the status", lambda: [each["interfaces"] for each in statuses(lan)] == written)

    def test_specify_not_existing_interfaces(self, lan: Segment) -> None:
        lan.apply(advertisement(interfaces=["eth9"]))
        lan.serve("web", vip(7))
        wait_for("an Event", lambda: "eth9" in str(events(lan, "announceFailed")))
        assert not lan.holders(vip(7)[0])

    def test_address_pool_with_two_l2advertisements(self, lan: Segment) -> None:
        """What they allow adds up."""
        lan.apply(
            advertisement("one", interfaces=["eth9"]), advertisement("other", interfaces=["eth1"])
        )
        lan.serve("web", vip(8))
        assert holder(lan, 8, "eth1") in NODES

    def test_node_selector(self, lan: Segment) -> None:
        """Each node has an interface of its own."""
        lan.apply(
            advertisement("one", interfaces=["eth1"], nodeSelectors=[at("n1")]),
            advertisement("other", interfaces=["eth0"], nodeSelectors=[at("n2")]),
        )
        lan.serve("web", vip(9), on=["n1"], externalTrafficPolicy="Local")
        assert holder(lan, 9, "eth1") == "n1"
        lan.serve("web", vip(9), on=["n2"], externalTrafficPolicy="Local")
        check_holders(lan, 9, "n2")
        assert holder(lan, 9, "eth0") == "n2"


class TestNodeSelector:
    """e2etest/l2tests/node_selector.go"""

    def test_it_follows_the_selector(self, lan: Segment) -> None:
        lan.serve("web", vip(10))
        for names in (("n1",), ("n3",), ("n2",)):
            lan.apply(advertisement(nodeSelectors=[at(*names)]))
            check_holders(lan, 10, *names)
        lan.apply(advertisement(nodeSelectors=[at("n9")]))
        check_holders(lan, 10)

    def test_two_advertisements_add_up(self, lan: Segment) -> None:
        lan.apply(
            advertisement("one", nodeSelectors=[at("n1")]),
            advertisement("other", nodeSelectors=[at("n2")]),
        )
        lan.serve("web", vip(11), on=["n1", "n2"], externalTrafficPolicy="Local")
        first = holder(lan, 11)
        assert first in ("n1", "n2")
        other = {"n1": "n2", "n2": "n1"}[first]
        lan.serve("web", vip(11), on=[other], externalTrafficPolicy="Local")
        check_holders(lan, 11, other)


class TestServiceSelector:
    """e2etest/l2tests/service_selector.go"""

    def test_only_selected_services_are_announced(self, lan: Segment) -> None:
        lan.apply(advertisement(ipAddressPools=["web"], serviceSelectors=[labelled(tier="front")]))
        lan.serve("front", vip(12), labels={"tier": "front"})
        lan.serve("back", vip(13), labels={"tier": "back"})
        holder(lan, 12)
        assert not lan.holders(vip(13)[0])
        lan.serve("back", vip(13), labels={"tier": "front"})
        holder(lan, 13)

    def test_exactly_one_node_announces_if_both_advertisements_match(self, lan: Segment) -> None:
        lan.apply(
            *(
                advertisement(name, nodeSelectors=[at(name)], serviceSelectors=[labelled(app="a")])
                for name in ("n1", "n2")
            )
        )
        lan.serve("web", vip(14), labels={"app": "a"})
        assert holder(lan, 14) in ("n1", "n2")

    def test_no_node_announces_if_no_advertisement_matches_both(self, lan: Segment) -> None:
        lan.apply(
            advertisement("one", ipAddressPools=["web"], serviceSelectors=[labelled(app="b")]),
            advertisement("other", ipAddressPools=["no"], serviceSelectors=[labelled(app="a")]),
        )
        lan.serve("web", vip(15), labels={"app": "a"})
        wait_for("an Event", lambda: "default/web" in str(events(lan, "announceFailed")))
        assert not lan.holders(vip(15)[0])

    def test_one_of_several_selectors_is_enough(self, lan: Segment) -> None:
        lan.apply(advertisement(serviceSelectors=[labelled(app="a"), labelled(app="b")]))
        lan.serve("web", vip(16), labels={"app": "b"})
        assert holder(lan, 16) in NODES

    def test_a_shared_address_is_refused(self, lan: Segment) -> None:
        """allow-shared-ip with serviceSelectors: one might be selected and the other not."""
        lan.apply(advertisement(serviceSelectors=[labelled(app="a")]))
        for number, name in enumerate(("one", "other")):
            port = {"name": "t", "port": PORT + number, "protocol": "TCP", "targetPort": 8080}
            share = {"metallb.io/allow-shared-ip": "key"}
            lan.serve(name, vip(17), labels={"app": "a"}, ports=[port], annotations=share)
        wait_for("an Event", lambda: "serviceSelectors" in str(events(lan, "announceFailed")))
        assert not lan.holders(vip(17)[0])


class TestPreferredNode:
    """e2etest/l2tests/preferred_node.go"""

    def test_prefer_and_fall_back_and_reclaim(self, lan: Segment) -> None:
        lan.apply(advertisement(preferredNodeSelectors=[prefer("n2")]))
        lan.serve("web", vip(18))
        check_holders(lan, 18, "n2")
        lan["n2"].freeze()
        try:
            assert lan.holder(vip(18)[0], other_than="n2") in ("n1", "n3")
        finally:
            lan["n2"].thaw()
        check_holders(lan, 18, "n2")

    def test_without_a_match_it_is_as_without_preferences(self, lan: Segment) -> None:
        lan.apply(advertisement())
        lan.serve("web", vip(19))
        before = holder(lan, 19)
        lan.apply(advertisement(preferredNodeSelectors=[prefer("n9")]))
        lan.serve("other", vip(20))
        holder(lan, 20)
        assert lan.holders(vip(19)[0]) == {before}

    def test_re_elect_on_spec_change(self, lan: Segment) -> None:
        lan.serve("web", vip(21))
        for name in ("n1", "n3"):
            lan.apply(advertisement(preferredNodeSelectors=[prefer(name)]))
            check_holders(lan, 21, name)

    def test_node_selectors_are_hard(self, lan: Segment) -> None:
        lan.apply(advertisement(nodeSelectors=[at("n1")], preferredNodeSelectors=[prefer("n2")]))
        lan.serve("web", vip(22))
        check_holders(lan, 22, "n1")

    def test_disjoint_sets_of_nodes(self, lan: Segment) -> None:
        """Each advertisement prefers a node of its own; the greater weight decides between them."""
        lan.apply(
            advertisement(
                "one", nodeSelectors=[at("n1")], preferredNodeSelectors=[prefer("n1", weight=20)]
            ),
            advertisement(
                "other",
                nodeSelectors=[at("n2", "n3")],
                preferredNodeSelectors=[prefer("n3", weight=50)],
            ),
        )
        lan.serve("web", vip(26))
        check_holders(lan, 26, "n3")

    def test_weights_add_up(self, lan: Segment) -> None:
        lan.apply(
            advertisement("one", preferredNodeSelectors=[prefer("n1", "n2", weight=60)]),
            advertisement("other", preferredNodeSelectors=[prefer("n2", weight=30), prefer("n3")]),
        )
        lan.serve("web", vip(23))
        check_holders(lan, 23, "n2")

    def test_scoped_by_service_selectors(self, lan: Segment) -> None:
        lan.apply(
            advertisement(
                "one", serviceSelectors=[labelled(app="a")], preferredNodeSelectors=[prefer("n1")]
            ),
            advertisement(
                "other", serviceSelectors=[labelled(app="b")], preferredNodeSelectors=[prefer("n3")]
            ),
        )
        lan.serve("a", vip(24), labels={"app": "a"})
        lan.serve("b", vip(25), labels={"app": "b"})
        check_holders(lan, 24, "n1")
        check_holders(lan, 25, "n3")
