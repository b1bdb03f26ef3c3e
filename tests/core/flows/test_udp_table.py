from __future__ import annotations

import pickle
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.flows.udp_table import FlowTable, stale
from uproxy.core.route import Backend

A, B, C = (Backend(f"10.0.0.{number}", 53) for number in range(1, 4))


@dataclass(eq=False)
class Named:
    """A flow, as far as the table is concerned."""

    name: str
    last: float
    answered: bool = False
    established: bool = False
    number: int = 0

    def __post_init__(self) -> None:
        self.began = self.last


def table(script: str, timeout: float = 120.0) -> FlowTable[Named]:
    """A table after a script: `0+a` admits a at time 0, `5>a` is a datagram from its client at 5,
    `7<a` one from its backend at 7, `7!a` makes it established, `8?` asks for the next deadline,
    `9-a` ends the flow."""
    table: FlowTable[Named] = FlowTable(timeout)
    flows: dict[str, Named] = {}
    for step in script.split():
        now, verb, name = float(step[:-2]), step[-2], step[-1]
        match verb:
            case "+":
                flows[name] = Named(name, now)
                table.admit(flows[name])
            case ">":
                flows[name].last = now
            case "<":
                flows[name].last = now
                table.answer(flows[name])
            case "!":
                table.establish(flows[name])
            case "?":
                table.next_deadline()
            case "-":
                table.discard(flows[name])
            case _:
                raise AssertionError(step)
    return table


def names(flows: Iterable[Named]) -> str:
    return "".join(flow.name for flow in flows)


@pytest.mark.parametrize(
    ("script", "timeout", "expected"),
    [
        pytest.param("", 120, None, id="empty"),
        pytest.param("5+a", 120, 35, id="no reply: 30 s"),
        pytest.param("5+a", 12, 17, id="no reply, and a timeout below 30 s"),
        pytest.param("5+a 9>a", 120, 39, id="a client that goes on"),
        pytest.param("5+a 6<a", 120, 36, id="an exchange: 30 s"),
        pytest.param("5+a 6<a", 12, 18, id="an exchange, and a timeout below 30 s"),
        pytest.param("5+a 6<a 6.9>a", 120, 36.9, id="an exchange within two seconds"),
        pytest.param("5+a 6<a 7>a", 120, 127, id="traffic after two seconds: the whole timeout"),
        pytest.param("5+a 6<a 7<a", 120, 127, id="of the backend as well"),
        pytest.param("5+a 7<a", 120, 127, id="its first reply as well"),
        pytest.param("5+a 7>a", 120, 37, id="but not without a reply"),
        pytest.param("5+a 6<a 6!a", 120, 126, id="much exchanged in a short time"),
        pytest.param("5+a 9<a 20>a", 120, 140, id="established, then the client"),
        pytest.param("5+a 9<a 20<a", 120, 140, id="established, then the backend"),
        pytest.param("0+a 3<a 4+b", 120, 34, id="the earlier of two classes: unanswered"),
        pytest.param("0+a 3<a 4+b 5<b", 120, 35, id="the earlier of two classes: brief"),
        pytest.param("0+a 3<a 110+b", 120, 123, id="the earlier of two classes: established"),
        pytest.param("0+a 1+b 2>a", 120, 31, id="of two, the one silent for longer"),
        pytest.param("0+a 0<a 1+b 1<b 1.5<a", 120, 31, id="of two brief ones as well"),
        pytest.param("0+a 3<a 1+b 4<b 5<a", 120, 124, id="of two established ones as well"),
        pytest.param("0+a 1-a", 120, None, id="gone"),
        pytest.param("0+a 1<a 2-a 2-a", 120, None, id="gone twice"),
        pytest.param("0+a 0+b 5>a 6?x 7-b 8>a", 120, 38, id="looked at, and gone on since"),
        pytest.param("0+a 5?x 6<a 7?x 8+b 9>b", 120, 39, id="looked at before and after a reply"),
    ],
)
def test_deadline(script: str, timeout: float, expected: float | None) -> None:
    flows = table(script, timeout)
    assert flows.next_deadline() == expected
    if expected is not None:
        count = len(flows)
        assert flows.expire(expected - 0.001) == []
        assert len(flows.expire(expected)) == 1
        assert len(flows) == count - 1


