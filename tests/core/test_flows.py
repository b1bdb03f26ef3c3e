from __future__ import annotations

from typing import NamedTuple

import pytest

from uproxy.core.flows import FlowTable, stale
from uproxy.core.route import Backend

A, B, C = (Backend(f"10.0.0.{number}", 53) for number in range(1, 4))


def table(script: str, timeout: float = 120.0) -> FlowTable[str]:
    """A table after a script: `0+a` admits a at time 0, `5>a` is a datagram from its client at 5,
    `7<a` one from its backend at 7, `9-a` the end of the flow."""
    flows: FlowTable[str] = FlowTable(timeout)
    for step in script.split():
        now, verb, flow = float(step[:-2]), step[-2], step[-1]
        match verb:
            case "+":
                flows.admit(flow, now)
            case ">":
                flows.touch(flow, now)
            case "<":
                flows.replied(flow, now)
            case "-":
                flows.discard(flow)
            case _:
                raise AssertionError(step)
    return flows


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
        flows: FlowTable[str] = FlowTable(0.2)
        flows.admit("a", number * 0.1)
        deadline = flows.next_deadline()
        assert deadline is not None
        assert flows.expire(deadline) == ["a"]


def test_flows_expire_in_order_of_silence() -> None:
    flows = table("0+a 0+b 0+c 1>a 2>c")
    assert flows.expire(1000.0) == ["b", "a", "c"]
    assert len(flows) == 0


@pytest.mark.parametrize(
    ("script", "victims"),
    [
        pytest.param("", "", id="nobody there"),
        pytest.param("0+a 1+b 2+c", "abc", id="oldest first"),
        pytest.param("0+a 1+b 2>a", "ba", id="by last datagram, not by age"),
        pytest.param("0+a 1<a 2+b 3+c", "bca", id="unanswered before answered"),
        pytest.param("0+a 1<a 2+b 3<b 4>a", "ba", id="answered ones in order of silence too"),
    ],
)
def test_eviction(script: str, victims: str) -> None:
    flows = table(script)
    assert [flows.evict() for _ in victims] == list(victims)
    assert flows.evict() is None


class Flow(NamedTuple):
    backend: Backend


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
