"""What an announced address is like: on the wire, on its node, and for clients."""

from __future__ import annotations

import itertools
import re
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.fake_api.kinds import EVENTS, LEASES, NODES
from tests.netns import kit
from tests.netns.announcements import Said
from tests.netns.lb_segment import PORT, Segment, segment, vip
from tests.netns.node import wait_for
from tests.netns.peers import ask

pytestmark = kit.needs()

WEB = vip(0)
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """Three nodes, each with a uproxy, and a Service "web" that is announced."""
    with segment(tmp_path_factory.mktemp("segment"), 3) as made:
        made.start()
        made.serve("web", WEB)
        made.holder(WEB[0])
        made.holder(WEB[1])
        yield made


def events(lan: Segment, reason: str, name: str = "web") -> list[dict[str, Any]]:
    found = lan.api.call(lambda server: [each.data for each in server.store.items(EVENTS).values()])
    return [
        each for each in found if each["reason"] == reason and each["regarding"]["name"] == name
    ]


def answers(
    lan: Segment, address: str, protocol: str = "TCP", name: str = "web", port: int = PORT
) -> bool:
    """Whether a client is answered by a pod."""
    return ask(lan.client.space, protocol, address, port, patience=2).split()[0] == name


@FAMILIES
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_mixed_protocol_services(lan: Segment, family: int, protocol: str) -> None:
    """MetalLB: "mixed protocol services". TCP and UDP answer at one address."""
    wait_for("an answer", lambda: answers(lan, WEB[family], protocol))


@FAMILIES
def test_the_announcer_alone_has_the_address(lan: Segment, family: int) -> None:
    address = WEB[family]
    holder = lan[lan.holder(address)]
    assert f"{address}/{128 if family else 32}" in holder.held()
    assert lan.holders(address) == {holder.name}
    with lan.asking(address) as questions:
        wait_for("several answers", lambda: len(questions.answers) >= 10)
    assert questions.answering() == {holder.mac}


@FAMILIES
def test_a_new_address_is_announced_in_every_form_and_for_five_seconds(
    lan: Segment, family: int
) -> None:
    """At once, and then 1.1 s apart: Linux ignores an announcement that comes within a second of
    another one (metallb#172)."""
    address = vip(1)[family]
    lan.serve(f"new{family}", [address])
    holder = lan[lan.holder(address)]

    def sent() -> list[list[Said]]:
        """Frames that came together."""
        said = lan.capture.unasked(address)
        groups: list[list[Said]] = []
        for each in said:
            if not groups or each.at - groups[-1][0].at > 0.5:
                groups.append([])
            groups[-1].append(each)
        return groups

    forms = ["NA"] if family else ["ARP request", "ARP reply"]
    number = 5 * len(forms)
    wait_for("five seconds of them", lambda: len(lan.capture.unasked(address)) >= number)
    for group in sent():
        assert {each.node for each in group} == {holder.name}
        assert {each.mac for each in group} == {holder.mac}
        assert [each.form for each in group] == forms
        assert all(each.override and each.to_all for each in group)
        if family:
            assert all(each.source.startswith("fe80:") for each in group)
    begins = [group[0].at for group in sent()]
    assert all(after - before >= 1.0 for before, after in itertools.pairwise(begins))
    lan.remove(f"new{family}")
    lan.wait_holders(address)


@FAMILIES
def test_the_lifetime_is_finite_and_renewed(lan: Segment, family: int) -> None:
    address = WEB[family]
    holder = lan[lan.holder(address)]
    began = time.monotonic()

    def outlived() -> bool:
        line = re.search(rf"{address}/.*\n\s+valid_lft (\w+)", holder.shown())
        assert line is not None, "the address went away"
        assert int(line[1].removesuffix("sec")) <= 3
        return time.monotonic() > began + 4

    wait_for("more than a lifetime", outlived)


@FAMILIES
def test_it_is_no_address_of_the_node(lan: Segment, family: int) -> None:
    """Others may not take it for one: not kubelet, not NodePorts, not as a source address."""
    address = WEB[family]
    holder = lan[lan.holder(address)]
    assert "deprecated" in next(line for line in holder.shown().splitlines() if address in line)
    with holder.space.socket(kit.family_of(address), socket.SOCK_DGRAM) as sock:
        sock.connect(((lan.client.ipv4, lan.client.ipv6)[family], 9))
        assert sock.getsockname()[0] == (holder.place.ipv4, holder.place.ipv6)[family]
    node = lan.api.call(lambda server: server.store.get(NODES, ("", holder.name)).data)
    assert address not in str(node["status"])
    # No NodePort is opened for it, as one is for each address of the node.
    frontends = {each["frontend"] for each in holder.running.status()["frontends"]}
    assert not any(each.endswith(f"{address}:30123") for each in frontends)


