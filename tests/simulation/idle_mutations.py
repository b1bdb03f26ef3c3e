"""Defects that concern sockets which go on from one UDP flow to the next."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutation import UDP, Change, Mutation, one

_IDLE = "dataplane.udp.idle_sockets"

IDLE: Final[tuple[Mutation, ...]] = (
    one(
        "idle-with-its-port",
        "A socket goes on to the next flow with the port that it had, where replies still come.",
        _IDLE,
        " or not self._disconnect(sock.fileno()):",
        ":",
    ),
    one(
        "idle-not-emptied",
        "What has come to a socket is not read before the next flow gets it.",
        _IDLE,
        "        if not self._drop_received(sock):\n",
        "        if False:\n",
    ),
    Mutation(
        "idle-at-once",
        "A socket goes on to the next flow before all is looked at that was received for the last.",
        (
            Change(_IDLE, "since + AGE > now or not idle.is_quiet()", "not idle.is_quiet()"),
            Change("dataplane.udp.ring_receive", "_TURNS: Final = 2", "_TURNS: Final = 0"),
        ),
    ),
    one(
        "idle-in-a-hurry",
        "A socket goes on to the next flow while its sends may still fail.",
        UDP,
        "self._receive.over or self._turn >= self._ring.turn - 1)",
        "self._receive.over)",
    ),
)
