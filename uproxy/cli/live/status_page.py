"""What `uproxy status --watch` shows: problems first, and all the rest below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from uproxy.cli.live.listing import Listing, Order, Row
from uproxy.cli.output.columns import Paint
from uproxy.cli.output.status import beginning, cells, ending, frontend_blocks, urgency
from uproxy.core.report.status_format import FrontendView, StatusView

SORTS: Final = ("problems", "service", "flows", "address")

_KEYS: Final[dict[str, Callable[[FrontendView], Any]]] = {
    "problems": urgency,
    # uproxy sorts by Service.
    "service": lambda each: 0,
    "flows": lambda each: -each.counts.active_flows,
    "address": lambda each: (":" in each.address, each.address, each.port, each.protocol),
}


class StatusContent:
    """One status."""

    def __init__(
        self,
        status: StatusView,
        *,
        paint: Paint,
        wide: bool = False,
        only_frontends: bool = False,
        nothing: str = "",
    ) -> None:
        """`only_frontends`: without the sections around the table, and with the line `nothing` if
        there are none."""
        self._status = status
        self._paint = paint
        self._wide = wide
        self._only_frontends = only_frontends
        self._nothing = nothing

    def listing(self, order: Order, width: int | None) -> Listing:
        """See Content."""
        around = None if self._wide else width
        frontends = sorted(self._status.frontends, key=_KEYS[order.sort])
        if order.reverse:
            frontends.reverse()
        found = [each for each in frontends if order.matches(*cells(each, wide=self._wide))]
        summary: list[str] = []
        if not self._only_frontends:
            summary = [*beginning(self._status, width), ""]
        blocks = frontend_blocks(found, wide=self._wide, width=around, paint=self._paint)
        head, *rest = blocks if found else [[]]
        rows = list(map(_row, found, rest))
        if not order.filter:
            below = [self._nothing] if not frontends else []
            if not self._only_frontends:
                below = list(ending(self._status, width))
            rows += _section_rows(below)
        return Listing(summary, head, rows)


def _row(each: FrontendView, lines: Sequence[str]) -> Row:
    return Row(f"{each.frontend} {each.service}:{each.service_port}", lines, each.service)


def _section_rows(lines: Iterable[str]) -> Iterator[Row]:
    """What cannot be explained can still be scrolled to."""
    for number, line in enumerate(lines):
        yield Row(f"line {number}", [line])
