"""The open sockets of all frontends: carries out plans, and remembers what came of them.

The control process keeps a descriptor of every socket that it hands to a worker. That is what
lets a worker be replaced without a port being closed: connections wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from typing import Protocol

from uproxy.core.protocols import TRANSPORTS, Transport
from uproxy.core.route import Frontend, Route
from uproxy.core.routing.plan import Actual
from uproxy.net import listening
from uproxy.net.messages import Close, Open, ToWorker, Update

log = logging.getLogger(__name__)


WAITING = 0.1
"""Seconds that workers get to accept the clients that have connected before a listener is paused.
Meanwhile no client can join them; one that tries is refused a second later, when its kernel tries
again."""


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None: ...


class WorkerPort(Protocol):
    """What listeners need of the workers."""

    @property
    def count(self) -> int: ...

    def send(self, worker: int, message: ToWorker, sock: socket.socket | None = None) -> None:
        """Tell a worker. A socket has to stay open until the `Close` of its frontend is sent."""


class Listener:
    """One frontend's sockets, one for each worker; none while a UDP frontend is paused."""

    __slots__ = ("between", "paused", "route", "sockets", "timer")

    def __init__(self, route: Route, sockets: list[socket.socket], *, paused: bool) -> None:
        self.route = route
        self.sockets = sockets
        self.paused = paused
        self.between = False
        """Whether a call has failed when it was being paused or resumed: some of its sockets may
        accept and others not, so that it counts as open but not as whole."""
        self.timer: Timer | None = None
        """Runs while a listener that is to be paused keeps the clients that have connected."""

    @property
    def transport(self) -> Transport:
        """What its protocol can do."""
        return TRANSPORTS[self.route.frontend.protocol]

    def __repr__(self) -> str:
        state = "paused" if self.paused else "open"
        return f"<Listener {self.route.frontend} {state}, {len(self.sockets)} sockets>"


