"""A double of Workers, which records what each worker should serve, and on which socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.faults.kernel import File
from tests.faults.sockets import Socket
from uproxy.core.route import Frontend, Route
from uproxy.net.messages import Close, Open, ToWorker, Update


@dataclass(slots=True)
class Serving:
    """A frontend, as one worker has it."""

    route: Route
    file: File
    number: int = -1
    """Of its descriptor."""
    steered: bool = True
    """Whether the worker was told that each of its clients comes to no other."""


@dataclass
class RecordingWorkers:
    """In the place of Workers."""

    count: int = 2
    serving: list[dict[Frontend, Serving]] = field(default_factory=list)
    messages: list[ToWorker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serving = [{} for _ in range(self.count)]

    def send(self, worker: int, message: ToWorker, sock: Any = None) -> None:
        mine = self.serving[worker]
        self.messages.append(message)
        match message:
            case Open(route, steered):
                assert isinstance(sock, Socket)
                mine[route.frontend] = Serving(route, sock.file, steered=steered)
            case Update(route, steered):
                if route.frontend in mine:
                    mine[route.frontend].route = route
                    mine[route.frontend].steered = steered
            case Close(frontend):
                mine.pop(frontend, None)
