"""The listening sockets of all frontends: opened, paused, resumed and closed as a plan says.

The control process keeps a descriptor of every socket that it hands to a worker. That is why a
worker can be replaced without a port being closed: connections wait in the kernel's queue.
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
from uproxy.core.route import Announced, Frontend, Route
from uproxy.core.routing.plan import Actual
from uproxy.net import listening
from uproxy.net.messages import Close, Open, ToWorker, Update
from uproxy.net.sockets import LINUX, SocketCalls

log = logging.getLogger(__name__)


ACCEPT_TIME = 0.1
"""Seconds that workers get to accept the clients that have connected before a listener is paused.
Meanwhile no client can join them; one that tries is refused a second later, when its kernel sends
its SYN again."""


class Timer(Protocol):
    """A call that is scheduled."""

    def cancel(self) -> None: ...


class WorkerPort(Protocol):
    """What listeners need of the workers."""

    @property
    def count(self) -> int: ...

    def send(self, worker: int, message: ToWorker, sock: socket.socket | None = None) -> None:
        """Tell a worker. A socket has to stay open until the `Close` of its frontend is sent."""


class Listener:
    """One frontend's sockets, one for each worker; none while a UDP frontend is paused."""

    __slots__ = ("partly_paused", "paused", "route", "sockets", "steered", "timer")

    def __init__(self, route: Route, sockets: list[socket.socket], *, paused: bool) -> None:
        self.route = route
        self.sockets = sockets
        self.paused = paused
        self.partly_paused = False
        """Whether a call failed while it was being paused or resumed. Some of its sockets may
        accept and others not, so `paused` stays False and the next plan tries again; were it True,
        a listener that half accepts would count as done."""
        self.steered = True
        """See `Open`."""
        self.timer: Timer | None = None
        """Set while workers accept the clients of a listener that is about to be paused."""

    @property
    def transport(self) -> Transport:
        """What its protocol can do."""
        return TRANSPORTS[self.route.frontend.protocol]

    def __repr__(self) -> str:
        state = "paused" if self.paused else "open"
        return f"<Listener {self.route.frontend} {state}, {len(self.sockets)} sockets>"


