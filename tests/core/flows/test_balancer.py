from __future__ import annotations

import itertools
import re

import pytest

from tests.core.flows.balancing import (
    BACKENDS,
    CLIENT,
    LETTERS,
    NAMES,
    balancer,
    route,
    set_aside,
    some,
)
from uproxy.core.flows.ejection import FAILURES, REMEMBERED
from uproxy.core.route import Backend, BalancerKind


class Play:
    """One ServicePortName. Words of a script: `=abc` the backends are now a, b and c; `sticky` and
    `plain` switch affinity (10 s); `+5` five seconds pass; `3>a` client 3 is sent to a, which
    answers; `3>a!` to a, which fails, so client 3 excludes it until it succeeds; `3>-` to none;
    `a!2` flows of others to a fail twice.
    """

    def __init__(self) -> None:
        self.balancer = balancer()
        self.route = route()
        self.now = 0.0
        self.tried: dict[str, list[Backend]] = {}

    def check_step(self, word: str) -> None:
        if word.startswith("="):
            self.route = route(word[1:], self.route.affinity_timeout)
            self.balancer.retain(set(self.route.backends))
        elif word in ("sticky", "plain"):
            timeout = 10 if word == "sticky" else 0
            self.route = route("".join(NAMES[each] for each in self.route.backends), timeout)
        elif word.startswith("+"):
            self.now += float(word[1:])
        elif match := re.fullmatch(r"([a-z])!(\d)", word):
            for _ in range(int(match[2])):
                self.fail(BACKENDS[match[1]])
        else:
            self.check_flow(word)

    def fail(self, backend: Backend) -> None:
        self.balancer.failed(backend, self.route.backends, self.now, "ECONNREFUSED")

    def check_flow(self, word: str) -> None:
        match = re.fullmatch(r"(\d+)>([a-z-])(!?)", word)
        assert match, word
        client, letter, failure = f"192.0.2.{match[1]}", match[2], match[3]
        tried = self.tried.setdefault(client, [])
        picked = self.balancer.pick(self.route, self.route.backends, client, self.now, tried)
        assert NAMES[picked] == letter, word
        if picked is None:
            return
        if failure:
            self.fail(picked)
            tried.append(picked)
        else:
            self.balancer.succeeded(self.route, picked, client, self.now)
            tried.clear()


def check_picks(script: str) -> None:
    """Words before the first `name:` and after it concern different ports."""
    ports = {"": Play()}
    name = ""
    for word in script.split():
        if word.endswith(":"):
            name = word
            ports.setdefault(name, Play())
        else:
            ports[name].check_step(word)


