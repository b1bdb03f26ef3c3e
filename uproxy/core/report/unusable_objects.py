"""Errors about objects that cannot be used, of which there may be thousands.

An error is an ObjectStatus: which object or file cannot be used, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from uproxy.core.report.status import ObjectStatus

MOST: Final = 500
"""How many errors of one source are shown. Of the others only the number is of use."""
_MORE: Final = "more cannot be used"
_LOGGED: Final = 20
"""How many errors that come at the same time are logged one by one."""


def first_few(errors: Iterable[ObjectStatus], total: int, where: str) -> list[ObjectStatus]:
    """The first errors, and one that gives the number of the others as that of `where`.

    `total` is the number of all errors.
    """
    shown = list(islice(errors, MOST))
    more = total - len(shown)
    if more > 0:
        shown.append(ObjectStatus(where=where, field="", reason=f"{more:,} {_MORE}"))
    return shown


def bounded(errors: Sequence[ObjectStatus], source: str) -> Sequence[ObjectStatus]:
    """The errors of a source; the first few and a number, if there are too many."""
    if len(errors) <= MOST + 1:  # The last one may be a count.
        return errors
    return first_few(errors, len(errors), source)


def log_lines(before: Iterable[ObjectStatus], now: Sequence[ObjectStatus]) -> Iterator[str]:
    """Lines for the log about errors that are new. A changed number is not new, since it
    changes with each event."""
    known = set(before)
    counted = {each.where for each in known if _is_count(each)}
    new = [
        each
        for each in now
        if each not in known and not (_is_count(each) and each.where in counted)
    ]
    for each in new[:_LOGGED]:
        field = f" {each.field}:" if each.field else ""
        yield f"{each.where}:{field} {each.reason}"
    more = len(new) - _LOGGED
    if more > 0:
        yield f"and {more:,} more objects that cannot be used; uproxy status lists them"


def _is_count(status: ObjectStatus) -> bool:
    return status.reason.endswith(_MORE)