def test_expiring_at_the_deadline_never_leaves_a_deadline_that_has_passed() -> None:
    # 0.1 + 0.2 - 0.2 is not 0.1: deadline and expiry must be computed alike, or a timer spins.
    for number in range(1000):
        flows: FlowTable[Named] = FlowTable(0.2)
        flows.admit(Named("a", number * 0.1))
        deadline = flows.next_deadline()
        assert deadline is not None
        assert names(flows.expire(deadline)) == "a"


def test_flows_expire_in_order_of_silence() -> None:
    flows = table("0+a 0+b 0+c 1>a 2>c")
    assert names(flows.expire(1000.0)) == "bac"
    assert len(flows) == 0


def test_no_more_flows_expire_in_one_go_than_are_asked_for() -> None:
    flows = table("0+a 0+b 0+c 0+d 1<a 2<b")
    assert [names(flows.expire(200.0, 3)), names(flows.expire(200.0, 3))] == ["cda", "b"]


@pytest.mark.parametrize(
    ("script", "victims"),
    [
        pytest.param("", "", id="no flow"),
        pytest.param("0+a 1+b 2+c", "abc", id="oldest first"),
        pytest.param("0+a 1+b 2>a", "ba", id="by last datagram, not by age"),
        pytest.param("0+a 3<a 4+b 5+c", "bca", id="newcomers before established ones"),
        pytest.param("0+a 0<a 0!a 1+b", "ba", id="whatever has made them established"),
        pytest.param("0+a 3<a 4+b 7<b 8>a", "ba", id="established ones in order of silence"),
        pytest.param("0+a 1+b 2+c 4<a 4?x 5<b 6>a", "cba", id="established at different times"),
        pytest.param("0+a 0.1<a 2+b", "ab", id="an exchange that is over before one under way"),
        pytest.param("0+a 1+b 1.1<b", "ab", id="but not before one that has waited for long"),
        pytest.param(
            "0+a 0+b 0+c 0.1<a 0.2<b 0.3<c 0.9+d",
            "abdc",
            id="at a high rate, an exchange that is over",
        ),
        pytest.param(
            "0+a 0.1<a 0.2+b 0.3+c 0.4+d", "bcda", id="unless most have no answer, as in a flood"
        ),
        pytest.param(
            "0+a 0+b 0+c 0+d 3<a 4<b 5<c 6<d 7+e",
            "aebcd",
            id="an established one if they leave newcomers less than a quarter",
        ),
        pytest.param("0+a 0+b 3<a 4<b 33.5+c", "acb", id="an established one that is not in use"),
        pytest.param("0+a 0+b 3<a 4<b 33+c", "cab", id="but not for a pause of 30 s"),
        pytest.param("0+a 0+b 3<a 4<b 20<a 33.5+c", "cba", id="and not one that was in use since"),
        pytest.param("0+a 1+b 2+c 3-b 4>a", "ca", id="without those that are gone"),
    ],
)
def test_eviction(script: str, victims: str) -> None:
    flows = table(script)
    assert names(flow for _ in victims if (flow := flows.evict())) == victims
    assert flows.evict() is None
    assert len(flows) == 0


LATENCY = 0.02
"""Seconds that a backend takes to reply."""