class Listeners:
    """Opens, updates, pauses, resumes and closes listeners.

    Raises ListenError, and nothing else, where a frontend cannot be opened, paused or resumed; the
    caller tries again. Closing never fails.
    """

    def __init__(
        self,
        workers: WorkerPort,
        *,
        grace: float,
        claimed: Container[str] = frozenset(),
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
        calls: SocketCalls = LINUX,
    ) -> None:
        """`call_later` calls a function after some seconds; without it, clients that wait to be
        accepted when a listener is paused are reset. `calls` make the sockets."""
        self._workers = workers
        self._calls = calls
        self._call_later = call_later
        self._claimed = claimed
        """Addresses that are local by a route of ours, though no interface has them; it is asked
        anew for each frontend."""
        self.grace = grace
        """Seconds that TCP flows of a closed frontend get to end by themselves."""
        self._listeners: dict[Frontend, Listener] = {}
        self._by_port: dict[tuple[str, int], set[Frontend]] = {}
        """Our frontends by protocol and port, to know which could overlap."""

    def actual(self, frontends: Iterable[Frontend]) -> dict[Frontend, Actual]:
        """The state that plans start from, for those of the given frontends that are open."""
        found = ((each, self._listeners.get(each)) for each in frontends)
        return {each: Actual(have.route, have.paused) for each, have in found if have is not None}

    def is_open(self, frontend: Frontend) -> bool:
        """Whether a frontend is open, paused or not."""
        return frontend in self._listeners

    def open(self, route: Route) -> None:
        """Open a frontend. One without usable backends is opened paused: its port is reserved."""
        frontend = route.frontend
        listener = Listener(route, self._open_sockets(route), paused=False)
        try:
            if not route.usable:
                self._pause(listener)
        except BaseException:
            self._release(listener)
            raise
        if route.usable and route.affinity_timeout:
            self._steer(listener)
        self._listeners[frontend] = listener
        self._by_port.setdefault((frontend.protocol, frontend.port), set()).add(frontend)
        self._send_open(listener)

    def update(self, route: Route) -> None:
        """Change an open frontend's route in place; pause or resume it when that has become
        necessary."""
        listener = self._listeners[route.frontend]
        if route.usable and (listener.paused or listener.partly_paused):
            if _comes_and_goes(listener.route) and not _comes_and_goes(route):
                self._require_address(route.frontend)
            self._resume(listener, route)
            return
        before, listener.route = listener.route, route
        pausing = not listener.paused and not route.usable
        changed = bool(before.affinity_timeout) != bool(route.affinity_timeout)
        if changed and not listener.paused and not pausing:
            self._steer(listener)
        # Before the pause: on hearing of it, workers accept the clients that wait.
        self._send_to_all(Update(route, listener.steered))
        if pausing:
            self._pause_after_accepts(listener)

    def close(self, frontend: Frontend, grace: float | None = None) -> None:
        """Close a frontend. A client is refused at once; see Close for what becomes of flows.

        `grace`: in seconds; by default the usual one.
        """
        listener = self._listeners.pop(frontend)
        same_port = self._by_port[frontend.protocol, frontend.port]
        same_port.discard(frontend)
        if not same_port:
            del self._by_port[frontend.protocol, frontend.port]
        shut_down = listener.paused and listener.timer is None
        if TRANSPORTS[frontend.protocol].keeps_port_while_paused and not shut_down:
            # Workers still have copies of the sockets, and would accept until they read `Close`.
            # If it fails, clients are refused as soon as all workers have closed theirs.
            with contextlib.suppress(Exception):
                self._pause(listener)
        self._send_to_all(Close(frontend, self.grace if grace is None else grace))
        self._release(listener)

    async def empty_queues(self) -> None:
        """Have workers accept the clients that have connected, and let no others join them: closing
        a listener resets the clients that wait in its queue."""
        for listener in self._listeners.values():
            if listener.transport.has_accept_queue and not listener.paused:
                with contextlib.suppress(OSError):
                    for sock in listener.sockets:
                        listening.ignore_new_clients(sock)
        await asyncio.sleep(ACCEPT_TIME)

    def close_all(self, grace: float) -> None:
        """Close every frontend."""
        for frontend in tuple(self._listeners):
            self.close(frontend, grace)

    def opens_for(self, worker: int) -> Iterator[tuple[Open, socket.socket]]:
        """What a new worker has to be told so that it serves what its predecessor did."""
        for listener in self._listeners.values():
            if listener.sockets:
                yield Open(listener.route, listener.steered), listener.sockets[worker]

    def _open_sockets(self, route: Route) -> list[socket.socket]:
        frontend = route.frontend
        return listening.open_listeners(
            frontend,
            self._workers.count,
            exclusive=not self._overlaps(frontend),
            claimed=frontend.address in self._claimed,
            comes_and_goes=_comes_and_goes(route),
            calls=self._calls,
        )

    def _require_address(self, frontend: Frontend) -> None:
        """Its sockets were bound while this node did not have the address. If it still has not,
        because it could not be claimed, no client comes, although they would listen."""
        if frontend.address not in self._claimed:
            listening.require_address(frontend, self._calls)

    def _overlaps(self, frontend: Frontend) -> bool:
        """Whether one of our frontends has this port already, on an overlapping address: one of the
        two is the wildcard of their family.

        All Services of a cluster may have the same port, so a frontend that is no wildcard is not
        compared with all others, but only looked up.
        """
        wildcard = _wildcard(frontend.address)
        if frontend.address != wildcard:
            return frontend._replace(address=wildcard) in self._listeners
        others = self._by_port.get((frontend.protocol, frontend.port), set()) - {frontend}
        return any(_wildcard(other.address) == wildcard for other in others)

    def _send_open(self, listener: Listener) -> None:
        for worker, sock in enumerate(listener.sockets):
            self._workers.send(worker, Open(listener.route, listener.steered), sock)

    def _send_to_all(self, message: ToWorker) -> None:
        for worker in range(self._workers.count):
            self._workers.send(worker, message)

    def _pause_after_accepts(self, listener: Listener) -> None:
        """Pause when workers have had the time to accept the clients that have connected already.

        Until then the kernel ignores new clients. Otherwise others would connect while the queue is
        emptied, and the pause would reset those.
        """
        call_later, transport = self._call_later, listener.transport
        if call_later is None or not transport.has_accept_queue or listener.partly_paused:
            self._pause(listener)
            return
        try:
            for sock in listener.sockets:
                listening.ignore_new_clients(sock)
        except OSError:  # Not every kernel has socket filters: gVisor does not.
            self._pause(listener)
            return
        listener.paused = True
        listener.timer = call_later(ACCEPT_TIME, partial(self._pause_at_last, listener))

    def _pause_at_last(self, listener: Listener) -> None:
        listener.timer = None
        try:
            self._pause(listener)
        except listening.ListenError as error:
            log.warning("cannot pause %s: %s; retrying", listener.route.frontend, error)
            if self._call_later is not None:
                listener.timer = self._call_later(
                    ACCEPT_TIME, partial(self._pause_at_last, listener)
                )

    def _pause(self, listener: Listener) -> None:
        if listener.transport.keeps_port_while_paused:
            listener.partly_paused = True
            try:
                for sock in listener.sockets:
                    listening.pause(sock)
            except OSError as error:
                raise listening.ListenError(error, listener.route.frontend) from error
            listener.paused, listener.partly_paused = True, False
            return
        listener.paused = True
        # Only a closed socket makes the kernel answer "port unreachable".
        self._send_to_all(Close(listener.route.frontend, 0))
        self._release(listener)

    def _resume(self, listener: Listener, route: Route) -> None:
        keeps_port = listener.transport.keeps_port_while_paused
        if keeps_port:
            self._listen_again(listener)
        else:
            listener.sockets = self._open_sockets(route)
        listener.route, listener.paused, listener.partly_paused = route, False, False
        self._steer(listener)
        if keeps_port:
            self._send_to_all(Update(route, listener.steered))
        else:
            self._send_open(listener)

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
        """Attach the program that chooses a worker by client, or detach it.

        The kernel forgets the program of an SO_REUSEPORT group when all of its sockets are paused.
        If it refuses, workers are told, and choose in a way on which they all agree.
        """
        listener.steered = True
        try:
            if listener.route.affinity_timeout:
                listening.steer_by_client(listener.sockets[0], self._workers.count)
            else:
                listening.stop_steering(listener.sockets[0])
        except OSError as error:
            listener.steered = self._workers.count == 1 or not listener.route.affinity_timeout
            log.info(
                "%s: cannot steer each client to one worker: %s", listener.route.frontend, error
            )

    def _release(self, listener: Listener) -> None:
        _stop_timer(listener)
        for sock in listener.sockets:
            sock.close()
        listener.sockets = []


def _comes_and_goes(route: Route) -> bool:
    """Whether a listener is to be open whether or not this node has its address now.

    An address that is announced by routes is there as soon as a backend is usable; if it is not
    there then, the attempt to bind it says so.
    """
    if route.announced is Announced.ROUTES:
        return not route.usable
    return route.announced is Announced.L2


def _stop_timer(listener: Listener) -> None:
    if listener.timer is not None:
        listener.timer.cancel()
        listener.timer = None


def _wildcard(address: str) -> str:
    return "::" if ":" in address else "0.0.0.0"