@pytest.mark.parametrize(
    "script",
    [
        # R1 and R2 are about endpoints without a host or with a port of 0 or less. Those never
        # get as far as a balancer here: decoding refuses or drops them.
        pytest.param("=abc 1>a 1>b 1>c", id="R2 the valid endpoints, all of them, are used"),
        pytest.param("1>-", id="R3 LoadBalanceFailsWithNoEndpoints"),
        pytest.param("=a 1>a 1>a 1>a 1>a", id="R4 WorksWithSingleEndpoint"),
        # Legacy shuffles each new list. Here its order is kept, and workers start apart instead.
        pytest.param("=abc 1>a 1>b 1>c 1>a", id="R5 WithMultipleEndpoints"),
        pytest.param(
            "p: =aab 1>a 1>a 1>b q: =cde 1>c p: 1>a q: 1>d p: 1>a q: 1>e 1>c",
            id="R6 MultipleEndpointsMultiplePorts",
        ),
        # Legacy begins the new list at index 0; here it goes on where it was in the cycle, as
        # frequent changes would otherwise send most flows to the first backend.
        pytest.param(
            "=abc 1>a 1>b 1>c 1>a 1>b =de 1>e 1>d 1>e = 1>-",
            id="R7 MultipleEndpointsAndUpdates: the cycle goes on",
        ),
        pytest.param(
            "foo: =abc 1>a 1>b bar: =de 1>d foo: 1>c = 1>- bar: 1>e 1>d",
            id="R8 WithServiceRemoval",
        ),
        # Legacy gives clients their first endpoint in turn. Here a rendezvous hash does, so that
        # workers and nodes agree; 192.0.2.4 hashes to a, .1 to b and .2 to c.
        pytest.param(
            "sticky =abc 4>a 4>a 4>a 1>b 1>b 1>b 2>c 2>c 2>c 4>a 1>b 2>c 2>c 1>b 4>a",
            id="R9 StickyWorksWithNewServiceCalledFirst",
        ),
        pytest.param(
            "=ab 1>a 1>b sticky 3>a 3>a 1>b 1>b 4>a 3>a 1>b 4>a",
            id="R10 StickyWorksWithNewServiceCalledSecond",
        ),
        # As in legacy, but for which client gets which backend: client 2 moves from c to its next
        # best, b; new clients go where they hash to, 3, 5 and 6 to the new d among them.
        pytest.param(
            "sticky =abc 4>a 1>b 2>c =ab 4>a 1>b 2>b =abd 4>a 1>b 2>b 3>d 5>d 7>b 8>a",
            id="R11 StickyWithMultipleEndpointsRemoveOne",
        ),
        pytest.param(
            "sticky =abc 4>a 1>b 2>c =de 4>d 10>e 4>d 10>e 4>d = 4>- 10>-",
            id="R12 StickyWithMultipleEndpointsAndUpdates",
        ),
        pytest.param(
            "foo: sticky =abc 4>a 1>b bar: sticky =ab 3>a 1>b foo: = 4>- 1>- bar: 3>a 1>b",
            id="R13 StickyWithServiceRemoval",
        ),
        # Legacy's affinityReset takes the next endpoint in turn, also one that was just tried, and
        # never remembers which have failed. Here an attempt excludes those before it, the rest is
        # hashed, the pin moves with the success, and other clients keep theirs.
        pytest.param(
            "sticky =abc 4>a 1>b 2>c 4>a! 4>b! 4>c 4>c 2>c +1 1>b 4>c",
            id="R14 StickyWithEndpointFails: next best, and the pin moves",
        ),
        pytest.param(
            "sticky =abc 4>a 4>a! 4>b! 4>c! 4>-", id="R14 each backend is tried once for a flow"
        ),
    ],
)
def test_as_the_legacy_round_robin_balancer(script: str) -> None:
    check_picks(script)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("=abc 1>a =abc 1>b =abc 1>c", id="an equal set changes nothing"),
        pytest.param("=abc 1>a =bc 1>b 1>c", id="the backend just used leaves"),
        pytest.param("=abc 1>a =ac 1>c 1>a", id="the next backend leaves"),
        pytest.param("=abc 1>a 1>b =abcd 1>c 1>d 1>a", id="a backend comes at the end"),
        pytest.param("=bcd 1>b 1>c =abcd 1>d 1>a", id="a backend comes at the front"),
        pytest.param("=abcd 1>a 1>b =efgh 1>g 1>h 1>e", id="all replaced: as far as it was"),
        pytest.param("=abc 1>a 1>b 1>c =abcd 1>a", id="after a whole round it starts over"),
        pytest.param("=abc 1>a = 1>- =abc 1>b", id="an outage in between"),
    ],
)
def test_rotation_goes_on_when_backends_change(script: str) -> None:
    check_picks(script)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("=abc a!3 1>b 1>c 1>b 1>c", id="left out after three failures, without bias"),
        pytest.param("=abc a!2 1>a 1>b 1>c 1>a", id="but not after two"),
        pytest.param("=abc 1>a! 1>b 2>c 2>a 2>b", id="one failure concerns its own flow"),
        pytest.param("=ab a!2 1>a a!2 1>b 1>a", id="a success in between starts over"),
        pytest.param("=ab a!3 1>b +0.99 2>b 2>b +0.01 2>a 2>b", id="for a second"),
        pytest.param("=ab a!3 +1 a!1 2>b +1.9 3>b 3>b +0.1 3>a", id="after one more, for two"),
        pytest.param("=ab a!9 +1 2>a 2>b", id="failures while it is aside do not count"),
        pytest.param("=ab a!3 +1 2>a a!2 3>b 3>a", id="success makes up for it"),
        pytest.param("=ab 1>a! 1>b! 1>-", id="all tried"),
        pytest.param("=ab a!3 1>b! 1>a 2>b", id="one aside is used if there is no other left"),
        pytest.param("=ab a!3 b!9 2>b 2>b", id="of two one"),
        pytest.param("=abc a!3 b!9 1>b 1>c 1>b", id="of three one"),
        pytest.param("=abcd a!3 b!3 c!9 1>c 1>d 1>c", id="of four two"),
        pytest.param("=ab a!3 b!5 +1 b!1 1>a 1>a", id="when it is back, the other may be"),
        pytest.param("=a a!9 2>a 3>a", id="never the last"),
        pytest.param("=abcd a!3 +0.5 b!3 =ab 1>a 1>a", id="half of those that are left"),
        pytest.param("=ab a!3 =b 2>b =ab 2>b 2>a", id="one that comes back is another pod"),
        pytest.param("=ab a!3 +1 b!3 3>a 3>a", id="the others' failures are their own"),
    ],
)
def test_backends_that_fail_are_set_aside(script: str) -> None:
    check_picks(script)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sticky =ab 1>b =abd 1>b 6>d", id="a newcomer takes only new clients"),
        pytest.param("sticky =ab 1>b =abd +9 1>b +9 1>b +9 1>b", id="sliding timeout"),
        pytest.param("sticky =ab 1>b =b =ab =abd 1>b", id="an unrelated backend goes and comes"),
        pytest.param("sticky =ab 1>b =a =ab =abd 1>d", id="its backend left: the pin is void"),
        pytest.param("sticky =ab 1>b = =abd 1>b", id="kubernetes#25314: all gone, then back"),
        pytest.param("=abd 1>a sticky 1>d plain 1>b 1>d", id="switched on and off, live"),
        pytest.param("sticky =ab 1>b plain 1>a sticky =abd 1>d", id="off forgets the pins"),
        pytest.param("sticky =abc 1>b! 1>c +1 1>c", id="no way back after a recovery"),
        pytest.param("sticky =abc 1>b b!3 1>c 1>c", id="set aside: pinned clients move"),
        pytest.param("sticky =a 1>a! 1>- 2>a", id="the only one is always used"),
    ],
)
def test_affinity(script: str) -> None:
    check_picks(script)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sticky =abc 1>b +10 1>a 1>a +9 1>a +10 1>b +10 1>c", id="takes its turn"),
        pytest.param("sticky =abc 1>b 2>c +10 1>a 2>b 1>a 2>b", id="and so do others"),
        pytest.param("sticky =abc 1>b +10 5>c 1>a 5>c", id="a new client does not"),
        pytest.param("sticky =abc 1>b +10 1>a! 1>b 1>b +9 1>b", id="one that fails is passed over"),
        pytest.param("sticky =abc 2>c +10 a!3 2>b 2>b", id="one that is set aside, too"),
        pytest.param("sticky =abc 1>b +10 =ac 1>c", id="its backend left: by the hash, as before"),
        pytest.param("sticky =abc 1>b +10 =ac =abc 1>b", id="even if it returned"),
        pytest.param("sticky =abc 1>b +10 = =abc 1>a", id="kubernetes#25314: an outage meanwhile"),
        pytest.param("sticky =abc 1>b +10 plain 1>a sticky 1>b", id="off forgets expired pins"),
        pytest.param("sticky =abc 1>b +86409 2>c 1>a", id="nearly a day later"),
        pytest.param("sticky =abc 1>b +86410 2>c 1>b", id="a day later it counts as new"),
    ],
)
def test_a_client_that_comes_back_after_its_timeout_is_balanced(script: str) -> None:
    check_picks(script)


