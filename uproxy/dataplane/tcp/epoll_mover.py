"""Moving the bytes of a flow by epoll: two directions, each with the socket that it reads from.

The state of a direction is the first of these that its attributes show:

    closed     closed       the flow is over, or was detached
    ended      eof          the end of the stream was read, and passed on by a FIN
    blocked    pending > 0  the peer's socket is full; bytes are in `held`, or in the splice's pipe
    deferred   deferred     it has read its share, and goes on after other flows had theirs
    splicing   splice       bytes go through a pipe
    copying    none         bytes go through the shared buffer

    event                 copying, splicing   blocked            deferred   ended
    socket is readable    read (a)            -                  -          -
    peer is writable      -                   deliver (b)        -          -
    the reactor resumes   -                   -                  read (a)   -
    urgent byte           copy from now on    copy, once empty   as copying -
    socket has failed     abort, by recv      abort              by recv    abort
    both ends are shut    read (a)            -                  -          abort
    peer has failed       pass on its last reply (last_reply.py), abort
    detach                closed, and all that is pending is in the value, whatever the state

    (a) Read until the socket is empty: no change. The peer is full: blocked. ROUNDS are over:
        deferred. The stream ends: ended, or the flow finishes if the opposite stream has ended.
        Full reads in a row: splicing. Splices of little: copying.
    (b) Once all is delivered, read (a); before that, no change.

Invariants, whenever the process waits (tests/simulation/direction_invariants.py, `of_epoll`):

    1. Bytes that are pending are in one place, `held` or the pipe.
    2. A stream that has ended has nothing pending: the FIN goes out behind the last byte.
    3. The peer's `peer_blocked` says whether anything is pending: its next EPOLLOUT has to deliver
       it.
    4. Unless `slow_path`, the direction copies, and `peer_blocked` is False: `ready` looks at
       nothing else.
    5. A deferred direction has nothing pending, has not ended, and the reactor will resume it.
    6. What was reported as delivered is no more than was delivered.
"""

from __future__ import annotations

import select
from _socket import socket as Socket
from typing import Final

from uproxy.dataplane.handshakes import acknowledge
from uproxy.dataplane.tcp.epoll_direction import EpollDirection
from uproxy.dataplane.tcp.epoll_events import EVENTS
from uproxy.dataplane.tcp.mover import Detached, Owner
from uproxy.dataplane.tcp.shared_buffers import SharedBuffers

_NEWS: Final = ~select.EPOLLOUT


class FromBackend(EpollDirection):
    """The direction from the backend, which tells the flow when the backend has replied."""

    __slots__ = ()

    def first_ready(self, mask: int) -> None:
        """In place of `ready`, until there are bytes."""
        self.ready(mask)
        if self.total and not self.closed:
            self.shared.reactor.replace(self.fd, self.ready)
            self.owner.replied(self.peer.total > 0)
            if not self.eof:
                acknowledge(self.sock)


class EpollMover:
    """Moves the bytes of one flow; also of one that another mover has left."""

    __slots__ = ("_owner", "_shared", "from_backend", "from_client")

    from_client: EpollDirection
    from_backend: FromBackend

    def __init__(self, shared: SharedBuffers, owner: Owner) -> None:
        self._shared = shared
        self._owner = owner

    def __repr__(self) -> str:
        return f"<EpollMover of {self._owner!r}>"

    def start(self, client: Socket, backend: Socket, events: int = 0) -> None:
        shared, owner = self._shared, self._owner
        self.from_client = from_client = EpollDirection(shared, owner, client, backend)
        self.from_backend = from_backend = FromBackend(shared, owner, backend, client)
        from_client.peer, from_backend.peer = from_backend, from_client
        reactor = shared.reactor
        reactor.register_or_replace(from_backend.fd, from_backend.first_ready, EVENTS)
        reactor.register(from_client.fd, from_client.ready, EVENTS)
        if events & _NEWS:
            # The backend's socket was registered for the dial already, and edges come once: what
            # arrived together with the end of the dial was reported then.
            from_backend.first_ready(events)

    def take_over(self, client: Socket, backend: Socket, rest: Detached) -> None:
        """Start where another mover was detached, with all that it has not delivered. Raises
        OSError, as `start` does."""
        shared, owner = self._shared, self._owner
        self.from_client = EpollDirection(shared, owner, client, backend)
        self.from_backend = FromBackend(shared, owner, backend, client)
        self.from_client.peer, self.from_backend.peer = self.from_backend, self.from_client
        pairs = (self.from_client, rest.from_client), (self.from_backend, rest.from_backend)
        for direction, left in pairs:
            direction.restore(left)
        # Not in one loop: `reject` delivers what the peer holds, which it has to know by then.
        for direction, left in pairs:
            if left.rejected:
                direction.reject(left.rejected)
                return
        for direction, left in pairs:
            if left.broken:
                self._owner.abort(direction.sock, left.broken)
                return
        # What is readable or writable now is reported by the registration, also an urgent byte that
        # was not read yet: nothing of the sockets' state has to be handed over.
        from_client, from_backend = self.from_client, self.from_backend
        shared.reactor.register(from_client.fd, from_client.ready, EVENTS)
        ready = from_backend.first_ready
        if from_backend.total:
            # The other mover may have been detached before it could do so.
            acknowledge(backend)
            ready = from_backend.ready
        shared.reactor.register(from_backend.fd, ready, EVENTS)

    def detach(self) -> None:
        if self.from_client.closed:
            return
        for direction in (self.from_client, self.from_backend):
            # Not just forgotten: the kernel would go on to report events of a socket that another
            # process has as well, and the successor in this one would miss its first edges.
            self._shared.reactor.unregister(direction.fd)
        rest = Detached(
            from_client=self.from_client.to_detached(), from_backend=self.from_backend.to_detached()
        )
        self.close()
        self._owner.detached(rest)

    def close(self) -> None:
        client, backend = self.from_client, self.from_backend
        if not client.closed:
            forget = self._shared.reactor.forget
            forget(client.fd, None)
            forget(backend.fd, None)
            client.close()
            backend.close()
