"""TCP connections: two ends, with finite buffers, and a network between them."""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, Final

from tests.simulation.files import ANY, ERR, HUP, IN, OUT, RDHUP, File, fail
from tests.simulation.world import Fault, Violation, World

Address = tuple[str, int]
NODE: Final = "10.9.9.9"
"""The address of the node that the simulated process runs on."""
WILDCARD: Final = "0.0.0.0"
NOWHERE: Final = (WILDCARD, 0)
PATIENCE: Final = 0.2
"""Seconds that Linux waits for what is to follow a send with MSG_MORE."""


class Passage:
    """What an io_uring has done with a stream: whether there is a reason to leave it."""

    def __init__(self) -> None:
        self.received = 0
        """Times."""
        self.full = 0
        """Full buffers in a row, at the end."""
        self.most_full = 0
        """Full buffers in a row, at any time."""
        self.refused = False
        """Whether a send was not carried out completely, or a receive has failed."""

    def fill(self, count: int, size: int) -> None:
        self.received += 1
        self.full = self.full + 1 if count == size else 0
        self.most_full = max(self.most_full, self.full)


class Stream(File):
    """One end of a connection, as Linux has it (net/ipv4/tcp.c)."""

    def __init__(self, world: World, name: str, *, receives: int, sends: int) -> None:
        """With buffers of so many bytes."""
        super().__init__(world, name)
        self.local: Address = NOWHERE
        self.remote: Address = NOWHERE
        self.peer: Stream | None = None
        """The other end; None before there is a connection, and after a reset."""
        self.connecting = False
        self.connected = False
        self.blocking = True
        self.hard = False
        """Whether to close by a reset (SO_LINGER with 0 seconds)."""
        self.inbox = bytearray()
        """What has arrived and was not read."""
        self.outbox = bytearray()
        """What was sent and has not arrived."""
        self.receives, self.sends = receives, sends
        self.error = 0
        """Reported by the next call, and only by that."""
        self.ended = self.shut = self.was_reset = False
        """Whether the other end's stream has ended: its FIN has arrived, behind all bytes, or a
        reset; whether ours has; and whether there was a reset."""
        self.hungry = False
        """Whether an event is due when there is room again (SOCK_NOSPACE)."""
        self.taken = 0
        """Bytes that were accepted from the one that sends."""
        self.read = 0
        """Bytes that were handed out."""
        self.arrived = 0
        """Bytes that have come from the other end, read or not."""
        self.fin_arrived_at_peer = False
        self.far: Stream | None = None
        """The other end, whatever became of the connection."""
        self.owner: Any = None
        """Whose it is, if not the process'."""
        self.clean = False
        """Whether our end of the stream was a FIN, behind all bytes."""
        self.accepted: float | None = None
        """When it was."""
        self.by_ring = Passage()
        self._moving = self._held_back = False

    def poll(self) -> int:
        if not self.connected:
            if self.connecting:
                return 0
            return ERR | HUP | IN | OUT | RDHUP if self.error else HUP | OUT
        events = 0
        if self.inbox or self.ended:
            events = IN
        if self.ended:
            events |= RDHUP
            if self.shut:
                events |= HUP
        if self.error:
            events |= ERR
        if self.shut or self.roomy:
            events |= OUT
        else:
            self.hungry = True
        return events

    @property
    def roomy(self) -> bool:
        """Whether a third of the send buffer is free, from which on it is reported."""
        return 3 * len(self.outbox) <= 2 * self.sends

    def room(self) -> int:
        return self.sends - len(self.outbox)

    def receive(self, most: int) -> bytes:
        """Raises OSError."""
        if self.inbox:
            data = bytes(self.inbox[:most])
            del self.inbox[:most]
            self.read += len(data)
            if self.peer is not None:
                self.peer.move()
            return data
        if self.error:
            raise self.failure()
        if self.ended:
            return b""
        if not self.connected:
            raise fail(errno.EAGAIN if self.connecting else errno.ENOTCONN)
        raise fail(errno.EAGAIN)

    def send(self, data: bytes | memoryview, *, atomic: bool = False, more: bool = False) -> int:
        """How much was taken. `more`: it may wait for what follows, as a FIN. Raises OSError."""
        if self.error:
            raise self.failure()
        if self.shut:
            raise fail(errno.EPIPE)
        if not self.connected:
            raise fail(errno.EAGAIN if self.connecting else errno.EPIPE)
        if self._held_back:
            raise Violation(f"what was sent to {self.name} waited for the end, and more followed")
        count = min(len(data), self.room())
        if count and not atomic:
            count = self._less(count)
        if count < len(data):
            self.hungry = True
            if not count:
                if not self.outbox:
                    # Linux reports an edge here: no acknowledgement would cause one.
                    self.world.soon(self._room_again)
                raise fail(errno.EAGAIN)
        self.outbox += data[:count]
        self.taken += count
        self._held_back = more and count == len(data)
        if self._held_back:
            taken = self.taken
            self.world.after(PATIENCE, lambda: self._nothing_followed(taken))
        self.move()
        return count

    def _nothing_followed(self, taken: int) -> None:
        if self._held_back and self.taken == taken and not self.released:
            raise Violation(f"what was sent to {self.name} waits for more, which never comes")

    def _less(self, count: int) -> int:
        world = self.world
        if world.chance(Fault.FULL_SEND):
            return 0
        if world.chance(Fault.NO_MEMORY_SEND):
            raise fail(errno.ENOBUFS)
        return world.random.randrange(count) if world.chance(Fault.SHORT_SEND) else count

    def failure(self) -> OSError:
        """The error, which is then forgotten."""
        code, self.error = self.error, 0
        return fail(code)

    def end(self) -> None:
        """Send a FIN behind all there is. Raises OSError."""
        if not self.connected or self.was_reset:
            raise fail(errno.ENOTCONN)
        if not self.shut:
            self.shut = self.clean = True
            self._held_back = False
            self.move()
            self.wake(ANY)

    def release(self) -> None:
        self.waiters.clear()
        self._held_back = False
        peer = self.peer
        if peer is None:
            return
        if self.hard or self.inbox:
            self._reset_peer(peer)
        elif not self.shut:
            self.shut = self.clean = True
            self.move()

    def join(self, peer: Stream) -> None:
        """There is a connection now."""
        self.peer, peer.peer = self.far, peer.far = peer, self
        peer.local, peer.remote = self.remote, self.local
        for each in (self, peer):
            each.connecting = False
            each.connected = True

    def refuse(self, code: int) -> None:
        """There will be no connection."""
        if self.connecting and not self.released:
            self.connecting = False
            self.error = code
            self.wake(ANY)

    def move(self) -> None:
        """Have the network carry what there is to carry."""
        peer = self.peer
        if self._moving or self._held_back or peer is None:
            return
        if self.outbox:
            if peer.released or len(peer.inbox) < peer.receives:
                self._moving = True
                self.world.soon(self._carry)
        elif self.shut and not self.fin_arrived_at_peer:
            self._moving = True
            self.world.soon(self._carry)

    def _carry(self) -> None:
        self._moving = False
        peer = self.peer
        if peer is None:
            return
        if peer.released and self.outbox:
            # Bytes that cannot be read any more are answered by a reset.
            peer.peer = None
            self.world.soon(self.reset)
            return
        if self.outbox:
            self._carry_bytes(peer)
        if self.shut and not self.outbox and not self.fin_arrived_at_peer:
            if self.world.random.random() < 0.5:
                self.fin_arrived_at_peer = True
                peer.ended = True
                if not peer.released:
                    peer.wake(ANY)
            else:
                self.move()
        else:
            self.move()

    def _carry_bytes(self, peer: Stream) -> None:
        count = min(len(self.outbox), peer.receives - len(peer.inbox))
        if count > 1 and self.world.random.random() < 0.3:
            count = self.world.random.randrange(1, count)
        if count > 0:
            peer.inbox += self.outbox[:count]
            peer.arrived += count
            del self.outbox[:count]
            peer.wake(IN)
            self._room_again()

    def _room_again(self) -> None:
        if self.hungry and self.roomy and not self.released:
            self.hungry = False
            self.wake(OUT)

    def _reset_peer(self, peer: Stream) -> None:
        """Of what was sent, a part may have been on its way."""
        if self.outbox and not peer.released and self.world.random.random() < 0.5:
            self._carry_bytes(peer)
        self.outbox.clear()
        self.peer = None
        self.world.soon(peer.reset)

    def reset(self) -> None:
        """A reset has arrived. What came before can still be read, as with Linux."""
        peer, self.peer = self.peer, None
        if peer is not None and peer.peer is self:
            peer.peer = None
        if self.released or self.was_reset:
            return
        if self.world.trace is not None:
            self.world.note("network", f"reset arrives at {self.name}")
        self.error = errno.EPIPE if self.ended else errno.ECONNRESET
        self.ended = self.shut = self.was_reset = True
        self.outbox.clear()
        self.wake(ANY)


class Listening(File):
    """A listening socket. Its descriptor may be shared with the control process."""

    def __init__(self, world: World, address: Address) -> None:
        super().__init__(world, f"listener {address[0]}:{address[1]}")
        self.address = address
        self.listens = True
        self.waiting: deque[Stream] = deque()

    def poll(self) -> int:
        if not self.listens:
            return HUP | OUT
        return IN if self.waiting else 0

    def offer(self, stream: Stream) -> None:
        """A connection is there to be accepted."""
        self.waiting.append(stream)
        stream.take()
        self.wake(IN)

    def accept(self) -> Stream:
        """Raises OSError."""
        if not self.listens:
            raise fail(errno.EINVAL)
        if not self.waiting:
            raise fail(errno.EAGAIN)
        return self.waiting.popleft()

    def pause(self) -> None:
        """As shutdown(2) does; clients that wait are reset."""
        self.listens = False
        self._reset_all()
        self.wake(ANY)

    def resume(self) -> None:
        self.listens = True

    def release(self) -> None:
        self.listens = False
        self._reset_all()

    def _reset_all(self) -> None:
        while self.waiting:
            stream = self.waiting.popleft()
            stream.hard = True
            stream.give_back()
