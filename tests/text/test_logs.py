"""Each record of the log is one line, whatever characters its names and reasons contain."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from tests.nasty import MARKUP, NASTY, is_fit_to_print
from uproxy.text.logs import formatter


def record(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("uproxy.x", logging.INFO, "x.py", 1, message, values, None)


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_one_printable_line(style: str, text: str) -> None:
    for each in (record("cannot serve %s", text), record(text)):
        line = formatter(style).format(each)
        assert line.isprintable()
        assert line.isascii()


def test_json_says_what_was_logged() -> None:
    text = "".join(each for name, each in NASTY.items() if name != "surrogate")
    assert json.loads(formatter("json").format(record("%s!", text)))["message"] == f"{text}!"


def test_text_has_the_time_the_level_and_the_message() -> None:
    line = formatter("text").format(record("serving %s for 東京", MARKUP))
    assert line[2] == line[5] == ":"
    assert line[8:] == f" INFO    serving {MARKUP} for 東京"


def failing() -> logging.LogRecord:
    try:
        raise ValueError("\x1b]0;owned\x07\n12:00:00 INFO    all is well\u202e")
    except ValueError:
        return logging.LogRecord("x", logging.ERROR, "x.py", 1, "oh", (), sys.exc_info())


def test_a_traceback_has_lines_but_forges_none() -> None:
    first, *more = formatter("text").format(failing()).split("\n")
    assert first.endswith("ERROR   oh")
    assert len(more) > 3
    assert all(line.startswith("  ") for line in more)
    assert any("INFO    all is well" in line for line in more)
    assert is_fit_to_print("\n".join(more))


def test_a_traceback_in_json_is_in_the_line_of_its_event() -> None:
    line = formatter("json").format(failing())
    assert line.isprintable()
    assert "ValueError" in json.loads(line)["exc_info"]
