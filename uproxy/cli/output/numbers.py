"""Numbers for people: short, with a letter for powers of 1000."""

from __future__ import annotations

from typing import Final

_LETTERS: Final = ("", "k", "M", "G", "T", "P")
_UNITS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
"""Seconds, and those of the next smaller unit."""


def amount(number: float) -> str:
    """A count or rate in powers of 1000: 0, 0.5, 12, 1.3k, 25M."""
    value, thousands = number, 0
    while abs(value) >= 999.5 and thousands < len(_LETTERS) - 1:
        value /= 1000
        thousands += 1
    letter = _LETTERS[thousands]
    return f"{value:.1f}{letter}" if _wants_decimal(value, letter) else f"{value:.0f}{letter}"


def byte_size(number: float) -> str:
    """Bytes: 0 B, 512 B, 1.3 kB, 25 MB."""
    text = amount(round(number))
    digits = text.rstrip("kMGTP")
    return f"{digits} {text[len(digits) :]}B"


def counted(number: int, noun: str) -> str:
    """ "1 backend", "3 backends"."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def _wants_decimal(value: float, letter: str) -> bool:
    return abs(value) < 9.95 and (bool(letter) or round(value, 1) != round(value))


def duration(seconds: float) -> str:
    """A time in one or two units: 0.5 ms, 12 ms, 1.3 s, 45 s, 3m20s, 5h2m, 3d4h."""
    for size, unit, part, small_unit in _UNITS:
        if seconds >= size - part / 2:
            whole, rest = divmod(round(seconds / part), size // part)
            return f"{whole}{unit}{rest}{small_unit}" if rest else f"{whole}{unit}"
    value, unit = (seconds, "s") if seconds >= 0.9995 else (max(seconds, 0) * 1000, "ms")
    return f"{value:.1f} {unit}" if 0.05 <= value < 9.95 else f"{value:.0f} {unit}"
