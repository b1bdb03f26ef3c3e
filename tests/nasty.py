"""Texts that must not reach a terminal, a log or a page as they are."""

from __future__ import annotations

from typing import Final

NASTY: Final = {
    "escape sequence": "\x1b[31mred\x1b[0m",
    "title of the window": "\x1b]0;owned\x07",
    "8-bit escape sequence": "\x9b2J",
    "forged line": "web\n12:00:00 INFO all is well",
    "overwritten line": "failed\rserving",
    "erased": "no\b\bok",
    "delete": "a\x7fb",
    "null": "a\x00b",
    "next line": "a\x85b",
    "line separator": "a\u2028b\u2029c",
    "right to left": "\u202egnp.exe",
    "isolate": "a\u2066b\u2069c",
    "byte order mark": "\ufeffweb",
    "zero width": "we\u200bb",
    "tag": "a\U000e0041b",
    "surrogate": "a\udc9bb",
}
MARKUP: Final = "[red]web[bold] <b>\"'&<script>"
"""Text that is fine as it is, and must not be taken for markup."""


def is_fit_to_print(text: str) -> bool:
    """Whether nothing but printable characters and the ends of lines is in a text."""
    return all(line.isprintable() for line in text.split("\n"))
