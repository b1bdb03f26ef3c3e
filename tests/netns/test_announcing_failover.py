"""How an address gets from a node that is lost, or leaves, to another one, and when it does not.

Each fail-over is measured by a client that sends datagrams all the time, and by one that asks all
machines who has the address. `bench/failover.py` takes more samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.netns import kit
from tests.netns.announcements import Questions
from tests.netns.lb_segment import Announced, Machine, Segment, segment
from tests.netns.node import wait_for

pytestmark = kit.needs()

LIMIT = 6.0
"""Seconds from the loss of a node to the first answer of another one. On a machine that is not busy
with other tests it is 4 s at most, which `bench/failover.py` measures."""
OVERLAP = 1.5
"""Seconds for which two nodes may answer for one address: an announcement interval, and some."""
_FAULTS: dict[str, Callable[[Machine], None]] = {
    "kill -9": Machine.kill,
    "SIGSTOP": Machine.freeze,
    "power loss": Machine.power_off,
}


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """Three nodes, and Services that are announced."""
    with segment(tmp_path_factory.mktemp("segment"), 3) as made:
        made.start()
        made.serve_several()
        yield made


@pytest.fixture
def held(lan: Segment) -> Announced:
    """A node, and what it announces; clients are answered, and the other nodes are well."""
    lan.revive()
    found = lan.announced()
    for address in found.addresses:
        with lan.sending(address) as sent:
            wait_for("an answer", partial(sent.first, since=0.0))
    return found


def taker(lan: Segment, held: Announced, family: int, patience: float = 30) -> Machine:
    """The node that has an address instead, as soon as there is one."""
    address = held.addresses[family]
    return lan[lan.holder(address, other_than=held.node.name, patience=patience)]


@pytest.mark.parametrize("fault", _FAULTS)
def test_another_node_answers_soon(lan: Segment, held: Announced, fault: str) -> None:
    """MetalLB: "speaker_failover"."""
    with lan.sending(held.addresses[0]) as ipv4, lan.sending(held.addresses[1]) as ipv6:
        lost = time.monotonic()
        _FAULTS[fault](held.node)
        for sent in (ipv4, ipv6):
            wait_for("an answer", partial(sent.first, since=lost, other_than=held.node.name))
    for address, sent in zip(held.addresses, (ipv4, ipv6), strict=True):
        found = sent.first(since=lost, other_than=held.node.name)
        assert found is not None
        at, node = found
        assert at - lost <= LIMIT
        # The winner has said so to all, in the subnet of the address.
        assert lan.capture.unasked(address, since=lost, node=node)
        assert lan[node].holds(address)


def test_a_node_that_returns_takes_nothing_back(lan: Segment, held: Announced) -> None:
    """Each move cuts all flows (metallb#704)."""
    held.node.freeze()
    others = [taker(lan, held, family) for family in (0, 1)]
    held.node.thaw()
    lan.wait_live(held.node)
    since = time.monotonic()
    for address, other in zip(held.addresses, others, strict=True):
        with lan.asking(address) as questions:
            wait_for("many answers", partial(at_least, questions, 30))
        assert questions.answering() == {other.mac}
        assert not lan.capture.of(address, since=since, node=held.node.name)


def at_least(questions: Questions, number: int) -> bool:
    return len(questions.answers) >= number


def is_short(machine: Machine, address: str, seconds: int) -> bool:
    """Whether at most so many seconds of the lifetime of an address are left."""
    shown = machine.space.run("ip", "-o", "addr", "show").splitlines()
    line = next(each for each in shown if f" {address}/" in each)
    return int(line.partition("valid_lft ")[2].partition("sec")[0]) <= seconds


def answered_by(questions: Questions, machine: Machine, since: float = 0.0) -> bool:
    return machine.mac in questions.answering(since)


def test_a_frozen_node_loses_its_address_by_the_kernels_hand(lan: Segment, held: Announced) -> None:
    """Two nodes do not answer at the same time: the taker asks the wire first."""
    with lan.asking(held.addresses[0]) as first, lan.asking(held.addresses[1]) as second:
        for questions in (first, second):
            wait_for("an answer", partial(answered_by, questions, held.node))
        held.node.freeze()
        for family, questions in enumerate((first, second)):
            wait_for("an answer", partial(answered_by, questions, taker(lan, held, family)))
    for questions in (first, second):
        last = max(each.at for each in questions.answers if each.mac == held.node.mac)
        begin = min(each.at for each in questions.answers if each.mac != held.node.mac)
        assert last - begin <= OVERLAP
    assert not held.node.held()


@pytest.mark.parametrize("seconds", [3, 1], ids=["at once", "late"])
def test_a_control_process_that_is_restarted_within_2_s_moves_nothing(
    lan: Segment, held: Announced, seconds: int
) -> None:
    """`seconds` of the lifetimes are left, rounded up, when the next process starts: 1 from 2 s
    after the last renewal on, of which there is one every 0.5 s."""
    with lan.asking(held.addresses[0]) as first, lan.asking(held.addresses[1]) as second:
        held.node.kill(workers=False)
        for address in held.addresses:
            wait_for("the lifetime to pass", partial(is_short, held.node, address, seconds))
        held.node.start()
        lan.wait_live(held.node)
        since = time.monotonic()
        for questions in (first, second):
            wait_for("answers", partial(answered_by, questions, held.node, since))
    assert first.answering() == second.answering() == {held.node.mac}
    with lan.sending(held.addresses[0]) as sent:
        wait_for("an answer", partial(sent.first, since=since))
    assert {node for _, node in sent.answered} == {held.node.name}


def test_a_graceful_stop_hands_the_address_over_at_once(lan: Segment, held: Announced) -> None:
    """Nobody waits for the Lease to run out."""
    with lan.sending(held.addresses[0]) as ipv4, lan.sending(held.addresses[1]) as ipv6:
        began = time.monotonic()
        assert held.node.stop() == 0
        for sent in (ipv4, ipv6):
            wait_for("an answer", partial(sent.first, since=began, other_than=held.node.name))
    for sent in (ipv4, ipv6):
        found = sent.first(since=began, other_than=held.node.name)
        assert found is not None
        assert found[0] - began <= 2.0
    assert not held.node.held()


def test_a_pulled_cable_moves_the_address(lan: Segment, held: Announced) -> None:
    """The Lease is still renewed, over another interface (cilium#35507)."""
    held.node.carrier(False)
    others = [taker(lan, held, family, patience=10) for family in (0, 1)]
    held.node.carrier(True)
    lan.wait_live(held.node)
    for address, other in zip(held.addresses, others, strict=True):
        lan.wait_holders(address, other.name)
        assert not held.node.holds(address)


def test_the_last_node_announces_again_when_its_cable_is_back(
    lan: Segment, held: Announced
) -> None:
    """Switches forget, and neighbours have given up meanwhile (metallb#584)."""
    node = held.node
    for each in lan.nodes.values():
        if each is not node:
            each.stop()
    node.carrier(False)
    wait_for("no address", lambda: not node.held())
    since = time.monotonic()
    node.carrier(True)
    for address in held.addresses:
        said = partial(lan.capture.unasked, address, since=since, node=node.name)
        wait_for("an announcement", said)
