"""How much one Service may take, so that it does not delay others or leave them with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FRONTENDS: Final = 10_000
"""The most frontends of one Service, even if there are descriptors for many more."""
_SHARE: Final = 4
"""A Service gets at most a quarter of the descriptors. A frontend takes one for each worker."""
_RANGES: Final = 1_000_000
"""The most source ranges of all frontends of a Service together, each of which has its own."""
_REASONS: Final = 20
"""How many reasons are shown."""


def frontends_for(descriptors: int, workers: int) -> int:
    """The most frontends of a Service in a process with this many descriptors."""
    return max(1, min(FRONTENDS, descriptors // (_SHARE * workers)))


def frontends_with_ranges(most: int, ranges: int) -> int:
    """The most frontends, `most` or fewer, if each of them carries this many source ranges."""
    return max(1, min(most, _RANGES // max(1, ranges)))


def left_out_reasons(total: int, most: int) -> Sequence[str]:
    """The reason to give if a Service has `total` frontends, more than may be served."""
    if total <= most:
        return ()
    return (
        f"it has {total:,} addresses and ports to listen on; the first {most:,} are served"
        f" ({FRONTENDS:,} at most; fewer with a low LimitNOFILE or many source ranges)",
    )


def shortened(reasons: Sequence[str]) -> tuple[str, ...]:
    """The first reasons, and the number of the others."""
    more = len(reasons) - _REASONS
    return (*reasons[:_REASONS], *([f"and {more:,} more"] if more > 0 else ()))
