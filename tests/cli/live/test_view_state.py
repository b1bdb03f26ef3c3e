"""What keys do, as tables: from one state of a view to the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.cli.live import keys
from uproxy.cli.live.listing import Order, Row
from uproxy.cli.live.view_state import Scene, ViewState, pressed, selected_row, settled

SORTS = ("flows", "active", "bytes")
START = ViewState(Order("flows"))
TEN = [Row(f"row {number}", [f"line {number}"], f"default/{number}") for number in range(10)]
TALL = [Row(f"row {number}", ["above", "below"], f"default/{number}") for number in range(10)]
SCENE = Scene(TEN, 4, SORTS)


def after(*typed: str, scene: Scene = SCENE, state: ViewState = START) -> ViewState:
    for key in typed:
        state = settled(pressed(state, key, scene), scene)
    return state


@pytest.mark.parametrize(
    ("typed", "row", "top"),
    [
        pytest.param([], 0, 0, id="nothing"),
        pytest.param([keys.DOWN], 1, 0, id="down"),
        pytest.param([keys.DOWN] * 3, 3, 0, id="to the last that is seen"),
        pytest.param([keys.DOWN] * 4, 4, 1, id="the list scrolls"),
        pytest.param([keys.DOWN] * 99, 9, 6, id="no farther than the end"),
        pytest.param([keys.UP], 0, 0, id="no farther than the beginning"),
        pytest.param([keys.END], 9, 6, id="end"),
        pytest.param([keys.END, keys.UP, keys.UP], 7, 6, id="up without scrolling"),
        pytest.param([keys.END, *[keys.UP] * 4], 5, 5, id="up, scrolling"),
        pytest.param([keys.END, keys.HOME], 0, 0, id="home"),
        pytest.param([keys.PAGE_DOWN], 3, 0, id="page down"),
        pytest.param([keys.PAGE_DOWN] * 2, 6, 3, id="page down again"),
        pytest.param([keys.PAGE_DOWN] * 9, 9, 6, id="page down to the end"),
        pytest.param([keys.PAGE_DOWN, keys.PAGE_DOWN, keys.PAGE_UP], 3, 3, id="page up"),
        pytest.param([keys.LEFT, keys.RIGHT, "x", "\u65e5"], 0, 0, id="keys without a meaning"),
    ],
)
def test_moving(typed: list[str], row: int, top: int) -> None:
    state = after(*typed)
    assert (selected_row(state, TEN), state.top) == (row, top)


@pytest.mark.parametrize(
    ("typed", "row", "top"),
    [
        ([keys.DOWN], 1, 0),
        ([keys.DOWN] * 2, 2, 2),
        ([keys.PAGE_DOWN], 2, 2),
        ([keys.END], 9, 16),
        ([keys.END, keys.UP, keys.UP], 7, 14),
    ],
)
def test_moving_by_rows_of_two_lines(typed: list[str], row: int, top: int) -> None:
    state = after(*typed, scene=Scene(TALL, 4, SORTS))
    assert (selected_row(state, TALL), state.top) == (row, top)


def test_the_selection_follows_its_row() -> None:
    state = after(keys.DOWN, keys.DOWN)
    turned = Scene(TEN[::-1], 4, SORTS)
    state = settled(state, turned)
    assert turned.rows[selected_row(state, turned.rows)] == TEN[2]
    assert state.top <= 7 < state.top + 4


def test_the_first_row_is_whichever_comes_first() -> None:
    """In `top`, the busiest one; it does not drag the view down when it becomes less busy."""
    turned = TEN[::-1]
    assert selected_row(after(keys.DOWN, keys.UP), turned) == 0


def test_a_title_above_the_first_row_is_not_selected() -> None:
    titled = Scene([Row("title", ["", "Not served:"]), *TEN], 4, SORTS)
    assert selected_row(START, titled.rows) == 1
    state = after(keys.UP, keys.UP, scene=titled)
    assert (selected_row(state, titled.rows), state.top) == (1, 0)
    assert after(keys.ENTER, scene=titled).explained == "default/0"


def test_when_the_selected_row_is_gone_its_place_is_selected() -> None:
    state = after(keys.DOWN, keys.DOWN)
    left = Scene([*TEN[:2], *TEN[3:]], 4, SORTS)
    assert selected_row(settled(state, left), left.rows) == 2
    assert selected_row(settled(after(keys.END), Scene(TEN[:3], 4)), TEN[:3]) == 2
    assert settled(after(keys.END), Scene((), 4)).top == 0


def test_a_smaller_screen_shows_the_selected_row() -> None:
    state = settled(after(keys.DOWN, keys.DOWN, keys.DOWN), Scene(TEN, 1))
    assert state.top == 3
    assert settled(state, Scene(TEN, 0)).top <= 9


def test_sorting() -> None:
    assert [after(*["s"] * times).order.sort for times in range(4)] == [*SORTS, SORTS[0]]
    assert after("r").order.reverse
    assert not after("r", "r").order.reverse
    state = after(keys.END, "s")
    assert (selected_row(state, TEN), state.top) == (0, 0), "what comes first is to be seen"


@pytest.mark.parametrize(
    ("typed", "text", "typing"),
    [
        (["/"], "", True),
        (["/", "w", "e", "b"], "web", True),
        (["/", "q", "s", "r", "/"], "qsr/", True),
        (["/", "w", "x", keys.BACKSPACE, "e"], "we", True),
        (["/", keys.BACKSPACE], "", True),
        (["/", "w", keys.CLEAR, "e"], "e", True),
        (["/", "w", keys.ENTER], "w", False),
        (["/", "w", keys.ENTER, "/", "e"], "we", True),
        (["/", "w", keys.ESCAPE], "", False),
        (["/", "w", keys.ENTER, keys.ESCAPE], "", False),
        (["/", "w", keys.DOWN, keys.LEFT, "e"], "we", True),
        (["/", *"x" * 100], "x" * 60, True),
    ],
)
def test_filtering(typed: list[str], text: str, typing: bool) -> None:
    state = after(*typed)
    assert (state.order.filter, state.typing) == (text, typing)
    assert not state.ended


def test_explaining() -> None:
    state = after(*[keys.DOWN] * 5, keys.ENTER)
    assert (state.explained, state.top) == ("default/5", 0)
    long = Scene((), 4, explanation=10)
    tops = [after(*typed, scene=long, state=state).top for typed in _SCROLLS]
    assert tops == [1, 0, 3, 6, 6, 0]
    for key in (keys.ESCAPE, keys.ENTER, keys.LEFT, keys.BACKSPACE):
        back = after(key, state=after(keys.DOWN, scene=long, state=state))
        assert (back.explained, selected_row(back, TEN), back.top) == ("", 5, 2)


_SCROLLS = [
    [keys.DOWN],
    [keys.UP],
    [keys.PAGE_DOWN],
    [keys.END],
    [keys.PAGE_DOWN] * 5,
    [keys.END, keys.HOME],
]


def test_what_is_about_no_service_cannot_be_explained() -> None:
    assert after(keys.ENTER, scene=Scene([Row("line 1", ["Workers:"])], 4)).explained == ""
    assert after(keys.ENTER, scene=Scene((), 4)).explained == ""


@pytest.mark.parametrize("typed", [["q"], [keys.ENTER, "q"], ["/", "x", keys.ENTER, "q"]])
def test_quitting(typed: list[str]) -> None:
    assert after(*typed).ended


def test_escape_does_not_quit() -> None:
    assert not after(keys.ESCAPE, keys.ESCAPE).ended


MOVES = [keys.UP, keys.DOWN, keys.PAGE_UP, keys.PAGE_DOWN, keys.HOME, keys.END]
OTHERS = [keys.ENTER, keys.ESCAPE, keys.BACKSPACE, keys.CLEAR, keys.LEFT, keys.RIGHT]
ANY_KEY = st.sampled_from(["q", "s", "r", "/", "x", *MOVES, *OTHERS])
SCENES = st.builds(
    Scene,
    st.lists(
        st.builds(
            Row, st.sampled_from("abcdefgh"), st.lists(st.just("x"), max_size=3), st.just("s")
        ),
        max_size=8,
        unique_by=lambda row: row.key,
    ),
    st.integers(0, 5),
    st.just(SORTS),
    st.integers(0, 9),
)


@given(st.lists(st.tuples(ANY_KEY, SCENES), max_size=20))
def test_whatever_is_pressed_and_whatever_changes(steps: list[tuple[str, Scene]]) -> None:
    state = START
    for key, scene in steps:
        state = settled(pressed(state, key, scene), scene)
        total = sum(len(row.lines) for row in scene.rows)
        most = scene.explanation if state.explained else total
        assert 0 <= state.top <= max(most - scene.height, 0)
        assert 0 <= selected_row(state, scene.rows) <= max(len(scene.rows) - 1, 0)