def test_flows_that_a_returning_client_begins_at_once_go_to_one_backend() -> None:
    """A browser opens six connections, and picks are made before any of them has succeeded."""
    subject, sticky = balancer(), route("abcd", timeout=10)
    subject.succeeded(sticky, BACKENDS["b"], CLIENT, 0.0)
    picks = {subject.pick(sticky, sticky.backends, CLIENT, 10.0) for _ in range(6)}
    assert picks == {BACKENDS["a"]}
    # All of them fail, which pins the client nowhere.
    for _ in range(FAILURES):
        subject.failed(BACKENDS["a"], sticky.backends, 10.0, "ECONNREFUSED")
    picks = {subject.pick(sticky, sticky.backends, CLIENT, 10.5) for _ in range(6)}
    assert picks == {BACKENDS["b"]}
    assert subject.pick(sticky, some("cd"), CLIENT, 10.5) in some("cd")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param(BalancerKind.ROUND_ROBIN, "a", id="round robin"),
        pytest.param(BalancerKind.RANDOM, "c", id="random, where the number is 0.5"),
        pytest.param(BalancerKind.LEAST_CONNECTIONS, "d", id="least connections"),
    ],
)
def test_a_returning_client_is_balanced_as_the_service_says(
    kind: BalancerKind, expected: str
) -> None:
    subject, sticky = balancer(), route("abcd", timeout=10, kind=kind)
    for letter in "abc":
        subject.begin(BACKENDS[letter])
    subject.succeeded(sticky, BACKENDS["b"], CLIENT, 0.0)
    assert subject.pick(sticky, sticky.backends, CLIENT, 10.0) == BACKENDS[expected]


