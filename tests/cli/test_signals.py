"""What signals mean, with and without a configuration file."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from uproxy.cli.signals import Signals

HUP, TERM, INT = signal.SIGHUP, signal.SIGTERM, signal.SIGINT


def made(*terminals: int, reloads: bool = True, ignored: bool = False) -> tuple[Signals, list[str]]:
    """What is to be told, and where reloads are noted."""
    signals, calls = Signals(list(terminals), reloads=reloads, hangup_ignored=ignored), []
    signals.when_hung_up(lambda: calls.append("reload"))
    return signals, calls


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: what closes it, and what a program has of it."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(theirs)


@pytest.mark.parametrize("first", [TERM, INT, HUP])
def test_without_a_file_each_of_them_stops(first: signal.Signals) -> None:
    signals, calls = made(reloads=False)
    signals.on_signal(first)
    assert (signals.stop.is_set(), signals.stop_now.is_set(), calls) == (True, False, [])
    signals.on_signal(HUP)
    assert not signals.stop_now.is_set(), "a closed terminal sends two"
    signals.on_signal(TERM)
    assert signals.stop_now.is_set()


def test_with_a_file_a_hangup_reloads_until_it_stops() -> None:
    signals, calls = made()
    signals.on_signal(HUP)
    signals.on_signal(HUP)
    assert (signals.stop.is_set(), calls) == (False, ["reload"] * 2)
    signals.on_signal(TERM)
    signals.on_signal(HUP)
    assert (signals.stop_now.is_set(), calls) == (False, ["reload"] * 2)


def test_a_hangup_while_the_program_starts_is_remembered() -> None:
    signals = Signals([], reloads=True, hangup_ignored=False)
    signals.on_signal(HUP)
    calls = []
    signals.when_hung_up(lambda: calls.append("reload"))
    assert calls == ["reload"]


def test_a_closed_terminal_stops_also_with_a_file() -> None:
    with terminal() as (ours, theirs):
        signals, calls = made(theirs)
        signals.on_signal(HUP)
        assert (signals.stop.is_set(), calls) == (False, ["reload"]), "it is still there"
        os.close(ours)
        signals.on_signal(HUP)
        assert (signals.stop.is_set(), calls) == (True, ["reload"])


def test_a_closed_terminal_is_no_matter_under_nohup() -> None:
    with terminal() as (ours, theirs):
        signals, calls = made(theirs, ignored=True)
        os.close(ours)
        signals.on_signal(HUP)
        assert (signals.stop.is_set(), calls) == (False, ["reload"])


def test_a_hangup_before_the_flags_are_known() -> None:
    code = (
        "import os, signal, sys; from uproxy import cli; sys.argv = ['uproxy', 'run'];"
        "cli.uproxy.main = lambda **_: os.kill(os.getpid(), signal.SIGHUP); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_hangup_before_there_is_a_loop() -> None:
    code = (
        "import os, signal; from uproxy.cli import early_hangup as early;"
        "early.expect_hangups(); print(early.hangup_received());"
        "os.kill(os.getpid(), signal.SIGHUP); print(early.hangup_received())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