class Load:
    """A table of a fixed size, and clients that come to it in simulated time."""

    def __init__(self, capacity: int) -> None:
        self.table: FlowTable[Named] = FlowTable(120.0)
        self.capacity = capacity
        self.alive: set[Named] = set()
        self.pending: deque[tuple[float, Named]] = deque()
        self.now = 0.0
        self.served = 0

    def begin(self, *, answered: bool = True) -> Named:
        """A client sends a datagram, now."""
        while len(self.table) >= self.capacity:
            victim = self.table.evict()
            assert victim is not None
            self.alive.remove(victim)
        flow = Named("", self.now)
        self.table.admit(flow)
        self.alive.add(flow)
        if answered:
            self.pending.append((self.now + LATENCY, flow))
        return flow

    def exchange(self, flow: Named) -> None:
        """A client that is there already sends a datagram, and has its answer at once."""
        assert flow in self.alive
        flow.last = self.now
        self.table.answer(flow)

    def wait(self, seconds: float) -> None:
        """Time passes: backends reply, and flows end whose time is over."""
        self.now += seconds
        while self.pending and self.pending[0][0] <= self.now:
            at, flow = self.pending.popleft()
            if flow in self.alive:
                flow.last = at
                self.table.answer(flow)
                self.served += 1
        self.alive.difference_update(self.table.expire(self.now))

    def conversations(self, count: int) -> list[Named]:
        """Clients that have been talking for three seconds."""
        flows = [self.begin() for _ in range(count)]
        self.wait(3.0)
        for flow in flows:
            self.exchange(flow)
        return flows


@pytest.mark.parametrize("talking", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rate", [100, 1000, 5000])
def test_a_full_table_answers_clients_that_come_once(talking: float, rate: int) -> None:
    """`talking`: the share of the table that was established before."""
    load = Load(capacity=1000)
    load.conversations(int(talking * load.capacity))
    while len(load.table) < load.capacity:
        load.begin()
    load.wait(LATENCY)
    load.served = 0
    clients = max(20 * load.capacity, 40 * rate)  # So that all classes get to their timeouts.
    clients = min(clients, 60_000)
    for _ in range(clients):
        load.begin()
        load.wait(1 / rate)
    load.wait(LATENCY)
    assert load.served >= 0.99 * clients


@pytest.mark.parametrize("answered", [False, True])
def test_a_flood_takes_no_conversation_away(answered: bool) -> None:
    load = Load(capacity=1000)
    talking = load.conversations(500)
    for number in range(100_000):
        load.begin(answered=answered)
        load.wait(1 / 5000)
        if number % 50_000 == 49_999:
            for flow in talking:
                load.exchange(flow)
    assert load.alive.issuperset(talking)


def test_a_flood_without_answers_leaves_room_for_clients_that_come_once() -> None:
    load = Load(capacity=4096)
    for number in range(50_000):
        load.begin(answered=number % 10 == 0)
        load.wait(1 / 20_000)
    load.wait(LATENCY)
    assert load.served >= 0.99 * 5000


def test_a_flood_takes_a_quarter_of_a_table_full_of_conversations() -> None:
    load = Load(capacity=1000)
    talking = load.conversations(1000)
    for _ in range(10_000):
        load.begin(answered=False)
        load.wait(1 / 5000)
    assert len(load.alive.intersection(talking)) == 750


class Flow(NamedTuple):
    backend: Backend


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("+>><<!-?ex"), st.integers(0, 7), st.floats(0, 9)), max_size=80
    )
)
def test_against_a_plain_list(steps: list[tuple[str, int, float]]) -> None:
    """Whatever happens, it is as if all flows were sorted each time."""
    table: FlowTable[Named] = FlowTable(40.0, unreplied=10.0, brief=15.0)
    model: dict[int, Named] = {}
    now = 0.0
    for verb, number, delay in steps:
        now += delay + 0.001  # No two at the same time: their order is undefined.
        flow = model.get(number)
        if verb == "+" and flow is None:
            model[number] = Named(str(number), now)
            table.admit(model[number])
        elif verb == ">" and flow is not None:
            flow.last = now
        elif verb == "<" and flow is not None:
            flow.last = now
            table.answer(flow)
        elif verb == "!" and flow is not None and flow.answered:
            table.establish(flow)
        elif verb == "-" and flow is not None:
            table.discard(model.pop(number))
        elif verb == "e":
            victim = table.evict()
            assert victim is spared_best(list(model.values()))
            model = {key: each for key, each in model.items() if each is not victim}
        elif verb == "x":
            over = table.expire(now)
            expected_over = [each for each in model.values() if deadline(each) <= now]
            assert sorted(names(over)) == sorted(names(expected_over))
            model = {key: each for key, each in model.items() if each not in over}
        assert table.next_deadline() == min(map(deadline, model.values()), default=None)
        assert len(table) == len(model)


