"""The last ACK of the handshake with a backend, which waits for the client's first bytes.

Most clients speak first, and have spoken by the time that the backend has answered. Then the ACK
goes out together with their bytes: that is a packet less, and the backend is woken once in place of
twice. So TCP_QUICKACK is off when a backend is dialed (tcp(7)). It has to be off before, as Linux
decides when the SYN-ACK arrives whether to acknowledge it at once.

Three kinds of servers would suffer from that (docs/decisions/0027-short-connections.md):

* A server that speaks first does not hear of the connection for 200 ms. So each Service port begins
  without the delay, and gets it when TRUSTED connections in a row have shown that its clients speak
  first. If a backend then speaks first after all, twice as many are needed the next time.
* A server that writes its first reply in pieces, with Nagle's algorithm, waits 40 ms for the ACK of
  the first piece, since Linux delays that one, too. So movers call `acknowledge` when a backend's
  first bytes have come, unless its stream ends with them.
* A server behind a SYN proxy (iptables-extensions(8): SYNPROXY) allows no bytes until the ACK has
  come: its SYN-ACK has a window of 0. When Linux has bytes to send, it sends window probes in place
  of the ACK, and the SYN proxy ignores these: the connection would hang for ever. So the window is
  looked at when a handshake that is delayed has been answered.
"""

from __future__ import annotations

from _socket import IPPROTO_TCP, TCP_INFO, TCP_QUICKACK
from _socket import socket as Socket
from contextlib import suppress
from typing import Final

TRUSTED: Final = 8
"""Connections in a row whose clients have spoken first, before the first delay."""

_WITH_WINDOW: Final = 232
"""Bytes of struct tcp_info (linux/tcp.h) up to tcpi_snd_wnd, which is the last of them."""
_WINDOW_AT: Final = 228
_NO_WINDOW: Final = bytes(4)


class Handshakes:
    """What is known about those of a Service port with its backends."""

    __slots__ = ("_in_a_row", "_needed", "delayed")

    def __init__(self) -> None:
        self.delayed = False
        """Whether the last ACK waits for the client's first bytes."""
        self._in_a_row = 0
        """Connections since the last one whose backend has spoken first."""
        self._needed = TRUSTED

    def learn(self, client_spoke: bool) -> None:
        """A backend has sent its first bytes. `client_spoke`: whether its client had sent some."""
        if client_spoke:
            self._in_a_row += 1
            self.delayed = self._in_a_row >= self._needed
        else:
            self._in_a_row = 0
            if self.delayed:
                # Only the first of those that were under way: they do not know of each other.
                self.delayed = False
                self._needed *= 2

    def complete(self, sock: Socket) -> None:
        """A backend has answered and allows no bytes, so none can take along the ACK that waits."""
        acknowledge(sock)
        self.learn(client_spoke=False)


def acknowledge(sock: Socket) -> None:
    """Send the ACK that waits, if there is one, and do not delay the next ones."""
    with suppress(OSError):
        sock.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)


def has_window(sock: Socket) -> bool:
    """Whether the peer allows bytes to be sent now. False if the kernel does not say (before Linux
    5.4)."""
    try:
        return sock.getsockopt(IPPROTO_TCP, TCP_INFO, _WITH_WINDOW)[_WINDOW_AT:] > _NO_WINDOW
    except OSError:
        return False
