"""Which calls fail, and when: decided by a seed."""

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


MADE_UP: Final = "made up"


class Bug(Exception):
    """Stands for a mistake of ours that nobody has thought of."""


class Weather:
    """Fair, until `storm`; fair again after `clear`.

    What is decided for one kind of call depends on nothing but the seed and on how often it was
    made before.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._odds: dict[str, float] = {}

    def storm(self, kinds: Iterable[str] | None = None, odds: float | None = None) -> str:
        """Calls of some kinds begin to fail, with these odds; returns what was decided."""
        chosen = list(kinds) if kinds is not None else self._some()
        self._odds = {
            kind: odds if odds is not None else self._rng.choice((0.02, 0.1, 0.3, 0.7, 1.0))
            for kind in chosen
        }
        return ", ".join(f"{kind} {share:g}" for kind, share in self._odds.items())

    def clear(self) -> None:
        """From now on everything succeeds."""
        self._odds.clear()

    @contextmanager
    def away(self) -> Iterator[None]:
        """In here everything succeeds: it is the test that asks."""
        odds, self._odds = self._odds, {}
        try:
            yield
        finally:
            self._odds = odds

    def strikes(self, kind: str) -> bool:
        """Whether something bad happens now."""
        odds = self._odds.get(kind)
        return odds is not None and self._rng.random() < odds

    def error(self, kind: str) -> OSError | None:
        """What a call fails with; None: it succeeds."""
        if not self.strikes(kind):
            return None
        return made_up(self._rng.choice(ERRORS[kind]))

    def portion(self, size: int) -> int:
        """How much of so many bytes is taken at once: at least one."""
        return self._rng.randint(1, size) if self.strikes("short") else size

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
"""What happens beside calls that fail: see where each is asked for."""


def made_up(number: int) -> OSError:
    """An error of the kernel's that can be told from one that nobody has asked for."""
    error = OSError(number, os.strerror(number))
    error.add_note(MADE_UP)
    return error
