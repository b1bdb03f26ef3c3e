"""The receive of a UDP flow's socket by io_uring, which outlives the flow (idle_sockets.py)."""

from __future__ import annotations

from _socket import socket as Socket
from typing import Final

from uproxy.uring.abi import CQE_BUFFER_SHIFT, CQE_F_BUFFER, CQE_F_MORE, SEND_INCOMPLETE
from uproxy.uring.datagrams import DatagramReceiver

_TURNS: Final = 2
"""When a socket was disconnected and emptied in one turn, what the ring has read of it is among the
completions of that turn, or of the next one: the kernel makes completions only while it is called.
Those of the turn after that can be of the next flow only."""


class RingReceive:
    """A multishot receive, and the socket that it is for."""

    __slots__ = ("_buffers", "_ring", "_turn", "over", "sock", "user_data")

    def __init__(self, datagrams: DatagramReceiver, sock: Socket, user_data: int) -> None:
        self._ring, self._buffers = datagrams.ring, datagrams.buffers
        self._turn = 0
        """The one in which a flow has left it."""
        self.sock = sock
        self.user_data = user_data
        self.over = False
        """Whether the operation has ended."""

    def leave(self) -> None:
        """The flow ends: what completes from now on is dropped."""
        self._turn = self._ring.turn
        self._ring.replace_callback(self.user_data, self._dropped)

    def is_quiet(self) -> bool:
        return self._turn + _TURNS <= self._ring.turn

    def stop(self) -> None:
        ring = self._ring
        ring.forget(self.user_data, None)
        # Otherwise the receive would keep the socket open in the kernel.
        ring.cancel(self.user_data)
        self.sock.close()

    def _dropped(self, completion: int) -> None:
        if completion & SEND_INCOMPLETE:
            return
        if completion & CQE_F_BUFFER:
            self._buffers.give_back(completion >> CQE_BUFFER_SHIFT)
        if not completion & CQE_F_MORE:
            self.over = True
