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


async def test_a_signal_after_everything_is_closed_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control process sends SIGCONT to each worker that it wants to end."""
    close = Channel.close
    continued = 0

    def close_and_be_continued(channel: Channel[ToWorker]) -> None:
        nonlocal continued
        close(channel)
        os.kill(os.getpid(), signal.SIGCONT)
        continued += 1

    monkeypatch.setattr(Channel, "close", close_and_be_continued)
    ours, theirs = socket.socketpair()
    ours.close()
    kind: type[ToWorker] = ToWorker  # type: ignore[assignment]
    await serve(Channel(theirs, kind))
    assert continued
    assert theirs.fileno() == -1
    assert signal.getsignal(signal.SIGCONT) is signal.SIG_DFL