class Listeners:
    """Opens, updates, pauses, resumes and closes listeners. Raises sockets.ListenError, and
    nothing else, where a frontend cannot be opened, paused or resumed: it is then to be tried
    again. To close one never fails.
    """

    def __init__(
        self,
        workers: WorkerPort,
        *,
        grace: float,
        claimed: Container[str] = frozenset(),
        later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        """`later` calls a function after so many seconds; without it, clients that wait to be
        accepted when a listener is paused are reset."""
        self._workers = workers
        self._later = later
        self._claimed = claimed
        """Addresses that are this node's own though no interface has them, at any moment."""
        self._grace = grace
        """Seconds that TCP flows of a closed frontend get to end by themselves."""
        self._listeners: dict[Frontend, Listener] = {}
        self._places: dict[tuple[str, int], set[Frontend]] = {}
        """Our frontends by protocol and port, to know which could overlap."""

    def actual(self, frontends: Iterable[Frontend]) -> dict[Frontend, Actual]:
        """The state that plans start from, for those of the given frontends that are open."""
        found = ((each, self._listeners.get(each)) for each in frontends)
        return {each: Actual(have.route, have.paused) for each, have in found if have is not None}

    def is_open(self, frontend: Frontend) -> bool:
        """Whether a frontend is open, paused or not."""
        return frontend in self._listeners

    def open(self, route: Route) -> None:
        """Open a frontend. One without usable backends is opened paused, so the port is ours."""
        frontend = route.frontend
        listener = Listener(route, self._sockets(frontend), paused=False)
        try:
            if not route.usable:
                self._pause(listener)
        except BaseException:
            self._release(listener)
            raise
        if route.usable and route.affinity_timeout:
            self._steer(listener)
        self._listeners[frontend] = listener
        self._places.setdefault((frontend.protocol, frontend.port), set()).add(frontend)
        self._announce(listener)

    def update(self, route: Route) -> None:
        """Change an open frontend's route in place; pause or resume it where that is called for."""
        listener = self._listeners[route.frontend]
        if route.usable and (listener.paused or listener.between):
            self._resume(listener, route)
            return
        before, listener.route = listener.route, route
        self._tell(Update(route))
        if not listener.paused and not route.usable:
            self._pause_politely(listener)
        elif not listener.paused and bool(before.affinity_timeout) != bool(route.affinity_timeout):
            self._steer(listener)

    def close(self, frontend: Frontend, grace: float | None = None) -> None:
        """Close a frontend. A client is refused at once; see Close for what becomes of flows.

        `grace` in seconds, where it is not to be the usual one.
        """
        listener = self._listeners.pop(frontend)
        place = self._places[frontend.protocol, frontend.port]
        place.discard(frontend)
        if not place:
            del self._places[frontend.protocol, frontend.port]
        shut_down = listener.paused and listener.timer is None
        if TRANSPORTS[frontend.protocol].keeps_port_while_paused and not shut_down:
            with contextlib.suppress(Exception):  # Clients are refused when all have closed it.
                self._pause(listener)
        self._tell(Close(frontend, self._grace if grace is None else grace))
        self._release(listener)

    async def empty_queues(self) -> None:
        """Have workers accept the clients that have connected, and let no others join them: to
        close frontends resets clients that wait."""
        for listener in self._listeners.values():
            if listener.transport.has_accept_queue and not listener.paused:
                with contextlib.suppress(OSError):
                    for sock in listener.sockets:
                        listening.ignore_newcomers(sock)
        await asyncio.sleep(WAITING)

    def close_all(self, grace: float) -> None:
        """Close every frontend."""
        for frontend in tuple(self._listeners):
            self.close(frontend, grace)

    def for_worker(self, worker: int) -> Iterator[tuple[Open, socket.socket]]:
        """All that a new worker has to be told, in place of the one it follows."""
        for listener in self._listeners.values():
            if listener.sockets:
                yield Open(listener.route), listener.sockets[worker]

    def _sockets(self, frontend: Frontend) -> list[socket.socket]:
        return listening.open_listeners(
            frontend,
            self._workers.count,
            exclusive=not self._overlaps(frontend),
            claimed=frontend.address in self._claimed,
        )

    def _overlaps(self, frontend: Frontend) -> bool:
        """Whether one of our frontends has this place already, wildcard or within a wildcard.

        All Services of a cluster may have the same port: they are not looked at one by one.
        """
        wildcard = _wildcard(frontend.address)
        if frontend.address != wildcard:
            return frontend._replace(address=wildcard) in self._listeners
        others = self._places.get((frontend.protocol, frontend.port), set()) - {frontend}
        return any(_wildcard(other.address) == wildcard for other in others)

    def _announce(self, listener: Listener) -> None:
        for worker, sock in enumerate(listener.sockets):
            self._workers.send(worker, Open(listener.route), sock)

    def _tell(self, message: ToWorker) -> None:
        for worker in range(self._workers.count):
            self._workers.send(worker, message)

    def _pause_politely(self, listener: Listener) -> None:
        """Pause, once workers had the time to accept the clients that have connected already."""
        if self._later is None or not listener.transport.has_accept_queue or listener.between:
            self._pause(listener)
            return
        try:
            for sock in listener.sockets:
                listening.ignore_newcomers(sock)
        except OSError:  # Not every kernel has it, as gVisor.
            self._pause(listener)
            return
        listener.paused = True
        listener.timer = self._later(WAITING, partial(self._pause_late, listener))

    def _pause_late(self, listener: Listener) -> None:
        listener.timer = None
        try:
            self._pause(listener)
        except listening.ListenError as error:
            log.warning("%s cannot be paused: %s", listener.route.frontend, error)
            if self._later is not None:
                listener.timer = self._later(WAITING, partial(self._pause_late, listener))

    def _pause(self, listener: Listener) -> None:
        if listener.transport.keeps_port_while_paused:
            listener.between = True
            try:
                for sock in listener.sockets:
                    listening.pause(sock)
            except OSError as error:
                raise listening.ListenError(error, listener.route.frontend) from error
            listener.paused, listener.between = True, False
            return
        listener.paused = True
        # Only a closed socket makes the kernel answer "port unreachable".
        self._tell(Close(listener.route.frontend, 0))
        self._release(listener)

    def _resume(self, listener: Listener, route: Route) -> None:
        keeps_port = listener.transport.keeps_port_while_paused
        if keeps_port:
            self._listen_again(listener)
        else:
            listener.sockets = self._sockets(route.frontend)
        listener.route, listener.paused, listener.between = route, False, False
        self._steer(listener)
        if keeps_port:
            self._tell(Update(route))
        else:
            self._announce(listener)

    def _listen_again(self, listener: Listener) -> None:
        _stop_timer(listener)
        try:
            for sock in listener.sockets:
                listening.resume(sock)
        except OSError as error:
            listener.paused = False
            with contextlib.suppress(listening.ListenError):
                self._pause(listener)
            raise listening.ListenError(error, listener.route.frontend) from error

    def _steer(self, listener: Listener) -> None:
        """A group that was paused as a whole has forgotten its program. Affinity is kept without
        it, so that a failure harms nobody."""
        try:
            if listener.route.affinity_timeout:
                listening.steer_by_client(listener.sockets[0], self._workers.count)
            else:
                listening.stop_steering(listener.sockets[0])
        except OSError as error:
            log.info("%s: workers cannot be chosen by client: %s", listener.route.frontend, error)

    def _release(self, listener: Listener) -> None:
        _stop_timer(listener)
        for sock in listener.sockets:
            sock.close()
        listener.sockets = []


def _stop_timer(listener: Listener) -> None:
    if listener.timer is not None:
        listener.timer.cancel()
        listener.timer = None


def _wildcard(address: str) -> str:
    return "::" if ":" in address else "0.0.0.0"
