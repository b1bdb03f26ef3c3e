"""What a live command shows, independent of the terminal on which it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

Explanation = Callable[[int], Sequence[str]]
"""Lines about one Service, for a terminal of so many columns."""


class Order(NamedTuple):
    """What a person has chosen to see."""

    sort: str
    reverse: bool = False
    filter: str = ""
    """Rows have to contain it, in capitals or not."""

    def matches(self, *texts: str) -> bool:
        """Whether a row with these texts is to be shown."""
        return self.filter.lower() in " ".join(texts).lower()


class Row(NamedTuple):
    """A row that can be selected; it may take several lines."""

    key: str
    """What is the same in the next listing, wherever the row is then."""
    lines: Sequence[str]
    """They may have colours, and nothing else that is not printable."""
    service: str = ""
    """NAMESPACE/NAME of the Service that it is about; "" if it is about none."""


class Listing(NamedTuple):
    """Lines that stay at the top, and rows that scroll."""

    summary: Sequence[str]
    """Cut short where there is little room."""
    head: Sequence[str]
    """The head of the columns."""
    rows: Sequence[Row]

    def lines(self) -> list[str]:
        """All of it, one line below the other."""
        return [*self.summary, *self.head, *(line for row in self.rows for line in row.lines)]


class Content(Protocol):
    """One sample of what a command shows."""

    def listing(self, order: Order, width: int | None) -> Listing:
        """The listing in an order, for a terminal of a width; None is a pipe."""


class Page(NamedTuple):
    """A command that shows a list live."""

    sample: Callable[[], Content]
    """Asks uproxy. Raises NoStatus; the first time NotFound, too."""
    explain: Callable[[str], Explanation]
    """Asks uproxy about one Service. Raises NoStatus."""
    sorts: Sequence[str]
    """The orders between which a person can change; it begins with the first one."""

    @property
    def first_order(self) -> Order:
        return Order(self.sorts[0])
