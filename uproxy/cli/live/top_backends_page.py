"""What `uproxy top --backends` shows: how fast counts have grown since the sample before."""

from __future__ import annotations

from typing import Final

from uproxy.cli.live.listing import Listing, Order, Row
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.top_backends import (
    BACKEND_SORT_KEYS,
    BackendSample,
    backend_rates,
    backends_document,
    backends_table,
)

BACKEND_SORTS: Final = tuple(BACKEND_SORT_KEYS)


class TopBackendsContent:
    """Two samples."""

    def __init__(self, before: BackendSample, after: BackendSample) -> None:
        self._before = before
        self._after = after

    def listing(self, order: Order, width: int | None) -> Listing:
        """See Content."""
        every = backend_rates(self._before, self._after, sort=order.sort)
        found = [each for each in every if order.matches(str(each.name), each.view.state)]
        if order.reverse:
            found.reverse()
        _, paint = terminal()
        head, *lines = backends_table(found, width=width, paint=paint)
        rows = [
            Row(str(each.name), [line], each.name.service)
            for each, line in zip(found, lines, strict=True)
        ]
        return Listing((), [head], rows)

    def document(self, sort: str) -> dict[str, object]:
        """The same for scripts; it becomes JSON."""
        return backends_document(self._before, self._after, sort=sort)