def test_where_clients_come_to_any_worker_the_hash_decides_again() -> None:
    subject, sticky = balancer(), route("abc", timeout=10)
    subject.steered = False
    subject.succeeded(sticky, BACKENDS["b"], CLIENT, 0.0)
    assert subject.pick(sticky, sticky.backends, CLIENT, 10.0) == BACKENDS["b"]


def test_a_pin_moves_only_with_a_success() -> None:
    subject, sticky = balancer(), route("abc", timeout=10)
    subject.succeeded(sticky, BACKENDS["b"], CLIENT, 0.0)
    other = subject.pick(sticky, sticky.backends, CLIENT, 1.0, [BACKENDS["b"]])
    assert other not in (None, BACKENDS["b"])
    assert subject.pick(sticky, sticky.backends, CLIENT, 1.0) == BACKENDS["b"]


def test_a_pin_outside_of_the_set_in_use_does_not_count_but_stays() -> None:
    # externalTrafficPolicy Local: the same client through another frontend has another set.
    subject, sticky = balancer(), route("abc", timeout=10)
    subject.succeeded(sticky, BACKENDS["b"], CLIENT, 0.0)
    assert subject.pick(sticky, some("ac"), CLIENT, 1.0) in some("ac")
    assert subject.pick(sticky, sticky.backends, CLIENT, 1.0) == BACKENDS["b"]


def test_the_timeout_is_read_live() -> None:
    subject = balancer()
    subject.succeeded(route("ab", timeout=100), BACKENDS["b"], CLIENT, 0.0)
    long, short = route("abd", timeout=100), route("abd", timeout=5)
    assert subject.pick(long, long.backends, CLIENT, 6.0) == BACKENDS["b"]
    assert subject.pick(short, short.backends, CLIENT, 12.0) == BACKENDS["a"]


def test_two_sets_in_use_rotate_independently() -> None:
    # With one cursor for both, a set of four taking turns with another would see every second.
    subject, subset = balancer(), some("a")
    whole = route("abcd")
    seen = []
    for _ in range(4):
        seen.append(NAMES[subject.pick(whole, whole.backends, CLIENT, 0.0)])
        subject.pick(whole, subset, CLIENT, 0.0)
    assert sorted(seen) == list("abcd")


def test_equal_sets_of_two_frontends_rotate_together() -> None:
    subject, one, other = balancer(), route("abc"), route("abc")
    picks = [subject.pick(each, each.backends, CLIENT, 0.0) for each in (one, other, one, other)]
    assert [NAMES[each] for each in picks] == list("abca")


