"""What becomes of claims after which the API server is lost."""

from __future__ import annotations

from uproxy.core.backoff import Backoff
from uproxy.core.routing.suspect_claims import SuspectClaims

A, B = "203.0.113.1", "203.0.113.2"


def suspects() -> SuspectClaims:
    return SuspectClaims(Backoff(initial=30.0, maximum=100.0))


def test_only_claims_of_the_last_ten_seconds_are_suspected() -> None:
    claims = suspects()
    claims.claimed([A], 0.0)
    claims.claimed([B], 5.0)
    assert claims.server_lost(10.5) == [B]
    assert claims.held_back.keys() == {B}
    assert "the API server, which stopped answering within 10 s" in claims.held_back[B]


def test_one_loss_is_held_against_a_claim_once() -> None:
    claims = suspects()
    claims.claimed([A], 0.0)
    assert claims.server_lost(1.0) == [A]
    assert claims.server_lost(2.0) == []
    assert not claims.has_recent_claims(2.0)


def test_it_is_tried_again_later_and_later() -> None:
    claims = suspects()
    now, waited = 0.0, []
    for _ in range(4):
        claims.claimed([A], now)
        claims.server_lost(now + 1)
        due = claims.next_due()
        assert due is not None
        assert not claims.update(due - 0.1)
        assert claims.update(due)
        assert claims.held_back == {}
        waited.append(due - now - 1)
        now = due
    assert waited == [30.0, 60.0, 100.0, 100.0]


def test_a_claim_that_did_no_harm_has_a_clean_record() -> None:
    claims = suspects()
    claims.claimed([A], 0.0)
    claims.server_lost(1.0)
    claims.update(31.0)
    claims.claimed([A], 31.0)
    assert claims.has_recent_claims(41.0)
    claims.update(41.5)
    assert not claims.has_recent_claims(41.5)
    claims.claimed([A], 100.0)
    claims.server_lost(101.0)
    assert claims.next_due() == 131.0


def test_the_guilty_one_of_many_is_found_and_the_others_are_free() -> None:
    claims = suspects()
    guilty, held = "203.0.113.37", set[str]()
    wanted = {f"203.0.113.{number}" for number in range(1, 101)}
    now = 0.0
    while now < 600:
        claims.update(now)
        new = wanted - held - claims.held_back.keys()
        claims.claimed(new, now)
        held |= new
        if guilty in held:
            held -= set(claims.server_lost(now + 1))
        now += 1.0
    assert wanted - held == {guilty}
    assert held.isdisjoint(claims.held_back)


class TestBlindClaims:
    """Claims from the last-known state, before the first answer of the API server."""

    def test_they_are_released_for_a_moment_now_and_then(self) -> None:
        claims = suspects()
        now, waited = 0.0, []
        for _ in range(5):
            claims.claimed_while_unreachable([A, B], now)
            trial = claims.next_due()
            assert trial is not None
            assert not claims.update(trial - 0.1)
            assert claims.update(trial)
            assert claims.held_back.keys() == {A, B}
            assert not claims.has_untested_claims
            over = claims.next_due()
            assert over == trial + 15
            assert claims.update(over)
            assert claims.held_back == {}
            waited.append(trial - now)
            now = over
        assert waited == [30.0, 120.0, 480.0, 1920.0, 3600.0]

    def test_one_that_comes_later_does_not_put_off_the_trial(self) -> None:
        claims = suspects()
        claims.claimed_while_unreachable([A], 0.0)
        claims.claimed_while_unreachable([B], 29.0)
        assert claims.next_due() == 30.0
        assert claims.update(30.0)
        assert claims.held_back.keys() == {A, B}

    def test_they_are_cleared_once_the_server_answers(self) -> None:
        claims = suspects()
        claims.claimed_while_unreachable([A], 0.0)
        claims.server_answered()
        assert claims.next_due() is None
        assert not claims.update(10_000.0)
        assert claims.server_lost(1.0) == []

    def test_which_one_it_was_comes_out_afterwards(self) -> None:
        claims = suspects()
        claims.claimed_while_unreachable([A, B], 0.0)
        assert claims.update(30.0)
        claims.server_answered()
        assert claims.update(45.0), "the trial ends as it would otherwise"
        claims.claimed([A, B], 45.0)
        assert set(claims.server_lost(46.0)) == {A, B}
