"""SIGHUP before there is an event loop: it must not end a uproxy that reloads on it, and whether
uproxy does so is known only when its flags are."""

from __future__ import annotations

import signal
from typing import Final

_received: Final[list[int]] = []


def expect_hangups() -> None:
    """Remember a SIGHUP from now on. To load the program takes 0.4 s, on a busy machine more than
    one second, and whoever changes the configuration file meanwhile may say so at once. One that is
    ignored stays so."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda number, _: _received.append(number))


def hangup_received() -> bool:
    """Whether there has been one since."""
    return bool(_received)
