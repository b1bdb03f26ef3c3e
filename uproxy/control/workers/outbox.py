"""What a worker has yet to be told."""

from __future__ import annotations

import socket
from collections.abc import Hashable, Iterable
from itertools import islice

from uproxy.net.channel import Outgoing
from uproxy.net.messages import Close, Open, ToWorker, Update


class Outbox:
    """In the order in which it was said, but without what has been overtaken since.

    So it never holds more than two messages for a frontend, however long the worker does not
    listen, and no descriptor: a socket that is closed is no longer to be sent.
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
        """Say something; `sock` goes with an `Open`, and stays open until the frontend's `Close`
        is said."""
        match message:
            case Open(route):
                self._waiting[route.frontend, Open] = message, sock
            case Update(route):
                key = route.frontend, Open
                _, opening = self._waiting.get(key, (None, None))
                self._waiting[key] = (Open(route), opening) if opening else (message, None)
            case Close(frontend):
                # The first one is for what the worker has; what came later it need not hear of.
                self._waiting.pop((frontend, Open), None)
                self._waiting.setdefault((frontend, Close), (message, None))
            case _:
                self._waiting[type(message)] = message, None

    def taken(self, count: int) -> None:
        """The oldest so many were sent."""
        for key in list(islice(self._waiting, count)):
            del self._waiting[key]

    def clear(self) -> None:
        self._waiting.clear()
