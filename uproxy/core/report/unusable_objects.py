"""What is said about objects that cannot be used, when there are thousands of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from uproxy.core.report.status import ObjectStatus

MOST: Final = 500
"""Complaints of one source that are shown. Of more than these, only the number is of use."""
_MORE: Final = "more cannot be used"
_TOLD: Final = 20
"""Complaints that come at once and are still logged one by one."""


def first_few(complaints: Iterable[ObjectStatus], total: int, where: str) -> list[ObjectStatus]:
    """The first complaints, and how many more there are. `where`: of what kind they are."""
    shown = list(islice(complaints, MOST))
    more = total - len(shown)
    if more > 0:
        shown.append(ObjectStatus(where=where, field="", reason=f"{more:,} {_MORE}"))
    return shown


def bounded(complaints: Sequence[ObjectStatus], source: str) -> Sequence[ObjectStatus]:
    """The same where there are few."""
    if len(complaints) <= MOST + 1:  # The last one may be a count.
        return complaints
    return first_few(complaints, len(complaints), source)


def news(before: Iterable[ObjectStatus], now: Sequence[ObjectStatus]) -> Iterator[str]:
    """Lines for the log. That a count has changed is none: it does so with each event."""
    known = set(before)
    counted = {each.where for each in known if _is_count(each)}
    new = [
        each
        for each in now
        if each not in known and not (_is_count(each) and each.where in counted)
    ]
    for each in new[:_TOLD]:
        field = f" {each.field}:" if each.field else ""
        yield f"{each.where}:{field} {each.reason}"
    if len(new) > _TOLD:
        yield f"and {len(new) - _TOLD:,} more objects that cannot be used; uproxy status lists them"


def _is_count(status: ObjectStatus) -> bool:
    return status.reason.endswith(_MORE)
