"""What becomes of addresses while the API server, or the segment, cannot be reached.

Without the API server a node goes on announcing until it hears another one. A node that takes an
address over writes that to the API server first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest

from tests.netns import kit
from tests.netns.announcements import Datagrams, Questions
from tests.netns.lb_segment import Announced, Machine, Segment, segment
from tests.netns.node import wait_for

pytestmark = kit.needs()

OVERLAP = 1.5
"""Seconds for which two nodes may answer for one address once they hear each other: they announce
it every 1.1 s as long as they are in doubt."""
GAP = 1.0
"""Seconds for which clients may get no answer although a node announces all the time."""


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """Three nodes, and Services that are announced."""
    with segment(tmp_path_factory.mktemp("segment"), 3) as made:
        made.start()
        made.serve_several()
        yield made


@pytest.fixture
def held(lan: Segment) -> Announced:
    """A node, and what it announces; the others are well."""
    lan.revive()
    return lan.announced()


def taker(lan: Segment, held: Announced, family: int) -> Machine:
    """The node that has an address instead, as soon as there is one."""
    return lan[lan.holder(held.addresses[family], other_than=held.node.name)]


def overlap(questions: Questions, one: Machine, other: Machine, since: float = 0.0) -> float:
    """Seconds for which both have answered."""
    answers = [each for each in questions.answers if each.at >= since]
    first, second = (
        [each.at for each in answers if each.mac == machine.mac] for machine in (one, other)
    )
    if not first or not second:
        return 0.0
    return min(first[-1], second[-1]) - max(first[0], second[0])


def longest_gap(sent: Datagrams) -> float:
    """Seconds between two answers that a client has got, at most."""
    times = [at for at, _ in sent.answered]
    return max(after - before for before, after in pairwise(times))


def test_an_outage_of_the_api_server_takes_nothing_down(lan: Segment, held: Announced) -> None:
    """It is longer than any Lease lasts, and than a taker waits. After it, nothing moves."""
    with (
        lan.asking(held.addresses[0]) as first,
        lan.asking(held.addresses[1]) as second,
        lan.sending(held.addresses[0]) as ipv4,
        lan.sending(held.addresses[1]) as ipv6,
    ):
        lan.api.stop()
        try:
            for questions in (first, second):
                wait_for("ten seconds", partial(_at_least, questions, 200), 60)
        finally:
            lan.api.start()
        for each in lan.nodes.values():
            lan.wait_live(each)
        for questions in (first, second):
            wait_for("more answers", partial(_at_least, questions, len(questions.answers) + 40))
    assert first.answering() == second.answering() == {held.node.mac}
    assert longest_gap(ipv4) <= GAP
    assert longest_gap(ipv6) <= GAP
    # While in doubt it announces now and then, so that any other announcer is heard soon.
    assert lan.capture.unasked(held.addresses[0], node=held.node.name)


def _at_least(questions: Questions, number: int) -> bool:
    return len(questions.answers) >= number


def test_a_holder_that_alone_is_cut_off_from_the_api_server_gives_way(
    lan: Segment, held: Announced
) -> None:
    with (
        lan.asking(held.addresses[0]) as first,
        lan.asking(held.addresses[1]) as second,
        lan.sending(held.addresses[0]) as ipv4,
        lan.sending(held.addresses[1]) as ipv6,
    ):
        held.node.cut(api=True)
        others = [taker(lan, held, family) for family in (0, 1)]
        for questions, other in zip((first, second), others, strict=True):
            wait_for("an answer", partial(_answers_last, questions, other))
        held.node.heal()
        lan.wait_live(held.node)
        since = time.monotonic()
        for questions in (first, second):
            wait_for("an answer", partial(questions.answering, since))
    for questions, other in zip((first, second), others, strict=True):
        assert questions.answering(since) == {other.mac}
        assert overlap(questions, held.node, other) <= OVERLAP
    assert longest_gap(ipv4) <= GAP
    assert longest_gap(ipv6) <= GAP


def _answers_last(questions: Questions, machine: Machine) -> bool:
    return questions.answers[-1].mac == machine.mac


def test_if_one_that_announces_nothing_is_cut_off_nothing_happens(
    lan: Segment, held: Announced
) -> None:
    other = next(each for each in lan.nodes.values() if each is not held.node)
    with lan.asking(held.addresses[0]) as first, lan.asking(held.addresses[1]) as second:
        other.cut(api=True)
        for questions in (first, second):
            wait_for("seconds", partial(_at_least, questions, 120))
        other.heal()
        lan.wait_live(other)
    assert first.answering() == second.answering() == {held.node.mac}


def test_if_wire_and_api_are_cut_another_takes_over_and_stays_after_it_is_whole_again(
    lan: Segment, held: Announced
) -> None:
    """Both announce while they are on different segments; the one that the API server names has it
    once there is one segment again."""
    with lan.asking(held.addresses[0]) as first, lan.asking(held.addresses[1]) as second:
        held.node.cut(wire=True, api=True)
        others = []
        for address in held.addresses:
            wait_for("two", partial(_two, lan, address), 30)
            (name,) = lan.holders(address) - {held.node.name}
            others.append(lan[name])
        for questions, other in zip((first, second), others, strict=True):
            wait_for("an answer", partial(_answers_last, questions, other))
        healed = time.monotonic()
        held.node.heal()
        lan.wait_live(held.node)
        others = [lan.wait_named(each, other_than=held.node.name) for each in held.addresses]
        since = time.monotonic()
        for questions in (first, second):
            wait_for("an answer", partial(questions.answering, since))
    for questions, other in zip((first, second), others, strict=True):
        assert questions.answering(since) == {other.mac}
        assert overlap(questions, held.node, other, healed) <= OVERLAP


def _two(lan: Segment, address: str) -> bool:
    return len(lan.holders(address)) == 2


def test_if_the_wire_alone_is_cut_the_address_is_announced_anew_when_it_is_whole(
    lan: Segment, held: Announced
) -> None:
    """The link stays up, so no node can know: the holder keeps it, and no other takes it."""
    held.node.cut(wire=True)
    with lan.asking(held.addresses[0]) as first:
        for other in lan.nodes.values():
            lan.wait_live(other)
        assert lan.holders(held.addresses[0]) == lan.holders(held.addresses[1]) == {held.node.name}
        held.node.heal()
        wait_for("an answer", first.answering)
    assert first.answering() == {held.node.mac}


def test_a_flapping_link_to_the_api_server_moves_nothing(lan: Segment, held: Announced) -> None:
    with lan.asking(held.addresses[0]) as first, lan.asking(held.addresses[1]) as second:
        for number in range(1, 4):
            held.node.cut(api=True)
            wait_for("a second", partial(_at_least, first, 30 * number))
            held.node.heal()
            lan.wait_live(held.node)
        wait_for("answers", partial(_at_least, second, 90))
    assert first.answering() == second.answering() == {held.node.mac}
