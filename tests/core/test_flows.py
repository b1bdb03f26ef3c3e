from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.flows import FlowTable, stale
from uproxy.core.route import Backend

A, B, C = (Backend(f"10.0.0.{number}", 53) for number in range(1, 4))


@dataclass(eq=False)
class Named:
    """A flow, as far as the table is concerned."""

    name: str
    last: float
    answered: bool = False
    number: int = 0


def table(script: str, timeout: float = 120.0) -> FlowTable[Named]:
    """A table after a script: `0+a` admits a at time 0, `5>a` is a datagram from its client at 5,
    `7<a` one from its backend at 7, `8?` asks for the next deadline, `9-a` ends the flow."""
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
                flows[name].last, flows[name].answered = now, True
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
        pytest.param("5+a 9<a", 120, 129, id="replied: the whole timeout"),
        pytest.param("5+a 9<a 20>a", 120, 140, id="replied, then the client"),
        pytest.param("5+a 9<a 20<a", 120, 140, id="replied twice"),
        pytest.param("0+a 1<a 2+b", 120, 32, id="the earlier of both classes: unreplied"),
        pytest.param("0+a 1<a 110+b", 120, 121, id="the earlier of both classes: replied"),
        pytest.param("0+a 1+b 2>a", 120, 31, id="of two, who was silent for longer"),
        pytest.param("0+a 0<a 1+b 1<b 2<a", 120, 121, id="of two backends as well"),
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


@pytest.mark.parametrize(
    ("script", "victims"),
    [
        pytest.param("", "", id="nobody there"),
        pytest.param("0+a 1+b 2+c", "abc", id="oldest first"),
        pytest.param("0+a 1+b 2>a", "ba", id="by last datagram, not by age"),
        pytest.param("0+a 1<a 2+b 3+c", "bca", id="unanswered before answered"),
        pytest.param("0+a 1<a 2+b 3<b 4>a", "ba", id="answered ones in order of silence too"),
        pytest.param("0+a 1+b 2+c 3<a 4?x 5<b 6>a", "cba", id="answered at different times"),
        pytest.param("0+a 1+b 2+c 3-b 4>a", "ca", id="without those that are gone"),
    ],
)
def test_eviction(script: str, victims: str) -> None:
    flows = table(script)
    assert names(flow for _ in victims if (flow := flows.evict())) == victims
    assert flows.evict() is None
    assert len(flows) == 0


class Flow(NamedTuple):
    backend: Backend


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("+><-?ex"), st.integers(0, 7), st.floats(0, 20, allow_nan=False)),
        max_size=80,
    )
)
def test_against_a_plain_list(steps: list[tuple[str, int, float]]) -> None:
    """Whatever happens, it is as if all flows were sorted each time."""
    table: FlowTable[Named] = FlowTable(40.0, unreplied=15.0)
    model: dict[int, Named] = {}
    now = 0.0

    def deadline(flow: Named) -> float:
        return flow.last + (40.0 if flow.answered else 15.0)

    for verb, number, delay in steps:
        now += delay + 0.001  # No two at the same time: their order is nobody's business.
        flow = model.get(number)
        if verb == "+" and flow is None:
            model[number] = Named(str(number), now)
            table.admit(model[number])
        elif verb == ">" and flow is not None:
            flow.last = now
        elif verb == "<" and flow is not None:
            flow.last, flow.answered = now, True
        elif verb == "-" and flow is not None:
            table.discard(model.pop(number))
        elif verb == "e":
            victim = table.evict()
            expected = min(model.values(), key=lambda f: (f.answered, f.last), default=None)
            assert victim is expected
            model = {key: each for key, each in model.items() if each is not victim}
        elif verb == "x":
            over = table.expire(now)
            expected_over = [each for each in model.values() if deadline(each) <= now]
            assert sorted(names(over)) == sorted(names(expected_over))
            model = {key: each for key, each in model.items() if each not in over}
        assert table.next_deadline() == min(map(deadline, model.values()), default=None)
        assert len(table) == len(model)


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
    """Bytes of everything that it holds."""
    return len(pickle.dumps([getattr(table, name) for name in table.__slots__]))


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
