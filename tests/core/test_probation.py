"""What becomes of claims after which the API server is lost."""

from __future__ import annotations

from uproxy.core.backoff import Backoff
from uproxy.core.probation import Probation

A, B = "203.0.113.1", "203.0.113.2"


def probation() -> Probation:
    return Probation(Backoff(initial=30.0, maximum=100.0))


def test_only_claims_of_the_last_ten_seconds_are_suspected() -> None:
    claims = probation()
    claims.claimed([A], 0.0)
    claims.claimed([B], 5.0)
    assert claims.lost(10.5) == [B]
    assert claims.held_back.keys() == {B}
    assert "the API server was lost within 10 s" in claims.held_back[B]


def test_one_loss_is_held_against_a_claim_once() -> None:
    claims = probation()
    claims.claimed([A], 0.0)
    assert claims.lost(1.0) == [A]
    assert claims.lost(2.0) == []
    assert not claims.is_fresh(2.0)


def test_it_is_tried_again_later_and_later() -> None:
    claims = probation()
    now, waited = 0.0, []
    for _ in range(4):
        claims.claimed([A], now)
        claims.lost(now + 1)
        due = claims.next_try()
        assert due is not None
        assert not claims.settle(due - 0.1)
        assert claims.settle(due)
        assert claims.held_back == {}
        waited.append(due - now - 1)
        now = due
    assert waited == [30.0, 60.0, 100.0, 100.0]


def test_a_claim_that_did_no_harm_has_a_clean_record() -> None:
    claims = probation()
    claims.claimed([A], 0.0)
    claims.lost(1.0)
    claims.settle(31.0)
    claims.claimed([A], 31.0)
    assert claims.is_fresh(41.0)
    claims.settle(41.5)
    assert not claims.is_fresh(41.5)
    claims.claimed([A], 100.0)
    claims.lost(101.0)
    assert claims.next_try() == 131.0
