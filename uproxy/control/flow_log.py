"""The flow log: a line of JSON for each flow that has ended.

A thread writes it. A full disk, a reader that has gone, or one that does not read, cannot stop the
control process: lines are dropped and counted.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from uproxy.control.line_file import LineFile
from uproxy.core.cluster.pod_history import Place
from uproxy.core.errors import SourceError
from uproxy.core.printable import printable_json
from uproxy.core.report.flow_format import Ended, flow_view
from uproxy.core.report.flow_log import FlowLogCounts, Missing

log = logging.getLogger(__name__)

_ROOM: Final = 10_000
"""Lines that wait for the thread, about 8 MB."""
_PATIENCE: Final = 2.0
"""Seconds that the thread gets at the end for what waits."""
_QUIET: Final = 60.0
"""Seconds between two lines of the program's own log about the same trouble."""

Line = tuple[Ended, Place]


class FlowLog:
    """An async context manager; lines are written while it is open."""

    def __init__(
        self,
        path: str,
        *,
        stdout: int | None = None,
        room: int = _ROOM,
        patience: float = _PATIENCE,
    ) -> None:
        """`path`: a file, or "-" for the descriptor `stdout`; None: that of this process."""
        self.counts = FlowLogCounts()
        self._file = LineFile(path, stdout)
        self._room = room
        self._patience = patience
        self._changed = threading.Condition()
        """Guards the next four."""
        self._batches: deque[Sequence[Line]] = deque()
        self._waiting = 0
        self._reopen = self._closing = False
        self._thread = threading.Thread(target=self._run, name="flow log", daemon=True)
        self._trouble = _Trouble()

    async def __aenter__(self) -> Self:
        """Raises SourceError if the file cannot be opened."""
        try:
            self._file.open()
        except OSError as error:
            # A pipe without a reader may get one.
            if error.errno != errno.ENXIO:
                raise SourceError(f"--flow-log: {self._file}: {_reason(error)}") from None
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what waits, as far as that is possible soon."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, self._patience)
        if self._waiting:
            log.warning("flow log: %d lines were not written to %s", self._waiting, self._file)

    def put(self, lines: Sequence[Line], left_out: int = 0) -> None:
        """Have lines written. `left_out`: those that workers did not send, as there were too
        many."""
        if left_out:
            self.counts.dropped[Missing.TOO_MANY] += left_out
            self._trouble.say("so many flows end that workers leave some out")
        with self._changed:
            taken = lines[: max(self._room - self._waiting, 0)]
            if taken:
                self._batches.append(taken)
                self._waiting += len(taken)
                self._changed.notify()
        if len(taken) < len(lines):
            self.counts.dropped[Missing.QUEUE_FULL] += len(lines) - len(taken)
            self._trouble.say(f"{self._file} takes lines too slowly; some are dropped")

    def reopen(self) -> None:
        """Write to the file that has the name now, after logrotate has moved the former one."""
        with self._changed:
            self._reopen = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batches or self._reopen or self._closing)
                batch = self._batches[0] if self._batches else ()
                reopen, self._reopen = self._reopen, False
                if not batch and self._closing:
                    break
            try:
                self._write(batch, reopen=reopen)
            except Exception:
                self.counts.dropped[Missing.WRITE_FAILED] += len(batch)
                log.exception("flow log: cannot write lines")
            with self._changed:
                if batch:
                    self._batches.popleft()
                    self._waiting -= len(batch)
        self._file.close()

    def _write(self, batch: Sequence[Line], *, reopen: bool) -> None:
        if reopen:
            self._file.reopen()
        lost, error = self._file.write(b"".join(line_of(*each) for each in batch))
        self.counts.written += len(batch) - lost
        self.counts.dropped[Missing.WRITE_FAILED] += lost
        if error is not None:
            self._trouble.say(
                f"cannot write to {self._file}: {_reason(error)}; lines are dropped until that is "
                "possible"
            )


class _Trouble:
    """Says the same thing once in a while only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}

    def say(self, what: str) -> None:
        now = self._clock()
        if now - self._said.get(what, -_QUIET) >= _QUIET:
            self._said[what] = now
            log.warning("flow log: %s", what)


def line_of(ended: Ended, place: Place) -> bytes:
    """A flow on one line, which nothing in it can break."""
    return printable_json(msgspec.json.encode(flow_view(ended, place))) + b"\n"


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{text[:1].lower()}{text[1:]}"
