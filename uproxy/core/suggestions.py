"""The known word that a misspelt one may stand for."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

_LONGEST: Final = 100
"""Characters of a word that is compared. The longest field of Kubernetes has 34, and the time that
comparing takes grows with the square of the length."""


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like `word`, whatever their capitals; "" if none is."""
    return "" if len(word) > _LONGEST else _compared(word, tuple(known))


@lru_cache(maxsize=1000)
def _compared(word: str, known: tuple[str, ...]) -> str:
    """To compare a kind with all that Kubernetes has takes 0.3 ms, and a file may have thousands of
    objects with the same mistake."""
    lowered = {each.lower(): each for each in known}
    matches = get_close_matches(word.lower(), lowered, n=1)
    return lowered[matches[0]] if matches else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean "x"?' or nothing, for the end of a sentence."""
    found = closest(word, known)
    return f'; did you mean "{found}"?' if found else ""
