"""Annotations that have uproxy's prefix, and that uproxy does not know."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from uproxy.core.suggestions import closest

PREFIX: Final = "uproxy.dev/"
"""Of the names of uproxy's own annotations and labels."""


class Unknown(NamedTuple):
    """One that is probably misspelt."""

    name: str
    reason: str
    """What follows the name in a sentence."""


def unknown_annotations(
    names: Iterable[str], known: Collection[str], written: Collection[str] = ()
) -> Iterator[Unknown]:
    """Those of `names` that are neither among `known`, which people write, nor among `written`,
    which uproxy writes. The latter are without the prefix."""
    for name in names:
        word = name.removeprefix(PREFIX)
        if word == name or word in known or word in written:
            continue
        # The prefix, which all of them share, would make any two names alike.
        meant = closest(word, known)
        advice = f'; did you mean "{PREFIX}{meant}"?' if meant else ""
        yield Unknown(name, f"is not known, so it is ignored{advice}")
