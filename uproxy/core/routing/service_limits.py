"""How much one Service may take, so that none delays the others or leaves nothing for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FRONTENDS: Final = 10_000
"""Frontends that are served, where there are descriptors for many more."""
_SHARE: Final = 4
"""A Service gets a quarter of the descriptors at most: each frontend takes one for each worker."""
_RANGES: Final = 1_000_000
"""Source ranges of all its frontends together, which have them one by one."""
_REASONS: Final = 20
"""Reasons that are named."""


def by_descriptors(descriptors: int, workers: int) -> int:
    """How many frontends a Service may have in a process with so many descriptors."""
    return max(1, min(FRONTENDS, descriptors // (_SHARE * workers)))


def frontends(most: int, ranges: int) -> int:
    """How many of at most so many there may be, if each has so many source ranges."""
    return max(1, min(most, _RANGES // max(1, ranges)))


def left_out(total: int, most: int) -> Sequence[str]:
    """What to say if there are to be so many."""
    if total <= most:
        return ()
    return (
        f"it has {total:,} addresses and ports to listen on; the first {most:,} are served"
        f" ({FRONTENDS:,} at most; fewer with a low LimitNOFILE or many source ranges)",
    )


def few(reasons: Sequence[str]) -> tuple[str, ...]:
    """The first, and how many more there are."""
    more = len(reasons) - _REASONS
    return (*reasons[:_REASONS], *([f"and {more:,} more"] if more > 0 else ()))
