"""A UDP flow whose datagrams are moved by epoll, recv and send."""

from __future__ import annotations

import select
from _socket import socket as Socket
from collections.abc import Callable

from uproxy.dataplane.udp.epoll_receive import EpollReceive
from uproxy.dataplane.udp.flow import BATCH, Listening, UdpFlow
from uproxy.dataplane.udp.keys import Address, Key
from uproxy.net import pktinfo


class EpollUdpFlow(UdpFlow):
    """A flow of a listener with an EpollIntake, which calls `to_backend` for what clients send."""

    __slots__ = ("_buffer", "_recv_into")

    _recv_into: Callable[[memoryview], int]

    def __init__(
        self,
        listener: Listening,
        buffer: memoryview,
        key: Key,
        client: Address,
        control: pktinfo.Control,
    ) -> None:
        """`buffer` is what all flows receive into; each datagram is passed on before the next."""
        super().__init__(listener, key, client, control)
        self._buffer = buffer

    def _start_receiving(self, sock: Socket) -> None:
        taken, self._taken = self._taken, None
        if taken is None:
            self._reactor.register(sock.fileno(), self._on_event, select.EPOLLIN)
            self._receive = EpollReceive(self._reactor, sock)
        else:
            self._reactor.replace(sock.fileno(), self._on_event)
            self._receive = taken
        self._recv_into = sock.recv_into

    def _may_be_idle(self) -> bool:
        return True

    def _stop_receiving(self, sock: Socket) -> None:
        self._reactor.discard(sock.fileno())

    def _on_event(self, mask: int) -> None:
        buffer = self._buffer
        for _ in range(BATCH):
            try:
                size = self._recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                # If the flow has moved, its new socket has a registration of its own.
                self._recover(error, None)
                return
            self._to_client(buffer[:size])
