"""The lines of a screen: what is seen of a listing or an explanation, and what the keys do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from uproxy.cli.live.listing import Listing
from uproxy.cli.live.view_state import ViewState, selected_row
from uproxy.cli.output.columns import paragraph

_MOST_OF_NOTICE: Final = 3
"""Lines; the rest of a long reason would leave no room for what it is about."""


class Size(NamedTuple):
    """Of a terminal, in characters."""

    width: int
    height: int


class Line(NamedTuple):
    """A line of a screen. A marked one is shown in reverse, over the whole width."""

    text: str
    marked: bool = False


class Frame(NamedTuple):
    """A screen, divided into its parts. Its body scrolls."""

    above: Sequence[str]
    height: int
    """Of the body."""
    below: Sequence[str]


def divide(
    above: Sequence[str], head: Sequence[str], notice: str, size: Size, *, keys: bool
) -> Frame:
    """How much of a screen the body gets: what the lines above and below it leave. `above` may
    take a third of the screen, `head` is always there."""
    below = list(paragraph(notice, width=size.width))[:_MOST_OF_NOTICE] if notice else []
    below = [*below, *[""] * keys][-size.height :]
    shown = [*fit_to_height(above, max(size.height // 3, 1)), *head]
    shown = shown[: max(size.height - len(below) - 1, 0)]
    return Frame(shown, max(size.height - len(shown) - len(below), 0), below)


def listing_lines(frame: Frame, state: ViewState, listing: Listing, help_line: str) -> list[Line]:
    """A screen with a listing."""
    body = list(islice(_body(state, listing), state.top, state.top + frame.height))
    if not listing.rows and state.order.filter:
        body = [Line(f"Nothing contains {state.order.filter}.")][: frame.height]
    return _screen(frame, body, help_line)


def explanation_lines(
    frame: Frame, state: ViewState, explanation: Sequence[str], help_line: str
) -> list[Line]:
    """A screen with what `uproxy explain` says."""
    body = explanation[state.top : state.top + frame.height]
    return _screen(frame, list(map(Line, body)), help_line)


def help_line(state: ViewState, position: str = "") -> str:
    """What the keys do, for the last line of the screen."""
    if state.explained:
        return "esc back  arrows/pages scroll  q quit"
    if state.typing:
        return f"/{state.order.filter}_  enter keep  esc show all"
    order = state.order
    parts = [position, "q quit", "enter explain", f"s sort: {order.sort}"]
    parts += ["r reversed" if order.reverse else "r reverse"]
    # A long filter is cut off, so it comes last.
    parts += ["esc show all", f"/{order.filter}"] if order.filter else ["/ filter"]
    return "  ".join(filter(None, parts))


def position_of(state: ViewState, listing: Listing) -> str:
    """Which of the rows that can be explained is selected, as "3/17"; "" if none of them is."""
    rows = listing.rows
    selected = selected_row(state, rows)
    if not rows or not rows[selected].service:
        return ""
    before = sum(bool(row.service) for row in rows[:selected])
    return f"{before + 1:,}/{sum(bool(row.service) for row in rows):,}"


def fit_to_height(lines: Sequence[str], height: int) -> Sequence[str]:
    """As many lines as fit; the last one then says how many do not."""
    if len(lines) <= height:
        return lines
    left = len(lines) - height + 1
    return [*lines[: height - 1], f"... {left:,} more lines"]


def _body(state: ViewState, listing: Listing) -> Iterator[Line]:
    selected = selected_row(state, listing.rows)
    for index, row in enumerate(listing.rows):
        for line in row.lines:
            yield Line(line, marked=index == selected)


def _screen(frame: Frame, body: Sequence[Line], help_line: str) -> list[Line]:
    gap = [Line("")] * (frame.height - len(body))
    below = [Line(text or help_line, marked=not text) for text in frame.below]
    return [*map(Line, frame.above), *body, *gap, *below]
