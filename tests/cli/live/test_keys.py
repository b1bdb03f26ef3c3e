"""Keys, from the bytes that terminals send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.cli.live import keys
from uproxy.cli.live.keys import at_rest, decode


@pytest.mark.parametrize(
    ("data", "pressed", "rest"),
    [
        (b"", [], b""),
        (b"q", ["q"], b""),
        (b"a b", ["a", " ", "b"], b""),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", [keys.UP, keys.DOWN, keys.RIGHT, keys.LEFT], b""),
        (b"\x1bOA\x1bOB\x1bOH\x1bOF", [keys.UP, keys.DOWN, keys.HOME, keys.END], b""),
        (b"\x1b[H\x1b[F\x1b[1~\x1b[4~", [keys.HOME, keys.END] * 2, b""),
        (b"\x1b[7~\x1b[8~\x1b[5~\x1b[6~", [keys.HOME, keys.END, keys.PAGE_UP, keys.PAGE_DOWN], b""),
        (b"\r\n", [keys.ENTER, keys.ENTER], b""),
        (b"\x7f\x08\x15", [keys.BACKSPACE, keys.BACKSPACE, keys.CLEAR], b""),
        (b"\x1b", [], b"\x1b"),
        (b"x\x1b[", ["x"], b"\x1b["),
        (b"\x1b[1;", [], b"\x1b[1;"),
        (b"\x1bO", [], b"\x1bO"),
        (b"\x1bq", [keys.ESCAPE, "q"], b""),
        (b"\x1b\x1b[A", [keys.ESCAPE, keys.UP], b""),
        (b"\x1b[1;5A", [], b""),
        (b"\x1b[200~rm\x1b[201~", ["r", "m"], b""),
        (b"\x1b[<0;3;4M", [], b""),
        (b"\x00\x01\x0c\x1a", [], b""),
        ("\u00e9\u65e5\U0001f600".encode(), ["\u00e9", "\u65e5", "\U0001f600"], b""),
        (b"\xc3", [], b"\xc3"),
        (b"\xe6\x97", [], b"\xe6\x97"),
        ("\u202e".encode(), [], b""),
    ],
)
def test_decode(data: bytes, pressed: list[str], rest: bytes) -> None:
    assert decode(data) == (pressed, rest)


@pytest.mark.parametrize("data", [b"\xff\x80a", b"\x80abc", b"\xf0(((", b"\xc3\x1b[A"])
def test_what_is_not_text_does_no_harm(data: bytes) -> None:
    found, rest = decode(data + b"....q")
    assert (found[-1], rest) == ("q", b"")


def test_an_escape_that_nothing_follows_is_a_key() -> None:
    assert at_rest(b"\x1b") == [keys.ESCAPE]
    assert at_rest(b"\x1b[") == []
    assert at_rest(b"\xc3") == []


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_the_same_in_pieces(data: bytes) -> None:
    whole, _ = decode(data)
    pressed, rest = [], b""
    for byte in data:
        found, rest = decode(rest + bytes([byte]))
        pressed += found
    assert pressed == whole
    assert all(len(key) > 1 or key.isprintable() for key in pressed)
