"""SIGHUP before there is an event loop. It must not end a uproxy that reloads on it, and whether
this uproxy does so is known only once its flags have been parsed."""

from __future__ import annotations

import signal
from typing import Final

_received: Final[list[int]] = []


def expect_hangups() -> None:
    """Remember a SIGHUP from now on. Loading the program takes 0.4 s, or more than one second on a
    busy machine, and whoever changes the configuration file in that time may send SIGHUP at once.
    If the signal is ignored, it stays ignored."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda number, _: _received.append(number))


def hangup_received() -> bool:
    """Whether there has been one since."""
    return bool(_received)
