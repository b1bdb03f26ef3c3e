"""The segment that tests of announcing run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_api.kinds import NODES
from tests.netns import kit
from tests.netns.lb_segment import Segment, segment, vip
from tests.netns.node import wait_for
from tests.netns.peers import SILENCE, ask, ping, pod

pytestmark = kit.needs()


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    with segment(tmp_path_factory.mktemp("segment"), 2) as made:
        yield made


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_it_shows_who_answers_for_an_address(lan: Segment, family: int) -> None:
    address = vip(1)[family]
    first, second = lan["n1"], lan["n2"]
    with lan.asking(address) as questions:
        first.space.run("ip", "addr", "add", address, "dev", "eth0", "nodad")
        wait_for("an answer", lambda: questions.answering() == {first.mac})
        second.space.run("ip", "addr", "add", address, "dev", "eth0", "nodad")
        wait_for("two", lambda: questions.answering() == {first.mac, second.mac})
        first.cut(wire=True)
        since = questions.answers[-1].at + 1.0
        wait_for("one", lambda: questions.answering(since) == {second.mac})
        first.heal()
        wait_for("two again", lambda: first.mac in questions.answering(since))
    for each in (first, second):
        assert lan.holders(address) >= {each.name}
        each.space.run("ip", "addr", "del", f"{address}/{128 if family else 32}", "dev", "eth0")
    assert not lan.holders(address)
    said = lan.capture.of(address)
    assert {each.node for each in said} == {"n1", "n2"}
    assert {each.form for each in said} == {"NA" if family else "ARP reply"}
    assert {lan.node_of(each.mac) for each in said if each.node == "n1"} == {"n1"}
    assert not lan.capture.unasked(address)


def test_links_are_cut_one_by_one(lan: Segment) -> None:
    node = lan["n1"]
    lan.serve("it", vip(2))
    target = lan.pods["it"].place
    assert ping(lan.client.space, node.place.ipv4) == node.place.ipv4
    node.cut(wire=True)
    assert ping(lan.client.space, node.place.ipv4, patience=0.2) == SILENCE
    assert "state UP" in node.shown()
    assert ping(node.space, target.ipv6) == target.ipv6
    assert ping(node.space, "203.0.113.1") == "203.0.113.1"
    node.heal()
    node.cut(api=True)
    assert ping(node.space, "203.0.113.1", patience=0.2) == SILENCE
    assert ping(lan.client.space, node.place.ipv6) == node.place.ipv6
    node.heal()
    node.carrier(False)
    wait_for("no carrier", lambda: "NO-CARRIER" in node.shown())
    node.carrier(True)
    wait_for("carrier", lambda: "NO-CARRIER" not in node.shown())
    assert lan.api.call(lambda server: len(server.store.items(NODES))) == 2


def test_datagrams_show_who_forwarded_them(lan: Segment) -> None:
    """A node is known by its address towards pods; the client itself by none."""
    with (
        pod("relay", lan["n1"].place, 8080),
        lan.sending(lan["n1"].place.ipv6, 8080) as sent,
    ):
        wait_for("answers", lambda: sent.first(since=0.0))
    found = sent.first(since=0.0)
    assert found is not None
    assert found[1] == lan.client.ipv6
    assert sent.first(since=found[0] + 1000) is None
    lan.serve("other", vip(3))
    answer = ask(lan["n2"].space, "UDP", lan.pods["other"].place.ipv4, 8080)
    assert lan.by_pod_address[answer.split()[1]] == "n2"
