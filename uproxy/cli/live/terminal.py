"""A terminal in the hands of a live command: its keys, its screen, and its state as it was before.

The terminal gets its state back on every way out: a key, an error, Ctrl-C, SIGTERM, SIGHUP, and
while the program is stopped by Ctrl-Z. Signals only wake the program; it acts on them between two
screens, so that none of them interrupts a half-written one (decision 0020).
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Final, NamedTuple, Self

from uproxy.cli.live.drawing import LEAVE, TAKE, drawn
from uproxy.cli.live.frame import Line, Size
from uproxy.cli.live.keys import at_rest, decode

_SILENCE: Final = 0.05
"""Seconds after an escape in which the rest of a key's sequence comes, also over a slow network."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WAKING: Final = (*_ENDING, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)


class Ended(Exception):
    """A signal has asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Woken(NamedTuple):
    """Why `Terminal.wait` has returned, besides that time has passed."""

    keys: Sequence[str] = ()
    ready: bool = False
    """Whether the other descriptor can be read."""


class Terminal:
    """The terminal on stdout; its keys come from stdin, if that is a terminal, too."""

    def __init__(self) -> None:
        # A program may be started without stdin.
        self.has_keys = sys.stdin is not None and sys.stdin.isatty()
        self._stack = ExitStack()
        self._unread = b""
        self._woken_fd = -1
        self._before: list[Any] | None = None

    def __repr__(self) -> str:
        return f"<Terminal {self.size}>"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._woken_fd = stack.enter_context(_signals_wake())
            stack.callback(self._leave)
            self._take()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def size(self) -> Size:
        """The size that it has now."""
        return Size(*shutil.get_terminal_size())

    def show(self, lines: Sequence[Line]) -> None:
        """Show lines as the whole screen; what does not fit into the width is cut off."""
        with _gone_means_ended():
            _write(drawn(lines, self.size))

    def wait(self, other: int, seconds: float | None) -> Woken:
        """Wait for a key, for another descriptor or a change of the size, or until a time has
        passed. Raises Ended after a signal that ends the program."""
        keyboard = [sys.stdin.fileno()] if self.has_keys else []
        if self._unread:
            seconds = min(_SILENCE, _SILENCE if seconds is None else seconds)
        watched = [*keyboard, other, self._woken_fd]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._woken_fd in ready:
            self._handle_signals()
        pressed: list[str] = []
        if keyboard and keyboard[0] in ready:
            pressed = self._read_keys()
        elif self._unread and not ready:
            pressed, self._unread = at_rest(self._unread), b""
        return Woken(pressed, other in ready)

    def _read_keys(self) -> list[str]:
        with _gone_means_ended():
            data = os.read(sys.stdin.fileno(), 4096)
        if not data:
            raise Ended(signal.SIGHUP)
        pressed, self._unread = decode(self._unread + data)
        return pressed

    def _handle_signals(self) -> None:
        numbers = os.read(self._woken_fd, 4096)
        for number in filter(numbers.__contains__, _ENDING):
            raise Ended(number)
        if signal.SIGTSTP in numbers:
            self._stop()
        elif signal.SIGCONT in numbers:
            # Whoever has stopped the program by SIGSTOP may have changed the terminal.
            self._leave()
            self._take()

    def _stop(self) -> None:
        """Do what Ctrl-Z does to other programs: stop, and later go on."""
        self._leave()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        # This is where it goes on.
        signal.signal(signal.SIGTSTP, ours)
        self._take()

    def _take(self) -> None:
        with _gone_means_ended():
            if self.has_keys:
                self._before = termios.tcgetattr(sys.stdin.fileno())
                # Keys that were pressed just before are not lost, as by default they would be.
                tty.setcbreak(sys.stdin.fileno(), termios.TCSADRAIN)
            _write(TAKE)

    def _leave(self) -> None:
        # A terminal that was closed has no state any more.
        with suppress(OSError):
            _write(LEAVE)
        with suppress(OSError, termios.error):
            if self._before is not None:
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)


@contextmanager
def _gone_means_ended() -> Iterator[None]:
    """A terminal that is closed sends SIGHUP, but every use of it may fail before that comes."""
    try:
        yield
    except (OSError, termios.error):
        raise Ended(signal.SIGHUP) from None


@contextmanager
def _signals_wake() -> Iterator[int]:
    """A descriptor from which the numbers of signals can be read. Those that were ignored before
    stay ignored."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before: Mapping[int, object] = {
        number: signal.getsignal(number)
        for number in _WAKING
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    woken_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        for number in before:
            signal.signal(number, _only_wake)
        yield read
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(woken_before)
        os.close(read)
        os.close(write)


def _only_wake(_: int, __: FrameType | None) -> None:
    """A signal without a handler of Python's writes nothing to the descriptor."""


def _write(text: str) -> None:
    """A terminal that is not in UTF-8 shows what it can."""
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "replace"))
    sys.stdout.buffer.flush()