def test_rotation_survives_any_number_of_updates() -> None:
    subject = balancer()
    picks = []
    for _ in range(1000):
        fresh = route("abc")
        picks.append(subject.pick(fresh, fresh.backends, CLIENT, 0.0))
    assert [NAMES[each] for each in picks] == (list("abc") * 334)[:1000]


def test_sets_are_told_apart_though_they_come_and_go() -> None:
    # A tuple that is gone may leave its id() to another one.
    subject = balancer()
    letters = itertools.cycle(LETTERS)
    for _ in range(2000):
        backends = (BACKENDS[next(letters)], BACKENDS[next(letters)], BACKENDS[next(letters)])
        assert subject.pick(route(), backends, CLIENT, 0.0) in backends


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        pytest.param(0.0, "abcd", id="first worker"),
        pytest.param(0.25, "bcda", id="second of four"),
        pytest.param(0.99, "dabc", id="last of a hundred"),
    ],
)
def test_offset_is_where_the_rotation_starts(offset: float, expected: str) -> None:
    subject, plain = balancer(offset), route("abcd")
    picks = [subject.pick(plain, plain.backends, CLIENT, 0.0) for _ in range(4)]
    assert "".join(NAMES[each] for each in picks) == expected


def test_many_flows_that_fail_at_once_count_as_one_failure() -> None:
    subject, plain = balancer(), route("ab")
    for _ in range(100):
        subject.failed(BACKENDS["a"], plain.backends, 0.0, "ECONNREFUSED")
    picks = {subject.pick(plain, plain.backends, CLIENT, 1.0) for _ in range(2)}
    assert picks == set(some("ab"))


def test_setting_aside_grows_to_half_a_minute() -> None:
    subject, plain = balancer(), route("ab")
    now, pauses = 0.0, []
    for _ in range(FAILURES - 1):
        subject.failed(BACKENDS["a"], plain.backends, now, "ECONNREFUSED")
    for _ in range(7):
        subject.failed(BACKENDS["a"], plain.backends, now, "ECONNREFUSED")
        start = now
        while BACKENDS["a"] not in [
            subject.pick(plain, plain.backends, CLIENT, now) for _ in range(2)
        ]:
            now += 0.5
        pauses.append(now - start)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_failures_that_are_long_ago_do_not_count() -> None:
    """A backend of syslog that restarts once a day never shows that it is back."""
    subject, plain = balancer(), route("ab")
    for day in range(10 * FAILURES):
        now = day * 86_400.0
        subject.failed(BACKENDS["a"], plain.backends, now, "ECONNREFUSED")
        picks = {subject.pick(plain, plain.backends, CLIENT, now) for _ in range(2)}
        assert picks == set(some("ab"))


def test_a_backend_that_was_set_aside_long_ago_is_one_like_any_other() -> None:
    subject, plain = balancer(), route("ab")
    set_aside(subject, BACKENDS["a"], plain.backends)
    subject.failed(BACKENDS["a"], plain.backends, REMEMBERED, "ECONNREFUSED")
    picks = {subject.pick(plain, plain.backends, CLIENT, REMEMBERED) for _ in range(2)}
    assert picks == set(some("ab"))


def test_what_is_reported_of_a_backend_that_is_set_aside() -> None:
    subject, plain = balancer(), route("abcd")
    a, b = some("ab")
    for number, backend in enumerate([a, a, a, b, b, b]):
        subject.failed(backend, plain.backends, 10.0 + number, "ETIMEDOUT")
    first = subject.take_counts(a, 1e9)
    assert first is not None
    assert (first.ejections, first.aside_until) == (1, 13.0)
    assert (first.failures, first.last_error) == ({"ETIMEDOUT": 3}, "ETIMEDOUT")
    assert first.last_error_at == 1e9 + 12.0
    subject.retain(set(plain.backends[:2]))
    # Half of the two that are left is one: the first one is back before its time.
    early = subject.take_counts(a, 1e9)
    assert early is not None
    assert early.aside_until == 0.0
    second = subject.take_counts(b, 1e9)
    assert second is not None
    assert (second.ejections, second.aside_until) == (1, 16.0)
