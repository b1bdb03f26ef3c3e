"""Whether a worker is alive, judged by when its last message came, and how to describe its
state."""

from __future__ import annotations

from typing import NamedTuple


class Timeouts(NamedTuple):
    """Seconds in which this process was running: time in which it, or the whole machine, was
    stopped does not count, since no message could be received then."""

    unresponsive: float = 5.0
    """Without a message, after which the node is not ready."""
    hung: float = 10.0
    """Without a message, after which a worker that has started is replaced."""
    start: float = 60.0
    """That a worker may take to start. It takes 0.2 s usually, but the machine may be busy."""
    stable: float = 5.0
    """That a worker has to run so that its successor, should it end, is started without
    back-off."""
    give_up: float = 60.0
    """Without any worker that serves, after which /livez fails: a new control process might
    succeed."""


CRASH_LOOP = 3
"""Processes in a row that fail soon after their start, after which the worker is unavailable."""


class Liveness:
    """The state of one worker, over all processes that take its place one after the other."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self.serving = False
        """Whether the process has started and not ended."""
        self.served_once = False
        self.silent = 0.0
        """Seconds since the last message of a process that has started."""
        self.failures = 0
        """Processes in a row that have ended soon after their start, or never started."""
        self.unserved = 0
        """Frontends that the process was told to serve, and cannot serve for now."""
        self._age = 0.0
        """Seconds since the process was started."""
        self._worked = 0.0
        """Seconds between the process being ready and its last message."""
        self._ready_at = 0.0
        self._ending = ""

    def process_starting(self) -> None:
        """Another process is being started."""
        self._age = self._worked = 0.0

    def ready(self) -> None:
        """The process has started."""
        self.serving = self.served_once = True
        self._ready_at = self._age
        self.silent = 0.0

    def message_received(self) -> None:
        """A message has come."""
        if not self.serving:
            return
        self.silent = 0.0
        self._worked = self._age - self._ready_at
        if self._worked >= self._timeouts.stable:
            self.failures = 0

    def time_passed(self, seconds: float) -> None:
        """Count time in which a message could have been received."""
        self._age += seconds
        self.silent += seconds

    def ended(self, how: str) -> None:
        """The process has ended, or could not be started."""
        self.failures = 0 if self._worked >= self._timeouts.stable else self.failures + 1
        self.serving = False
        self.unserved = 0
        self._age = self._worked = 0.0
        self._ending = how

    @property
    def reason_to_replace(self) -> str:
        """Why the process has to be replaced; "": it need not be, for now."""
        if self.serving and self.silent >= self._timeouts.hung:
            return f"has not answered for {self.silent:.0f} s"
        if not self.serving and self._age >= self._timeouts.start:
            return f"has not started within {self._age:.0f} s"
        return ""

    @property
    def unavailable(self) -> bool:
        """Whether clients of this worker wait longer than it takes to replace its process."""
        return self.silent >= self._timeouts.unresponsive or self.failures >= CRASH_LOOP

    @property
    def needs_restart(self) -> bool:
        """Whether all attempts to start a process have failed for a long time."""
        return self.failures > 0 and self.silent >= self._timeouts.give_up

    @property
    def reason(self) -> str:
        """What is wrong, for people; "": nothing is."""
        if self.failures and (not self.serving or self.failures >= CRASH_LOOP):
            times = f" ({self.failures} times in a row)" if self.failures > 1 else ""
            return f"{self._ending}{times}; another one is being started"
        if not self.serving:
            return (
                f"{self._ending}; another one is being started" if self._ending else self._starting
            )
        if self.silent >= self._timeouts.unresponsive:
            return f"has not answered for {self.silent:.0f} s"
        if self.unserved:
            return (
                f"cannot serve {self.unserved} frontends: out of file descriptors or memory; "
                "raise LimitNOFILE"
            )
        return ""

    @property
    def _starting(self) -> str:
        slow = self._age >= self._timeouts.unresponsive
        return f"has been starting for {self._age:.0f} s" if slow else "is starting"
