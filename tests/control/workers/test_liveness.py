"""When a worker is doubted, replaced or despaired of, and what is said about it."""

from __future__ import annotations

import pytest

from uproxy.control.workers.liveness import CRASH_LOOP, Liveness, Timeouts

PATIENCE = Timeouts(unresponsive=5, hung=10, start=60, stable=5, give_up=60)


def serving() -> Liveness:
    liveness = Liveness(PATIENCE)
    liveness.process_starting()
    liveness.time_passed(0.3)
    liveness.ready()
    return liveness


def works(liveness: Liveness, seconds: int) -> None:
    for _ in range(seconds):
        liveness.time_passed(1)
        liveness.message_received()


def fails(liveness: Liveness, times: int) -> None:
    for _ in range(times):
        liveness.process_starting()
        liveness.ended("was killed by SIGSYS")


@pytest.mark.parametrize(
    ("silent", "unavailable", "replace", "reason"),
    [
        pytest.param(4.9, False, "", "", id="a little late"),
        pytest.param(5, True, "", "has not answered for 5 s", id="doubted"),
        pytest.param(9.9, True, "", "has not answered for 10 s", id="nearly"),
        pytest.param(
            10, True, "has not answered for 10 s", "has not answered for 10 s", id="to be replaced"
        ),
    ],
)
def test_a_silent_worker(silent: float, unavailable: bool, replace: str, reason: str) -> None:
    liveness = serving()
    works(liveness, 100)
    liveness.time_passed(silent)
    assert (liveness.unavailable, liveness.reason_to_replace, liveness.reason) == (
        unavailable,
        replace,
        reason,
    )
    liveness.message_received()
    assert (liveness.unavailable, liveness.reason_to_replace, liveness.reason) == (False, "", "")


def test_what_is_still_heard_of_a_process_that_has_not_started_is_no_sign_of_life() -> None:
    liveness = Liveness(PATIENCE)
    liveness.process_starting()
    liveness.time_passed(6)
    liveness.message_received()
    assert liveness.unavailable
    assert liveness.reason == "has been starting for 6 s"


def test_a_start_may_take_long_but_not_for_ever() -> None:
    liveness = Liveness(PATIENCE)
    liveness.process_starting()
    assert (liveness.unavailable, liveness.reason_to_replace, liveness.reason) == (
        False,
        "",
        "is starting",
    )
    liveness.time_passed(59)
    assert (liveness.unavailable, liveness.reason_to_replace) == (True, "")
    liveness.time_passed(1)
    assert liveness.reason_to_replace == "has not started within 60 s"
    assert not liveness.needs_restart


def test_the_time_between_two_processes_is_no_time_to_start() -> None:
    liveness = serving()
    works(liveness, 100)
    liveness.ended("was killed by SIGKILL")
    liveness.time_passed(4)
    assert (liveness.unavailable, liveness.reason_to_replace) == (False, "")
    assert liveness.reason == "was killed by SIGKILL; another one is being started"
    liveness.process_starting()
    liveness.ready()
    assert liveness.reason == ""


def test_a_replacement_that_takes_too_long() -> None:
    liveness = serving()
    works(liveness, 100)
    liveness.ended("was killed by SIGKILL")
    liveness.process_starting()
    liveness.time_passed(5)
    assert liveness.unavailable


def test_a_crash_loop_shows_though_each_process_starts() -> None:
    liveness = Liveness(PATIENCE)
    for _ in range(CRASH_LOOP):
        assert not liveness.unavailable
        liveness.process_starting()
        liveness.ready()
        works(liveness, 1)
        liveness.ended("exited with code 1")
    liveness.process_starting()
    liveness.ready()
    assert liveness.failures == CRASH_LOOP
    assert liveness.unavailable
    assert liveness.reason == (
        "exited with code 1 (3 times in a row); another one is being started"
    )
    works(liveness, 5)
    assert (liveness.failures, liveness.unavailable, liveness.reason) == (0, False, "")


def test_one_that_hangs_soon_after_each_start_is_failing_however_long_that_is_watched() -> None:
    liveness = Liveness(PATIENCE)
    for _ in range(CRASH_LOOP):
        liveness.process_starting()
        liveness.ready()
        works(liveness, 1)
        liveness.time_passed(10)
        assert liveness.reason_to_replace
        liveness.ended(liveness.reason_to_replace)
    assert liveness.failures == CRASH_LOOP


def test_only_failures_over_a_long_time_call_for_a_restart() -> None:
    liveness = Liveness(PATIENCE)
    fails(liveness, 20)
    liveness.time_passed(59)
    assert not liveness.needs_restart
    liveness.time_passed(1)
    assert liveness.needs_restart


def test_what_a_worker_lacks_is_told() -> None:
    liveness = serving()
    liveness.unserved = 7
    assert "cannot serve 7 frontends" in liveness.reason
    liveness.ended("was killed by SIGKILL")
    liveness.process_starting()
    liveness.ready()
    assert liveness.reason == ""