def test_an_answer_must_not_shorten_a_life() -> None:
    """A table with such timeouts would end flows late."""
    with pytest.raises(ValueError, match="shorten"):
        FlowTable[Named](40.0, unreplied=15.0, brief=10.0)


def is_established(flow: Named) -> bool:
    return flow.answered and (flow.established or flow.last - flow.began >= 2.0)


def deadline(flow: Named) -> float:
    return flow.last + (40.0 if is_established(flow) else 15.0 if flow.answered else 10.0)


def spared_best(flows: list[Named]) -> Named | None:
    """Which flow to evict, after the table has looked at all of them."""

    def oldest(some: Iterable[Named]) -> Named | None:
        return min(some, key=lambda flow: flow.last, default=None)

    established = oldest(flow for flow in flows if is_established(flow))
    waiting = [flow for flow in flows if not flow.answered]
    brief = [flow for flow in flows if flow.answered and not is_established(flow)]
    # Whoever has become established and was not looked at counts as a newcomer still.
    newcomers = sum(not flow.established for flow in flows)
    first = oldest(waiting + brief)
    if waiting and brief:
        one, other = oldest(waiting), oldest(brief)
        assert one is not None
        assert other is not None
        if abs(one.last - other.last) <= 1.0:
            first = one if 4 * (len(waiting) + 1) >= 3 * newcomers else other
    if first is None or established is None:
        return first or established
    crowded = 4 * newcomers < len(flows)
    return established if crowded or established.last + 30.0 < first.last else first


def test_flows_that_are_gone_are_not_kept() -> None:
    table: FlowTable[Named] = FlowTable(120.0)
    stays = Named("stays", 0.0)
    table.admit(stays)
    gone = [Named(str(number), float(number)) for number in range(10_000)]
    for flow in gone:
        table.admit(flow)
    full = pickled(table)
    for flow in gone:
        table.discard(flow)
    seen = [weakref.ref(flow) for flow in gone]
    gone.clear()
    del flow
    assert not any(each() for each in seen)
    assert pickled(table) < full / 100
    assert table.evict() is stays


def pickled(table: FlowTable[Named]) -> int:
    """Bytes of everything that it holds, but a counter, which Python 3.14 does not pickle."""
    held = [getattr(table, name) for name in table.__slots__]
    return len(pickle.dumps([each for each in held if not isinstance(each, count)]))


@pytest.mark.parametrize(
    ("serving", "expected"),
    [
        pytest.param([A, B, C], [], id="all serve"),
        pytest.param([A, C], [B], id="one does not"),
        pytest.param([C], [A, B], id="replaced"),
        pytest.param([], [], id="nothing serves: left alone"),
    ],
)
def test_stale_flows(serving: list[Backend], expected: list[Backend]) -> None:
    assert [flow.backend for flow in stale([Flow(A), Flow(B)], serving)] == expected


def test_a_new_timeout_is_for_flows_that_exist_too() -> None:
    flows = table("0+a 3<a 4>a 4+b", 120)
    flows.set_timeout(10)
    assert names(flows.expire(13.9)) == ""
    assert sorted(names(flows.expire(14.0))) == ["a", "b"]
    flows.set_timeout(1000)
    flows.admit(Named("c", 20.0))
    assert flows.next_deadline() == 50.0, "what was never answered gets no more than before"
