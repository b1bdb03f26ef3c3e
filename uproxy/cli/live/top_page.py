"""What `uproxy top` shows: how fast counts have grown since the sample before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from uproxy.cli.live.listing import Listing, Order, Row
from uproxy.cli.output.top import SORT_KEYS, Sample, rates, rates_document, table, total

SORTS: Final = tuple(SORT_KEYS)


class TopContent:
    """Two samples."""

    def __init__(self, before: Sample, after: Sample) -> None:
        self._before = before
        self._after = after

    def listing(self, order: Order, width: int | None) -> Listing:
        """See Content."""
        every = rates(self._before, self._after, sort=order.sort)
        found = [each for each in every if order.matches(str(each.name))]
        if order.reverse:
            found.reverse()
        head, sums, *lines = table(found, width=width, sums=total(every))
        rows = [
            Row(str(each.name), [line], each.name.service)
            for each, line in zip(found, lines, strict=True)
        ]
        return Listing((), [head, sums], rows)

    def document(self, sort: str) -> dict[str, object]:
        """The same for scripts; it becomes JSON."""
        return rates_document(self._before, self._after, sort=sort)


def sorts_from(sorts: Sequence[str], first: str) -> Sequence[str]:
    """The orders, beginning with one of them."""
    at = sorts.index(first)
    return [*sorts[at:], *sorts[:at]]
