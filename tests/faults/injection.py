"""Injected faults: which calls fail, and when, decided by a seed."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

ERRORS: Final[dict[str, tuple[int, ...]]] = {
    "socket": (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAFNOSUPPORT),
    "socketpair": (errno.EMFILE, errno.ENFILE, errno.ENOBUFS),
    "bind": (
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.ENOMEM,
        errno.EINVAL,
    ),
    "listen": (errno.EADDRINUSE, errno.ENOMEM, errno.EOPNOTSUPP),
    "setsockopt": (errno.ENOMEM, errno.ENOBUFS, errno.EPERM, errno.ENOPROTOOPT),
    "shutdown": (errno.ENOBUFS, errno.ENOMEM),
    "dup": (errno.EMFILE, errno.ENFILE),
    "send": (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EPIPE),
    "sendmsg": (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS, errno.ENOMEM, errno.EPIPE),
    "recvmsg": (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ECONNRESET),
    "spawn": (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENOENT, errno.EACCES),
    "netlink": (errno.ENOBUFS, errno.EMFILE, errno.ETIMEDOUT, errno.ENOMEM),
    "route": (errno.ENODEV, errno.EPERM, errno.ENOMEM, errno.EACCES),
    "addresses": (errno.ENOBUFS, errno.EMFILE, errno.EACCES),
    "http": (errno.EADDRINUSE, errno.EMFILE, errno.EADDRNOTAVAIL),
    "write": (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT),
    "read": (errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE),
    "transparent": (errno.EMFILE, errno.ENOMEM, errno.EAGAIN, errno.ETIMEDOUT),
    "lock": (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}
"""By call, what it may say."""


INJECTED: Final = "injected"


class Bug(Exception):
    """Stands for a mistake in uproxy that no one has thought of."""


class FaultInjector:
    """Decides which calls fail between `start` and `stop`; all others succeed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._odds: dict[str, float] = {}

    def start(self, kinds: Iterable[str] | None = None, odds: float | None = None) -> str:
        """Calls of some kinds begin to fail, with these odds; returns which ones, as text."""
        chosen = list(kinds) if kinds is not None else self._some()
        self._odds = {
            kind: odds if odds is not None else self._rng.choice((0.02, 0.1, 0.3, 0.7, 1.0))
            for kind in chosen
        }
        return ", ".join(f"{kind} {share:g}" for kind, share in self._odds.items())

    def stop(self) -> None:
        """From now on everything succeeds."""
        self._odds.clear()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Everything succeeds in this context, in which the test itself makes calls."""
        odds, self._odds = self._odds, {}
        try:
            yield
        finally:
            self._odds = odds

    def happens(self, kind: str) -> bool:
        """Whether a fault of this kind happens now."""
        odds = self._odds.get(kind)
        return odds is not None and self._rng.random() < odds

    def error(self, kind: str) -> OSError | None:
        """The error with which a call fails; None: it succeeds."""
        if not self.happens(kind):
            return None
        return injected(self._rng.choice(ERRORS[kind]))

    def portion(self, size: int) -> int:
        """How much of so many bytes is taken at once: at least one."""
        return self._rng.randint(1, size) if self.happens("short") else size

    def _some(self) -> list[str]:
        kinds = [*ERRORS, *OTHER]
        return self._rng.sample(kinds, self._rng.randrange(1, 1 + len(kinds) // 3))


OTHER: Final = (
    "babble",
    "bug",
    "cut",
    "cut answer",
    "derive",
    "die",
    "events",
    "hang",
    "nonsense",
    "odd",
    "short",
    "silence",
    "slow",
    "spoil",
    "status",
    "unreachable",
)
"""Faults other than calls that fail; where the models ask for them shows what each one does."""


def injected(number: int) -> OSError:
    """An error of the kernel with a note, which tells it from errors that no test has injected."""
    error = OSError(number, os.strerror(number))
    error.add_note(INJECTED)
    return error
