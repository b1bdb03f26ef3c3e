"""Ranges of ports as sysctls have them: "30000-32767,40000"."""

from __future__ import annotations

from collections.abc import Iterator


def covers(ranges: str, low: int, high: int) -> bool:
    """Whether a list of ranges like "30000-32767,40000" contains every port from low to high."""
    reached = low
    for first, last in sorted(_spans(ranges)):
        if first <= reached:
            reached = max(reached, last + 1)
    return reached > high


def _spans(ranges: str) -> Iterator[tuple[int, int]]:
    for text in filter(None, ranges.split(",")):
        first, _, last = text.partition("-")
        yield int(first), int(last or first)
