"""What is counted of the flow log."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Missing(StrEnum):
    """Why a line is missing in the flow log."""

    TOO_MANY = "too_many"
    """A worker has left the flow out, as too many had ended in the same half second."""
    QUEUE_FULL = "queue_full"
    """The file, or whatever reads it, took lines too slowly."""
    WRITE_FAILED = "write_failed"
    """It could not be written: the disk is full, or the reader has gone."""


def _none() -> dict[Missing, int]:
    return dict.fromkeys(Missing, 0)


class FlowLogCounts(msgspec.Struct):
    """Counts that only grow. A thread adds to `written` and to WRITE_FAILED."""

    written: int = 0
    dropped: dict[Missing, int] = msgspec.field(default_factory=_none)
