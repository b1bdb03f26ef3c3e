"""A program on a terminal of its own, as people see it and type into it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

PATIENCE = 20.0
"""Seconds until something that does not appear fails the test."""


class Screen:
    """The output of a program on a terminal, and its keyboard."""

    def __init__(self, ours: int, theirs: int) -> None:
        self._ours = ours
        self._theirs = theirs
        self.text = ""
        """All that was written, with its control sequences."""
        self._seen = 0

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until a text appears after the one that was found last."""
        deadline = time.monotonic() + PATIENCE
        while (at := self.text.find(text, self._seen)) < 0:
            assert self._read(deadline), f"waited in vain for {text!r}: {self.text[-2000:]!r}"
        self._seen = at + len(text)

    def forget(self) -> None:
        """Look for further texts only in what is written from here on."""
        self._seen = len(self.text)

    def to_the_end(self) -> None:
        """Read until the program has closed the terminal. Its modes cannot be seen afterwards."""
        os.close(self._theirs)
        self._theirs = -1
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass

    def resize(self, columns: int, lines: int) -> None:
        """The kernel tells the program so by SIGWINCH."""
        _resize(self._ours, columns, lines)

    def hang_up(self) -> None:
        """Close the terminal, as when its window is closed."""
        os.close(self._ours)
        self._ours = -1

    def modes(self) -> list[Any]:
        """Whether the terminal echoes, waits for a line, and so on."""
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        for fd in (self._ours, self._theirs):
            if fd >= 0:
                os.close(fd)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"waited in vain, after: {self.text[-2000:]!r}"
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: the other end of a terminal is closed.
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


@contextmanager
def terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    lines: int = 24,
    keyboard: bool = True,
    variables: Mapping[str, str] | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], Screen]]:
    """A program on a terminal, which is its controlling terminal: Ctrl-C sends it a signal. Without
    a keyboard, its stdin is empty."""
    ours, theirs = pty.openpty()
    _resize(ours, columns, lines)
    unset = {"NO_COLOR", "COLUMNS", "LINES"}
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    environ |= {"TERM": "xterm-256color", **(variables or {})}
    if keyboard:
        command = ["setsid", "--ctty", *command]
    process = subprocess.Popen(
        command,
        stdin=theirs if keyboard else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environ,
    )
    screen = Screen(ours, theirs)
    try:
        yield process, screen
    finally:
        screen.close()
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def _resize(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
