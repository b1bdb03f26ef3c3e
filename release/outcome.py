"""What a check has found."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Result(StrEnum):
    OK = "ok"
    FAIL = "fail"
    SKIPPED = "skipped"
    """It could not be checked here, or there is nothing to check yet; the text says what to do."""


class Outcome(NamedTuple):
    check: str
    result: Result
    text: str


def judged(check: str, problem: str, good: str) -> Outcome:
    """OK unless there is a problem."""
    return Outcome(check, Result.FAIL if problem else Result.OK, problem or good)


def listed(names: list[str], most: int = 5) -> str:
    """Names for one line."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
