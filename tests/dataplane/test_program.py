"""A worker's process, from its first message to its end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from uproxy.dataplane.program import serve
from uproxy.net.channel import Channel
from uproxy.net.messages import ToWorker


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Put back the signal handlers that `serve` replaces."""
    numbers = (signal.SIGCONT, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class ContinuedOnClose(Channel[ToWorker]):
    """Sends SIGCONT to this process just after it was closed."""

    continued = False

    def close(self) -> None:
        super().close()
        os.kill(os.getpid(), signal.SIGCONT)
        self.continued = True


async def test_a_signal_after_everything_is_closed_does_nothing() -> None:
    """The control process sends SIGCONT to each worker that it wants to end."""
    ours, theirs = socket.socketpair()
    ours.close()
    kind: type[ToWorker] = ToWorker  # type: ignore[assignment]
    channel = ContinuedOnClose(theirs, kind)
    await serve(channel)
    assert channel.continued
    assert theirs.fileno() == -1
    assert signal.getsignal(signal.SIGCONT) is signal.SIG_DFL
