"""Messages that wait to be sent to a worker."""

from __future__ import annotations

import socket
from collections.abc import Hashable, Iterable
from itertools import islice

from uproxy.net.channel import Outgoing
from uproxy.net.messages import Close, Open, ToWorker, Update


class Outbox:
    """The messages in the order in which they were put, without those that later ones replace.

    So it never holds more than two messages for a frontend, however long the worker does not read.
    It holds no socket that is closed: `Close` removes the `Open` with it.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, tuple[ToWorker, socket.socket | None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def messages(self) -> Iterable[Outgoing]:
        """All, the oldest first."""
        return self._waiting.values()

    def put(self, message: ToWorker, sock: socket.socket | None = None) -> None:
        """Add a message; `sock` goes with an `Open`, and has to stay open until the frontend's
        `Close` is put."""
        match message:
            case Open(route):
                self._waiting[route.frontend, Open] = message, sock
            case Update(route, steered):
                key = route.frontend, Open
                _, opening = self._waiting.get(key, (None, None))
                newest = Open(route, steered) if opening else message
                self._waiting[key] = newest, opening
            case Close(frontend):
                # The first `Close` is for what the worker serves. An `Open` that has not been sent
                # need not be, nor a `Close` for it.
                self._waiting.pop((frontend, Open), None)
                self._waiting.setdefault((frontend, Close), (message, None))
            case _:
                self._waiting[type(message)] = message, None

    def taken(self, count: int) -> None:
        """Remove the `count` oldest messages, which were sent."""
        for key in list(islice(self._waiting, count)):
            del self._waiting[key]

    def clear(self) -> None:
        self._waiting.clear()
