"""How much one Service may take: an odd one is no reason that others wait, or find nothing left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_FRONTENDS: Final = 10_000
"""Frontends that are served. Each takes descriptors, of which others need some too."""
_RANGES: Final = 1_000_000
"""Source ranges of all its frontends together, which have them one by one."""
_REASONS: Final = 20
"""Reasons that are named."""


def frontends(ranges: int) -> int:
    """How many there may be, if each has so many source ranges."""
    return max(1, min(_FRONTENDS, _RANGES // max(1, ranges)))


def left_out(total: int, most: int) -> Sequence[str]:
    """What to say if there are to be so many."""
    if total <= most:
        return ()
    return (f"{total:,} addresses and ports to listen on: only the first {most:,} are served",)


def few(reasons: Sequence[str]) -> tuple[str, ...]:
    """The first, and how many more there are."""
    more = len(reasons) - _REASONS
    return (*reasons[:_REASONS], *([f"and {more:,} more"] if more > 0 else ()))
