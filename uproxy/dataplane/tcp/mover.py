"""How the bytes of a flow get from socket to socket: what every mover promises.

A mover is started with the two sockets of a flow, and then moves bytes in both directions until its
owner closes it. `EpollMover` calls recv, send and splice when epoll reports an event; `RingMover`
has io_uring do it. Three things are left to the owner: what to do when both streams have ended,
when a socket is broken (which one, and why), and when the mover has detached itself.

`detach` takes a living flow out of a mover, as a value: all bytes that were read and not delivered,
wherever they are (a buffer of the process or of the ring, a pipe), and how far both streams are.
Bytes that the kernel has in the sockets stay there. Another mover, of this process or of one that
is given the two descriptors, goes on from that value (`EpollMover.take_over`).
"""

from __future__ import annotations

from _socket import socket as Socket
from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """How far one direction is: what the byte counters and the sweep for idle flows look at.

    Attributes, not calls: 50,000 flows are looked at in a few milliseconds.
    """

    total: int
    """Bytes read."""
    reported: int
    """Bytes that the counters of the port know about already."""
    eof: bool
    """Whether the end of the stream was read and passed on."""
    slow_path: bool
    """False only if nothing is pending and the stream has not ended."""

    @property
    def pending(self) -> int:
        """Bytes read and not yet delivered."""

    def unreported(self) -> int:
        """Bytes delivered since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachedDirection:
    """One direction, as its mover has left it."""

    total: int = 0
    """Bytes read."""
    reported: int = 0
    """Bytes that the counters of the port know about already."""
    undelivered: bytes = b""
    """The last of the bytes read, which the receiver has not taken."""
    ended: bool = False
    """Whether the end of the stream was read. If nothing is undelivered, it was passed on, too."""
    broken: int = 0
    """The errno with which reading has failed."""
    rejected: int = 0
    """The errno with which the receiver's socket has failed when it was given bytes."""
    bulk: bool = False
    """Whether it was left because it moves much at a time: its successor may splice at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached:
    """A flow that no mover moves: everything about it that its sockets do not know."""

    from_client: DetachedDirection
    from_backend: DetachedDirection


class Owner(Protocol):
    """What a mover tells its flow, which decides how it goes on, and closes the mover."""

    ended: bool
    """Whether the flow is over, so that the fate of its last bytes will never be known."""

    def replied(self, client_spoke: bool) -> None:
        """The backend has sent its first bytes. `client_spoke`: whether the client had sent some.
        Not told if the flow ends at the same time."""

    def finish(self) -> None:
        """Both streams have ended, and everything was delivered."""

    def abort(self, broken: Socket | None = None, code: int | None = 0) -> None:
        """One of the sockets is broken: reset both. `code`: the errno; 0: the socket knows it. None
        of them is broken if an error in uproxy is the reason."""

    def detached(self, rest: Detached) -> None:
        """The mover is closed, and nothing of it is under way: go on from there."""


class Mover(Protocol):
    """Moves the bytes of one flow."""

    @property
    def from_client(self) -> Progress:
        """The direction from the client to the backend; there is one once the mover is started."""

    @property
    def from_backend(self) -> Progress:
        """The direction from the backend to the client."""

    def start(self, client: Socket, backend: Socket, events: int = 0) -> None:
        """Begin. `events`: what epoll has reported of the backend's socket, if it was registered
        before. Raises OSError if the kernel cannot have the sockets watched."""

    def detach(self) -> None:
        """Stop, and tell the owner what is left: at once, or when the last operation that is
        under way has completed. A mover that was closed meanwhile tells nothing."""

    def close(self) -> None:
        """Let go of everything but the sockets, which are the owner's: they are not registered with
        the reactor any more. Closing twice is fine."""
