"""Whether a worker is alive, judged by when it was last heard; and how to describe its state."""

from __future__ import annotations

from typing import NamedTuple


class Timeouts(NamedTuple):
    """Seconds, all of them of this process's own waking time."""

    doubt: float = 5.0
    """Of silence, after which a worker is not counted on."""
    silence: float = 10.0
    """Of silence, after which a worker that has started is replaced."""
    start: float = 60.0
    """That it may take to start: 0.2 s usually, but the machine may be busy with other things."""
    stable: float = 5.0
    """After which a worker counts as started well, and the next restart is at once again."""
    hopeless: float = 60.0
    """Without any worker that serves, after which a new control process might do better."""


LOOPING = 3
"""Processes that have failed soon after their start, one after the other."""


class Liveness:
    """One place among the workers; the process in it may change."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self.serving = False
        """Whether the process has started and not ended."""
        self.served_once = False
        self.silent = 0.0
        """Seconds since something was heard of a process that serves."""
        self.failures = 0
        """Processes that have ended soon after their start, or never started, in a row."""
        self.unserved = 0
        """Frontends that it was told to serve and cannot for now."""
        self._age = 0.0
        """Seconds since the process was started."""
        self._worked = 0.0
        """Seconds from its being ready until something was last heard."""
        self._ready_at = 0.0
        self._ending = ""

    def begun(self) -> None:
        """Another process is being started."""
        self._age = self._worked = 0.0

    def ready(self) -> None:
        """The process has started."""
        self.serving = self.served_once = True
        self._ready_at = self._age
        self.silent = 0.0

    def heard(self) -> None:
        """It has said something."""
        if not self.serving:
            return
        self.silent = 0.0
        self._worked = self._age - self._ready_at
        if self._worked >= self._timeouts.stable:
            self.failures = 0

    def passed(self, seconds: float) -> None:
        """So much time has passed, in which we could have heard it."""
        self._age += seconds
        self.silent += seconds

    def ended(self, how: str) -> None:
        """The process is no more, or could not be started."""
        self.failures = 0 if self._worked >= self._timeouts.stable else self.failures + 1
        self.serving = False
        self.unserved = 0
        self._age = self._worked = 0.0
        self._ending = how

    @property
    def verdict(self) -> str:
        """Why the process has to be replaced; "": it is given time."""
        if self.serving and self.silent >= self._timeouts.silence:
            return f"has not answered for {self.silent:.0f} s"
        if not self.serving and self._age >= self._timeouts.start:
            return f"has not started within {self._age:.0f} s"
        return ""

    @property
    def out(self) -> bool:
        """Whether clients of this place have to wait longer than a replacement takes."""
        return self.silent >= self._timeouts.doubt or self.failures >= LOOPING

    @property
    def hopeless(self) -> bool:
        """Whether all attempts have failed for long."""
        return self.failures > 0 and self.silent >= self._timeouts.hopeless

    @property
    def reason(self) -> str:
        """What is wrong, for people; "": nothing."""
        if self.failures and (not self.serving or self.failures >= LOOPING):
            times = f" ({self.failures} times in a row)" if self.failures > 1 else ""
            return f"{self._ending}{times}; another one is started"
        if not self.serving:
            return f"{self._ending}; another one is started" if self._ending else self._starting
        if self.silent >= self._timeouts.doubt:
            return f"has not answered for {self.silent:.0f} s"
        if self.unserved:
            return (
                f"cannot serve {self.unserved} frontends: out of file descriptors or memory; "
                "raise LimitNOFILE"
            )
        return ""

    @property
    def _starting(self) -> str:
        slow = self._age >= self._timeouts.doubt
        return f"is starting, for {self._age:.0f} s" if slow else "is starting"
