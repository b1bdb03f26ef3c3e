"""When a worker is doubted, replaced or despaired of, and what is said about it."""

from __future__ import annotations

import pytest

from uproxy.control.workers.liveness import LOOPING, Patience, Pulse

PATIENCE = Patience(doubt=5, silence=10, start=60, stable=5, hopeless=60)


def serving() -> Pulse:
    pulse = Pulse(PATIENCE)
    pulse.begun()
    pulse.passed(0.3)
    pulse.ready()
    return pulse


def works(pulse: Pulse, seconds: int) -> None:
    for _ in range(seconds):
        pulse.passed(1)
        pulse.heard()


def fails(pulse: Pulse, times: int) -> None:
    for _ in range(times):
        pulse.begun()
        pulse.ended("was killed by SIGSYS")


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
    pulse = serving()
    works(pulse, 100)
    pulse.passed(silent)
    assert (pulse.out, pulse.verdict, pulse.reason) == (out, verdict, reason)
    pulse.heard()
    assert (pulse.out, pulse.verdict, pulse.reason) == (False, "", "")


def test_what_is_still_heard_of_a_process_that_has_not_started_is_no_sign_of_life() -> None:
    pulse = Pulse(PATIENCE)
    pulse.begun()
    pulse.passed(6)
    pulse.heard()
    assert pulse.out
    assert pulse.reason == "is starting, for 6 s"


def test_a_start_may_take_long_but_not_for_ever() -> None:
    pulse = Pulse(PATIENCE)
    pulse.begun()
    assert (pulse.out, pulse.verdict, pulse.reason) == (False, "", "is starting")
    pulse.passed(59)
    assert (pulse.out, pulse.verdict) == (True, "")
    pulse.passed(1)
    assert pulse.verdict == "has not started within 60 s"
    assert not pulse.hopeless


def test_the_time_between_two_processes_is_no_time_to_start() -> None:
    pulse = serving()
    works(pulse, 100)
    pulse.ended("was killed by SIGKILL")
    pulse.passed(4)
    assert (pulse.out, pulse.verdict) == (False, "")
    assert pulse.reason == "was killed by SIGKILL; another one is started"
    pulse.begun()
    pulse.ready()
    assert pulse.reason == ""


def test_a_replacement_that_takes_too_long() -> None:
    pulse = serving()
    works(pulse, 100)
    pulse.ended("was killed by SIGKILL")
    pulse.begun()
    pulse.passed(5)
    assert pulse.out


def test_a_crash_loop_shows_though_each_process_starts() -> None:
    pulse = Pulse(PATIENCE)
    for _ in range(LOOPING):
        assert not pulse.out
        pulse.begun()
        pulse.ready()
        works(pulse, 1)
        pulse.ended("ended by itself with exit code 1")
    pulse.begun()
    pulse.ready()
    assert pulse.failures == LOOPING
    assert pulse.out
    assert pulse.reason == (
        "ended by itself with exit code 1 (3 times in a row); another one is started"
    )
    works(pulse, 5)
    assert (pulse.failures, pulse.out, pulse.reason) == (0, False, "")


def test_one_that_hangs_soon_after_each_start_is_failing_however_long_that_is_watched() -> None:
    pulse = Pulse(PATIENCE)
    for _ in range(LOOPING):
        pulse.begun()
        pulse.ready()
        works(pulse, 1)
        pulse.passed(10)
        assert pulse.verdict
        pulse.ended(pulse.verdict)
    assert pulse.failures == LOOPING


def test_only_failures_are_hopeless_and_only_after_long() -> None:
    pulse = Pulse(PATIENCE)
    fails(pulse, 20)
    pulse.passed(59)
    assert not pulse.hopeless
    pulse.passed(1)
    assert pulse.hopeless


def test_what_a_worker_lacks_is_told() -> None:
    pulse = serving()
    pulse.lacking = 7
    assert "cannot serve 7 frontends" in pulse.reason
    pulse.ended("was killed by SIGKILL")
    pulse.begun()
    pulse.ready()
    assert pulse.reason == ""
