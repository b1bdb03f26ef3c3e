"""What `uproxy status --watch` shows: problems first, and all the rest below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from uproxy.cli.live.listing import Listing, Order, Row
from uproxy.cli.output.columns import Paint
from uproxy.cli.output.status import (
    beginning,
    cells,
    frontend_blocks,
    remaining,
    unserved_blocks,
    urgency,
)
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
        if not self._only_frontends:
            rows += self._below(order, width)
        elif not frontends and not order.filter:
            rows += _lines([self._nothing], "nothing")
        return Listing(summary, head, rows)

    def _below(self, order: Order, width: int | None) -> Iterator[Row]:
        """What follows the frontends. Only Services can be searched for, and explained."""
        services = [
            each for each in self._status.services if order.matches(each.service, each.reason)
        ]
        blocks = list(unserved_blocks(services, width))
        yield from _lines([line for block in blocks[:1] for line in block], "title")
        for number, (each, lines) in enumerate(zip(services, blocks[1:], strict=True)):
            yield Row(f"{number} {each.service}", lines, each.service)
        if not order.filter:
            yield from _lines(remaining(self._status, width), "section")


def _row(each: FrontendView, lines: Sequence[str]) -> Row:
    key = f"{each.frontend} {each.kind} {each.service}:{each.service_port}"
    return Row(key, lines, each.service)


def _lines(lines: Iterable[str], part: str) -> Iterator[Row]:
    """What cannot be explained can still be scrolled to."""
    for number, line in enumerate(lines):
        yield Row(f"{part} {number}", [line])
