"""How a line of the log is written, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from typing import Final

from uproxy.core.printable import printable, printable_json

_INDENT: Final = "  "


def formatter(style: str) -> logging.Formatter:
    """The formatter for the style "text" or "json". Each record becomes one line, whatever its text
    contains. Only a traceback has more; as text its lines are indented, so that none can be taken
    for a record."""
    if style != "json":
        return _Text("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    return _Json(_json())


def set_up(style: str, *, verbose: bool) -> None:
    """Log to stderr, one line for each record."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(style))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    set_level(verbose=verbose)


def set_level(*, verbose: bool) -> None:
    """Log what an operator wants to see, or all details."""
    logging.getLogger("uproxy").setLevel(logging.DEBUG if verbose else logging.INFO)


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(_INDENT + printable(line) for line in lines)


class _Json(logging.Formatter):
    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return printable_json(self._inner.format(record).encode()).decode()


def _json() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
