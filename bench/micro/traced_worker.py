"""A worker that counts its calls between two signals: CHANNEL RESULT [--no-io-uring].

The result is a JSON object for each pair of signals, a line each: calls by the name of what was
called, of Python functions and of built-in ones. Only `calls` starts it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from types import BuiltinFunctionType, FrameType
from typing import Any

# As in uproxy.dataplane.__main__.
sys.modules["ssl"] = None  # type: ignore[assignment]

from uproxy.dataplane.program import main  # noqa: E402

SWITCH = signal.SIGUSR1
"""Begins and ends the counting."""


class CallCounter:
    """What has been called since the last switch."""

    def __init__(self, result: int) -> None:
        self._result = result
        self._counts: Counter[tuple[str, str]] = Counter()
        self._active = False

    def switch(self, *_: object) -> None:
        sys.setprofile(None)
        os.write(self._result, self._line())
        self._counts.clear()
        self._active = not self._active
        if self._active:
            sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            code = frame.f_code
            module = frame.f_globals.get("__name__", "")
            self._counts["python", f"{module}.{code.co_qualname}"] += 1
        elif event == "c_call":
            self._counts["builtin", _name(argument)] += 1

    def _line(self) -> bytes:
        """This function's own name is among them, as `switch` is: both are taken out."""
        found: dict[str, dict[str, int]] = {"python": {}, "builtin": {}}
        for (kind, name), count in self._counts.items():
            if not name.startswith(f"{__name__}.") and name != "sys.setprofile":
                found[kind][name] = count
        return json.dumps(found).encode() + b"\n"


def _name(function: BuiltinFunctionType) -> str:
    owner = function.__self__
    if owner is None or isinstance(owner, type(sys)):
        return f"{function.__module__}.{function.__qualname__}"
    return function.__qualname__


if __name__ == "__main__":
    signal.signal(SWITCH, CallCounter(int(sys.argv[2])).switch)
    main(int(sys.argv[1]), ring="--no-io-uring" not in sys.argv)