@FAMILIES
def test_different_services_sharing_the_same_ip_advertise_from_the_same_node(
    lan: Segment, family: int
) -> None:
    """MetalLB's case of this name; their endpoints are on different nodes."""
    address = vip(3)[family]
    share = {"metallb.io/allow-shared-ip": "both"}
    for number, name in enumerate((f"one{family}", f"other{family}")):
        port = {"name": "t", "port": PORT + number, "protocol": "TCP", "targetPort": 8080}
        lan.serve(name, [address], on=[f"n{number + 1}"], annotations=share, ports=[port])
    holder = lan.holder(address)
    for number, name in enumerate((f"one{family}", f"other{family}")):
        wait_for("an answer", partial(answers, lan, address, name=name, port=PORT + number))
        wait_for("an Event", partial(events, lan, "nodeAssigned", name))
        (event,) = events(lan, "nodeAssigned", name)
        assert f'"{holder}"' in event["note"]


def test_an_event_says_which_node_announces(lan: Segment) -> None:
    wait_for("the Events", lambda: len(events(lan, "nodeAssigned")) >= 1)
    notes = {each["note"] for each in events(lan, "nodeAssigned")}
    for address in WEB:
        assert any(f'"{lan.holder(address)}"' in note for note in notes)


def test_each_lease_goes_with_its_node(lan: Segment) -> None:
    def leases() -> dict[str, Any]:
        found = lan.api.call(lambda server: server.store.items(LEASES))
        return {name: each.data for (_, name), each in found.items() if "announcer" in name}

    wait_for("three Leases", lambda: len(leases()) == 3)
    for name, lease in leases().items():
        (owner,) = lease["metadata"]["ownerReferences"]
        assert (owner["kind"], f"uproxy-announcer-{owner['name']}") == ("Node", name)


def test_what_the_status_says(lan: Segment) -> None:
    holder = lan.holder(WEB[0])

    def said() -> dict[str, Any]:
        found = lan[holder].running.status()["loadBalancer"]["addresses"]
        return next((each for each in found if each["address"] == WEB[0]), {})

    wait_for("it is known who announces", lambda: said().get("node") == holder)
    assert said()["here"]
    assert said()["interface"] == "eth0"
    assert said()["reason"]
    assert said()["since"] > 1_700_000_000


class TestLocalPolicy:
    """externalTrafficPolicy."""

    @FAMILIES
    @pytest.mark.parametrize("policy", ["Cluster", "Local"])
    def test_external_traffic_policy(self, lan: Segment, family: int, policy: str) -> None:
        """MetalLB: "ExternalTrafficPolicy=Cluster", "=Local": the announcer is the pod's node."""
        address = vip(4)[family]
        name = f"{policy.lower()}{family}"
        lan.serve(name, [address], on=["n2"], externalTrafficPolicy=policy)
        holder = lan.holder(address)
        assert policy == "Cluster" or holder == "n2"
        for _ in range(5):
            assert ask(lan.client.space, "TCP", address, PORT).startswith(name)
        lan.remove(name)
        lan.wait_holders(address)

    @FAMILIES
    def test_the_address_follows_the_pod(self, lan: Segment, family: int) -> None:
        address = vip(5)[family]
        name = f"moving{family}"
        for node in ("n1", "n3", "n2"):
            lan.serve(name, [address], on=[node], externalTrafficPolicy="Local")
            lan.wait_holders(address, node)
            wait_for("an answer", lambda: answers(lan, address, name=name))
        lan.serve(name, [address], on=["-n2"], externalTrafficPolicy="Local")
        lan.wait_holders(address)

    def test_sharers_with_endpoints_on_different_nodes_are_refused(self, lan: Segment) -> None:
        """Whichever node announced it, one of the Services would not be reached (metallb#805)."""
        share = {"metallb.io/allow-shared-ip": "both"}
        for number, name in enumerate(("here", "there")):
            port = {"name": "t", "port": PORT + number, "protocol": "TCP", "targetPort": 8080}
            lan.serve(
                *(name, vip(6)),
                on=[f"n{number + 1}"],
                annotations=share,
                ports=[port],
                externalTrafficPolicy="Local",
                selector={"app": "both"},
            )

        def reason() -> str:
            found = lan["n1"].running.status()["loadBalancer"]["addresses"]
            return next((each["reason"] for each in found if each["address"] == vip(6)[0]), "")

        wait_for("a reason", lambda: "default/here" in reason() and "default/there" in reason())
        for address in vip(6):
            lan.wait_holders(address)
        for name in ("here", "there"):
            wait_for("an Event", partial(events, lan, "announceFailed", name))
