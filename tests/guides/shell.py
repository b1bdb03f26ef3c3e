"""A shell on a terminal, in which the commands of a guide are typed one after the other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.e2e.test_readme import ENVIRONMENT
from tests.guides.page import Command, shows

PATIENCE: Final = 30.0
"""Seconds until a command has to show what its page says that it shows."""
_LONGEST: Final = 60.0
"""Seconds that a single command may take."""
COLUMNS: Final = 100
"""The width of the terminal. Tables are as wide as this in the guides."""

_STYLE: Final = re.compile(r"\x1b\[[\d;]*m")
_LOOP: Final = """
set -m
while IFS= read -r -d '' -u 3 line; do
    eval "$line" 3<&- 4>&-
    echo "$?" >&4
done
for job in $(jobs -p); do kill -INT -- -"$job"; done
wait
"""
"""Each job in the background has a process group of its own, as in a shell in which people type.
So Ctrl-C ends it, which jobs of other shells ignore."""


class Shell:
    def __init__(self, commands: int, codes: int, screen: int) -> None:
        self._commands = commands
        self._codes = codes
        self._screen = screen
        self.last = (0, "")
        """The exit code of the last command, and what it has shown."""

    def run(self, text: str) -> tuple[int, str]:
        """Carry out a command; returns its exit code, and what appeared on the terminal."""
        os.write(self._commands, f"{text}\0".encode())
        output = b""
        deadline = time.monotonic() + _LONGEST
        while True:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._screen, self._codes], [], [], left)
            assert ready, f"has not ended: $ {text}\n{output.decode()}"
            # What a command has written can be read before its exit code.
            if self._screen in ready:
                output += os.read(self._screen, 65536)
            else:
                code = int(os.read(self._codes, 16))
                self.last = (code, _STYLE.sub("", output.decode()).replace("\r", ""))
                return self.last

    def follow(self, command: Command) -> None:
        """Carry out a command as a page shows it. A command that shows something is repeated until
        it shows that, because uproxy notices a moment later what the command before has changed."""
        deadline = time.monotonic() + PATIENCE
        while True:
            code, output = self.run(command.text)
            if not command.output:
                assert code == 0, f"$ {command.text}\n{output}"
                return
            if shows(command.output, output):
                return
            in_time = time.monotonic() < deadline
            assert in_time, f"$ {command.text}\n{output}\n--- in place of:\n{command.output}"


@contextmanager
def shell(directory: Path) -> Iterator[Shell]:
    """A shell in a directory. What it starts in the background ends with it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    commands, typed = os.pipe()
    codes, told = os.pipe()
    process = subprocess.Popen(
        ["bash", "-c", f"exec 3<&{commands} 4>&{told}; {_LOOP}"],
        cwd=directory,
        env={**ENVIRONMENT, "TERM": "xterm", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        pass_fds=(commands, told),
        start_new_session=True,
    )
    for fd in (theirs, commands, told):
        os.close(fd)
    try:
        yield Shell(typed, codes, ours)
    finally:
        os.close(typed)
        try:
            _ended(process, ours)
        finally:
            _kill_session(process.pid)
            process.wait()
            os.close(ours)
            os.close(codes)


def _ended(process: subprocess.Popen[bytes], screen: int) -> None:
    """Wait until the shell and its jobs have ended, and read what they still write."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        assert time.monotonic() < deadline, "jobs in the background have not ended"
        if select.select([screen], [], [], 0.02)[0]:
            with contextlib.suppress(OSError):  # EIO: no process has the terminal any more.
                os.read(screen, 65536)


def _kill_session(session: int) -> None:
    """What is left of the jobs: they have process groups of their own, but one session."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(entry.name)
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
