"""What a service tells systemd: that it serves, how it is doing, and that it is still alive.

The protocol is that of sd_notify(3): datagrams with lines NAME=VALUE, to a socket that systemd
names in the environment. Where it names none, nothing has to be told.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"

_DIGITS: Final = 20
"""Of a 64-bit number."""
_LONGEST: Final = 200
"""Characters of a status; `systemctl status` shows it in one line."""


def notify_address(environ: Mapping[str, str]) -> str | None:
    """The address of systemd's socket; None: systemd does not ask for notices."""
    name = environ.get("NOTIFY_SOCKET", "")
    if name.startswith("/"):
        return name
    # Linux: names that are not in the file system begin with a zero byte.
    return f"\0{name[1:]}" if name.startswith("@") else None


def watchdog_time(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds without ALIVE after which systemd restarts the process with this id; None: systemd
    does not watch this process."""
    # The variables are inherited; systemd watches the process that it has started only.
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    usable = len(microseconds) <= _DIGITS and microseconds.isascii() and microseconds.isdigit()
    return int(microseconds) / 1e6 if usable and int(microseconds) else None


def status(text: str) -> str:
    """A line that says how the service is doing."""
    line = " ".join(text.split())
    return f"STATUS={line if len(line) <= _LONGEST else line[: _LONGEST - 3] + '...'}"


def reloading(monotonic: float) -> str:
    """Says that the configuration is being read; READY follows. systemd 253 and later recognise by
    the time that this is the answer to their own SIGHUP (Type=notify-reload)."""
    return f"RELOADING=1\nMONOTONIC_USEC={round(monotonic * 1e6)}"


def more_time(seconds: float) -> str:
    """Says that stopping may take so long from now on, whatever the unit allows."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"


class Systemd:
    """The systemd that has started this process."""

    def __init__(self, address: str) -> None:
        self._address = address

    def tell(self, *states: str) -> None:
        """Tell it at once. If that fails, systemd is not there or has no room, and the program goes
        on: what it serves matters more than what is said about it."""
        datagram = "\n".join(states).encode(errors="replace")
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
            sock.sendto(datagram, self._address)
