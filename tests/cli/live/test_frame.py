"""The lines of a screen."""

from __future__ import annotations

import pytest

from uproxy.cli.live.frame import (
    Line,
    Size,
    divide,
    explanation_lines,
    fit_to_height,
    help_line,
    listing_lines,
    position_of,
)
from uproxy.cli.live.listing import Listing, Order, Row
from uproxy.cli.live.view_state import ViewState

LISTING = Listing(
    ["Node here: ready.", ""],
    ["NAME"],
    [Row("a", ["a"], "default/a"), Row("b", ["group", "b"], "default/b"), Row("c", ["more"])],
)
STATE = ViewState(Order("flows"), selected="b")


@pytest.mark.parametrize(
    ("count", "height", "last"),
    [
        pytest.param(0, 5, None, id="nothing"),
        pytest.param(5, 5, "line 4", id="just fits"),
        pytest.param(6, 5, "... 2 more lines", id="one too many"),
        pytest.param(10_000, 24, "... 9,977 more lines", id="far too many"),
    ],
)
def test_fit_to_height(count: int, height: int, last: str | None) -> None:
    shown = fit_to_height([f"line {number}" for number in range(count)], height)
    assert len(shown) == min(count, height)
    assert shown[-1:] == ([] if last is None else [last])


def screen(width: int, height: int, *, notice: str = "", keys: bool = True) -> list[Line]:
    size = Size(width, height)
    frame = divide(LISTING.summary, LISTING.head, notice, size, keys=keys)
    return listing_lines(frame, STATE, LISTING, "help")


def test_a_screen() -> None:
    assert screen(80, 9) == [
        Line("Node here: ready."),
        Line(""),
        Line("NAME"),
        Line("a"),
        Line("group", marked=True),
        Line("b", marked=True),
        Line("more"),
        Line(""),
        Line("help", marked=True),
    ]


def test_a_notice_is_above_the_help() -> None:
    text = "Trying again: no uproxy answers, whatever it is asked, " + "and so on " * 20
    lines = screen(40, 12, notice=text)
    assert lines[-1] == Line("help", marked=True)
    assert [line.text for line in lines[-4:-1]] == [
        "Trying again: no uproxy answers,",
        "whatever it is asked, and so on and so",
        "on and so on and so on and so on and so",
    ]


def test_without_a_keyboard_there_is_no_help() -> None:
    assert screen(80, 9, keys=False)[-1] == Line("")


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("notice", ["", "a notice that is long enough for two lines or more"])
@pytest.mark.parametrize("height", range(1, 12))
def test_it_is_never_higher_than_the_terminal(height: int, notice: str, keys: bool) -> None:
    lines = screen(30, height, notice=notice, keys=keys)
    assert len(lines) == height


def test_a_filter_that_finds_nothing() -> None:
    state = STATE._replace(order=Order("flows", filter="xyz"))
    empty = LISTING._replace(rows=[])
    frame = divide(empty.summary, empty.head, "", Size(80, 9), keys=True)
    assert Line("Nothing contains xyz.") in listing_lines(frame, state, empty, "help")


def test_an_explanation_scrolls() -> None:
    frame = divide((), (), "", Size(80, 3), keys=True)
    state = STATE._replace(explained="default/b", top=1)
    assert explanation_lines(frame, state, ["1", "2", "3", "4"], "help") == [
        Line("2"),
        Line("3"),
        Line("help", marked=True),
    ]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (STATE, "2/2  q quit  enter explain  s sort: flows  r reverse  / filter"),
        (
            STATE._replace(order=Order("problems", reverse=True, filter="web")),
            "2/2  q quit  enter explain  s sort: problems  r reversed  esc show all  /web",
        ),
        (
            STATE._replace(order=Order("flows", filter="web"), typing=True),
            "/web_  enter keep  esc show all",
        ),
        (STATE._replace(explained="default/b"), "esc back  arrows/pages scroll  q quit"),
        (
            STATE._replace(selected="c"),
            "q quit  enter explain  s sort: flows  r reverse  / filter",
        ),
    ],
)
def test_help(state: ViewState, text: str) -> None:
    assert help_line(state, position_of(state, LISTING)) == text
