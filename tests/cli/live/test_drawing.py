"""What a terminal is sent for a screen."""

from __future__ import annotations

import pytest

from uproxy.cli.live.drawing import drawn, fitted
from uproxy.cli.live.frame import Line, Size

RED = "\x1b[31m"
PLAIN = "\x1b[0m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("", "    ", id="nothing"),
        pytest.param("abcd", "abcd", id="just fits"),
        pytest.param("abcde", "abc…", id="too long"),
        pytest.param(f"{RED}ab{PLAIN}c", f"{RED}ab{PLAIN}c ", id="coloured"),
        pytest.param(f"{RED}abcdef{PLAIN}", f"{RED}abc{PLAIN}…", id="the colour ends"),
        pytest.param("東京", "東京", id="wide, just fits"),
        pytest.param("東京都", "東… ", id="half a letter is never shown"),
        pytest.param("a東b東", "a東…", id="wide and narrow"),
        pytest.param("東東bb", "東… ", id="nothing narrower follows what is left out"),
        pytest.param("e\u0301abc", "e\u0301abc", id="accents take no room"),
        pytest.param("a\x1b[2Jb\x07\u202e", "a[2Jb"[:3] + "…", id="nothing else is obeyed"),
    ],
)
def test_fitted(text: str, shown: str) -> None:
    assert fitted(text, 4) == shown


def test_every_row_is_covered() -> None:
    assert drawn([Line("ab")], Size(3, 2)) == "\x1b[1;1Hab \x1b[2;1H   "


def test_what_does_not_fit_below_is_left_out() -> None:
    assert drawn([Line("a"), Line("b")], Size(1, 1)) == "\x1b[1;1Ha"


def test_a_marked_line_is_reversed_over_its_whole_width_whatever_its_colours() -> None:
    line = Line(f"{RED}a{PLAIN}b", marked=True)
    reverse = "\x1b[7m"
    assert drawn([line], Size(3, 1)) == (f"\x1b[1;1H{reverse}{RED}a{PLAIN}{reverse}b {PLAIN}")
