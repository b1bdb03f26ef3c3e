"""When a worker is doubted, replaced or despaired of, and what is said about it."""

from __future__ import annotations

import pytest

from uproxy.control.workers.liveness import LOOPING, Liveness, Timeouts

PATIENCE = Timeouts(doubt=5, silence=10, start=60, stable=5, hopeless=60)


def serving() -> Liveness:
    liveness = Liveness(PATIENCE)
    liveness.begun()
    liveness.passed(0.3)
    liveness.ready()
    return liveness


def works(liveness: Liveness, seconds: int) -> None:
    for _ in range(seconds):
        liveness.passed(1)
        liveness.heard()


def fails(liveness: Liveness, times: int) -> None:
    for _ in range(times):
        liveness.begun()
        liveness.ended("was killed by SIGSYS")


@pytest.mark.parametrize(
    ("silent", "out", "verdict", "reason"),
    [
        pytest.param(4.9, False, "", "", id="a little late"),
        pytest.param(5, True, "", "has not answered for 5 s", id="doubted"),
        pytest.param(9.9, True, "", "has not answered for 10 s", id="nearly"),
        pytest.param(
            10, True, "has not answered for 10 s", "has not answered for 10 s", id="to be replaced"
        ),
    ],
)
def test_a_silent_worker(silent: float, out: bool, verdict: str, reason: str) -> None:
    liveness = serving()
    works(liveness, 100)
    liveness.passed(silent)
    assert (liveness.out, liveness.verdict, liveness.reason) == (out, verdict, reason)
    liveness.heard()
    assert (liveness.out, liveness.verdict, liveness.reason) == (False, "", "")


def test_what_is_still_heard_of_a_process_that_has_not_started_is_no_sign_of_life() -> None:
    liveness = Liveness(PATIENCE)
    liveness.begun()
    liveness.passed(6)
    liveness.heard()
    assert liveness.out
    assert liveness.reason == "is starting, for 6 s"


def test_a_start_may_take_long_but_not_for_ever() -> None:
    liveness = Liveness(PATIENCE)
    liveness.begun()
    assert (liveness.out, liveness.verdict, liveness.reason) == (False, "", "is starting")
    liveness.passed(59)
    assert (liveness.out, liveness.verdict) == (True, "")
    liveness.passed(1)
    assert liveness.verdict == "has not started within 60 s"
    assert not liveness.hopeless


def test_the_time_between_two_processes_is_no_time_to_start() -> None:
    liveness = serving()
    works(liveness, 100)
    liveness.ended("was killed by SIGKILL")
    liveness.passed(4)
    assert (liveness.out, liveness.verdict) == (False, "")
    assert liveness.reason == "was killed by SIGKILL; another one is started"
    liveness.begun()
    liveness.ready()
    assert liveness.reason == ""


def test_a_replacement_that_takes_too_long() -> None:
    liveness = serving()
    works(liveness, 100)
    liveness.ended("was killed by SIGKILL")
    liveness.begun()
    liveness.passed(5)
    assert liveness.out


def test_a_crash_loop_shows_though_each_process_starts() -> None:
    liveness = Liveness(PATIENCE)
    for _ in range(LOOPING):
        assert not liveness.out
        liveness.begun()
        liveness.ready()
        works(liveness, 1)
        liveness.ended("ended by itself with exit code 1")
    liveness.begun()
    liveness.ready()
    assert liveness.failures == LOOPING
    assert liveness.out
    assert liveness.reason == (
        "ended by itself with exit code 1 (3 times in a row); another one is started"
    )
    works(liveness, 5)
    assert (liveness.failures, liveness.out, liveness.reason) == (0, False, "")


def test_one_that_hangs_soon_after_each_start_is_failing_however_long_that_is_watched() -> None:
    liveness = Liveness(PATIENCE)
    for _ in range(LOOPING):
        liveness.begun()
        liveness.ready()
        works(liveness, 1)
        liveness.passed(10)
        assert liveness.verdict
        liveness.ended(liveness.verdict)
    assert liveness.failures == LOOPING


def test_only_failures_are_hopeless_and_only_after_long() -> None:
    liveness = Liveness(PATIENCE)
    fails(liveness, 20)
    liveness.passed(59)
    assert not liveness.hopeless
    liveness.passed(1)
    assert liveness.hopeless


def test_what_a_worker_lacks_is_told() -> None:
    liveness = serving()
    liveness.unserved = 7
    assert "cannot serve 7 frontends" in liveness.reason
    liveness.ended("was killed by SIGKILL")
    liveness.begun()
    liveness.ready()
    assert liveness.reason == ""
