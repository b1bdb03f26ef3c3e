"""Balancing other than round-robin."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import msgspec

from tests.core.flows.balancing import BACKENDS, CLIENT, NAMES, balancer, route, set_aside, some
from uproxy.core.flows.balancer import Balancer
from uproxy.core.route import Backend, BalancerKind


def numbers(*values: float) -> Iterator[float]:
    return iter(values)


class TestRandom:
    def test_uses_the_number_it_is_given(self) -> None:
        given = numbers(0.0, 0.34, 0.67, 0.999, 0.5)
        subject = Balancer(random=lambda: next(given))
        plain = route("abc", kind=BalancerKind.RANDOM)
        picks = [subject.pick(plain, plain.backends, CLIENT, 0.0) for _ in range(5)]
        assert "".join(NAMES[each] for each in picks) == "abccb"

    def test_among_those_that_are_left(self) -> None:
        given = numbers(0.0, 0.999)
        subject = Balancer(random=lambda: next(given))
        plain = route("abcd", kind=BalancerKind.RANDOM)
        set_aside(subject, BACKENDS["a"], plain.backends)
        picks = [
            subject.pick(plain, plain.backends, CLIENT, 0.5, [BACKENDS["d"]]) for _ in range(2)
        ]
        assert "".join(NAMES[each] for each in picks) == "bc"


class TestLeastConnections:
    ROUTE = route("abc", kind=BalancerKind.LEAST_CONNECTIONS)

    def pick(self, subject: Balancer, *tried: str) -> str:
        tries = [BACKENDS[each] for each in tried]
        return NAMES[subject.pick(self.ROUTE, self.ROUTE.backends, CLIENT, 0.5, tries)]

    def test_ties_go_in_turn(self) -> None:
        subject = balancer()
        assert [self.pick(subject) for _ in range(4)] == list("abca")

    def test_fewest_flows(self) -> None:
        subject = balancer()
        for letter in "aabcc":
            tally = subject.begin(BACKENDS[letter])
        assert [self.pick(subject), self.pick(subject)] == ["b", "b"]
        tally.active -= 2
        assert self.pick(subject) == "c"

    def test_flows_are_counted_until_they_end_though_the_backend_left_meanwhile(self) -> None:
        subject = balancer()
        tally = subject.begin(BACKENDS["a"])
        subject.retain(set(some("bc")))
        subject.retain(set(some("abc")))
        assert Counter(self.pick(subject) for _ in range(10)) == {"b": 5, "c": 5}
        tally.active -= 1
        assert "a" in [self.pick(subject) for _ in range(3)]

    def test_not_one_that_failed_or_was_tried(self) -> None:
        subject = balancer()
        subject.begin(BACKENDS["c"])
        set_aside(subject, BACKENDS["a"], self.ROUTE.backends)
        assert self.pick(subject, "b") == "c"


def test_sets_that_are_gone_are_forgotten() -> None:
    """A cluster that changes its endpoints all day must not fill the workers' memory."""
    subject = balancer()
    for number in range(1000):
        backends = tuple(Backend(f"10.9.{number // 250}.{number % 250}", port) for port in (1, 2))
        current = msgspec.structs.replace(route("ab"), backends=backends)
        assert subject.pick(current, backends, CLIENT, 0.0) in backends
        subject.retain(set(backends))
        del backends, current
    gc.collect()
    held = [each for each in gc.get_objects() if isinstance(each, Backend)]
    assert sum(each.address.startswith("10.9.") for each in held) <= 4
