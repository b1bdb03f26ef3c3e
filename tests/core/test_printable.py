"""What becomes of characters that are not printable."""

from __future__ import annotations

import msgspec
import pytest

from tests.nasty import MARKUP, NASTY, is_fit_to_print
from uproxy.core.printable import printable, printable_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("default/web", "default/web", id="plain"),
        pytest.param("Zürich, 東京, naïve", "Zürich, 東京, naïve", id="letters of the world"),
        pytest.param(MARKUP, MARKUP, id="markup"),
        pytest.param("\x1b[31m", r"\x1b[31m", id="C0"),
        pytest.param("a\nb\tc", r"a\nb\tc", id="white space"),
        pytest.param("\x9b2J", r"\x9b2J", id="C1"),
        pytest.param("\x7f", r"\x7f", id="DEL"),
        pytest.param("\u202eabc", r"\u202eabc", id="bidi"),
        pytest.param("\U000e0041", r"\U000e0041", id="beyond 16 bits"),
        pytest.param("\udc80", r"\udc80", id="a byte of a file name"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_nothing_nasty_is_left(text: str) -> None:
    assert printable(text).isprintable()


@pytest.mark.parametrize("text", [*NASTY.values(), MARKUP, "東京"])
def test_json_says_the_same_in_printable_characters(text: str) -> None:
    value = {"a": [text.encode(errors="replace").decode(), 1], "b": None}
    raw = printable_json(msgspec.json.encode(value))
    assert is_fit_to_print(raw.decode())
    assert msgspec.json.decode(raw) == value


def test_json_without_anything_odd_stays_as_it_is() -> None:
    raw = msgspec.json.encode({"a": MARKUP, "b": "東京 \\x1b"})
    assert printable_json(raw) == raw


def test_json_keeps_its_lines() -> None:
    assert printable_json(b'{\n  "a": 1\n}') == b'{\n  "a": 1\n}'


def test_what_is_no_utf8_cannot_be_json() -> None:
    assert printable_json(b'"\xff\x9b"') == '"\ufffd\ufffd"'.encode()
