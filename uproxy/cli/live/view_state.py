"""What a key does: from one state of a live view to the next. Nothing here knows a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from uproxy.cli.live import keys
from uproxy.cli.live.listing import Order, Row

_LONGEST_FILTER: Final = 60
"""Characters; the line in which it is typed has no room for more."""


class ViewState(NamedTuple):
    """What a person sees of a listing."""

    order: Order
    selected: str = ""
    """Key of the selected row; "": the first row about a Service, whichever it is at the time."""
    position: int = 0
    """Where the selected row was; if it is gone, the row that is there now takes its place."""
    top: int = 0
    """The first line shown of the rows, or of the explanation."""
    typing: bool = False
    """Whether letters go into the filter."""
    explained: str = ""
    """The Service that is explained in place of the listing."""
    behind: int = 0
    """`top` of the listing, while a Service is explained."""
    ended: bool = False


class Scene(NamedTuple):
    """What is there to be seen at the moment."""

    rows: Sequence[Row]
    height: int
    """Lines for the rows, or for the explanation."""
    sorts: Sequence[str] = ()
    explanation: int = 0
    """Lines of the explanation."""


def pressed(state: ViewState, key: str, scene: Scene) -> ViewState:
    """The state after a key."""
    if state.explained:
        return _while_explaining(state, key, scene)
    if state.typing:
        return _while_typing(state, key, scene)
    if key in _MOVES:
        return _MOVES[key](state, scene)
    match key:
        case "q":
            return state._replace(ended=True)
        case "/":
            return state._replace(typing=True)
        case "s":
            return _with_order(state, state.order._replace(sort=_next_sort(state, scene)))
        case "r":
            return _with_order(state, state.order._replace(reverse=not state.order.reverse))
        case keys.ESCAPE:
            return _with_order(state, state.order._replace(filter=""))
        case keys.ENTER:
            return _explaining(state, scene)
    return state


def settled(state: ViewState, scene: Scene) -> ViewState:
    """The state for what is there now, with the selected row on the screen."""
    if state.explained:
        return state._replace(top=_between(0, state.top, scene.explanation - scene.height))
    position = selected_row(state, scene.rows)
    first = sum(len(row.lines) for row in scene.rows[:position])
    after = first + len(scene.rows[position].lines) if scene.rows else 0
    total = sum(len(row.lines) for row in scene.rows)
    # The last line of the selected row is shown, and if there is room its first line.
    top = min(max(state.top, after - scene.height), first)
    top = _between(0, top, total - scene.height)
    return state._replace(position=position, top=top)


def selected_row(state: ViewState, rows: Sequence[Row]) -> int:
    """The index of the selected row; 0 if there are no rows."""
    if not state.selected:
        return _first(rows)
    for index, row in enumerate(rows):
        if row.key == state.selected:
            return index
    return _between(0, state.position, len(rows) - 1)


def _first(rows: Sequence[Row]) -> int:
    """The first row that can be explained, as there may be titles above it."""
    return next((index for index, row in enumerate(rows) if row.service), 0)


def _while_explaining(state: ViewState, key: str, scene: Scene) -> ViewState:
    page = max(scene.height - 1, 1)
    last = scene.explanation
    tops = {
        keys.UP: state.top - 1,
        keys.DOWN: state.top + 1,
        keys.PAGE_UP: state.top - page,
        keys.PAGE_DOWN: state.top + page,
        keys.HOME: 0,
        keys.END: last,
    }
    if key == "q":
        return state._replace(ended=True)
    if key in (keys.ESCAPE, keys.ENTER, keys.LEFT, keys.BACKSPACE):
        return state._replace(explained="", top=state.behind, behind=0)
    top = tops.get(key, state.top)
    return state._replace(top=_between(0, top, scene.explanation - scene.height))


def _while_typing(state: ViewState, key: str, scene: Scene) -> ViewState:
    if key in _MOVES:
        return _MOVES[key](state, scene)
    text = state.order.filter
    match key:
        case keys.ENTER:
            return state._replace(typing=False)
        case keys.ESCAPE:
            return _with_order(state._replace(typing=False), state.order._replace(filter=""))
        case keys.BACKSPACE:
            text = text[:-1]
        case keys.CLEAR:
            text = ""
        case _ if len(key) == 1:
            text = (text + key)[:_LONGEST_FILTER]
    return _with_order(state, state.order._replace(filter=text))


def _explaining(state: ViewState, scene: Scene) -> ViewState:
    if not scene.rows:
        return state
    row = scene.rows[selected_row(state, scene.rows)]
    if not row.service:
        return state
    return state._replace(selected=row.key, explained=row.service, top=0, behind=state.top)


def _next_sort(state: ViewState, scene: Scene) -> str:
    at = scene.sorts.index(state.order.sort)
    return scene.sorts[(at + 1) % len(scene.sorts)]


def _with_order(state: ViewState, order: Order) -> ViewState:
    """What comes first in the new order is seen first."""
    if order == state.order:
        return state
    return state._replace(order=order, selected="", position=0, top=0)


def _by(rows: int) -> Callable[[ViewState, Scene], ViewState]:
    return lambda state, scene: _select(state, scene, selected_row(state, scene.rows) + rows)


def _by_page(direction: int) -> Callable[[ViewState, Scene], ViewState]:
    def move(state: ViewState, scene: Scene) -> ViewState:
        """To the farthest row of which the lines and those in between fit on a screen."""
        at = selected_row(state, scene.rows) + direction
        room = scene.height - 1
        while 0 <= at < len(scene.rows) and room > len(scene.rows[at].lines):
            room -= len(scene.rows[at].lines)
            at += direction
        return _select(state, scene, at)

    return move


def _select(state: ViewState, scene: Scene, position: int) -> ViewState:
    position = _between(0, position, len(scene.rows) - 1)
    selected = scene.rows[position].key if position > _first(scene.rows) else ""
    return settled(state._replace(selected=selected, position=position), scene)


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))


_MOVES: Final[dict[str, Callable[[ViewState, Scene], ViewState]]] = {
    keys.UP: _by(-1),
    keys.DOWN: _by(1),
    keys.PAGE_UP: _by_page(-1),
    keys.PAGE_DOWN: _by_page(1),
    keys.HOME: lambda state, scene: _select(state, scene, 0),
    keys.END: lambda state, scene: _select(state, scene, len(scene.rows) - 1),
}
