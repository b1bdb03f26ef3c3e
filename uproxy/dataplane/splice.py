"""A direction of a flow whose bytes go from socket to socket without passing through Python."""

from __future__ import annotations

from typing import Final

from uproxy.dataplane.pipes import Pipe, PipePool

LEAN: Final = 64 * 1024
"""Bytes. A splice of fewer would have been as cheap a copy."""

LEAN_ENOUGH: Final = 3
"""Lean splices in a row after which copying is better."""


class Splice:
    """Borrows a pipe while there is need: idle directions have none."""

    __slots__ = ("_lean", "_pipe", "_pipes", "_source", "_target")

    def __init__(self, pipes: PipePool, source: int, target: int) -> None:
        """Between the sockets with these descriptors."""
        self._pipes = pipes
        self._source = source
        self._target = target
        self._pipe: Pipe | None = None
        self._lean = 0
        # Accepted sockets are blocking for the kernel, and splice(2) has no MSG_DONTWAIT.
        pipes.kernel.set_blocking(source, False)
        pipes.kernel.set_blocking(target, False)

    @property
    def pending(self) -> int:
        """Bytes in the pipe."""
        return self._pipe.size if self._pipe is not None else 0

    @property
    def lean(self) -> bool:
        """Whether the stream has become small."""
        return self._lean >= LEAN_ENOUGH

    def fill(self) -> int | None:
        """Take bytes from the source, once all before are drained. 0 at the end of the stream,
        None when there is no pipe. Raises BlockingIOError when there are no bytes, and OSError."""
        if self._pipe is None:
            self._pipe = self._pipes.borrow()
            if self._pipe is None:
                return None
        count = self._pipe.fill(self._source)
        self._lean = self._lean + 1 if count < LEAN else 0
        return count

    def drain(self) -> None:
        """Give the target all there is. Raises BlockingIOError when it is full, and OSError."""
        if self._pipe is not None:
            self._pipe.drain(self._target)

    def rest(self) -> None:
        """Do without the pipe, unless it holds bytes."""
        if not self.pending:
            self.close()

    def close(self) -> None:
        """Do without the pipe, whatever it holds."""
        if self._pipe is not None:
            self._pipes.give_back(self._pipe)
            self._pipe = None
