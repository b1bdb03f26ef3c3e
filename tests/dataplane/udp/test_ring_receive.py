"""The receive of a UDP flow's socket by io_uring, while the socket waits for another flow."""

from __future__ import annotations

import socket
from _socket import socket as Socket
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import cast

import pytest

from uproxy.dataplane.udp.ring_receive import RingReceive
from uproxy.uring.abi import CQE_BUFFER_SHIFT, CQE_F_BUFFER, CQE_F_MORE, SEND_INCOMPLETE
from uproxy.uring.datagrams import DatagramReceiver

USER_DATA = 7


class Receiver:
    """Stands for the ring and its buffers."""

    def __init__(self) -> None:
        self.ring = self
        self.turn = 10
        self.given_back: list[int] = []
        self.buffers = SimpleNamespace(give_back=self.given_back.append)
        self.callbacks: dict[int, Callable[[int], None]] = {}
        self.replace_callback = self.callbacks.__setitem__
        self.forget = self.callbacks.pop
        self.cancelled: list[int] = []
        self.cancel = self.cancelled.append


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def receive(receiver: Receiver) -> Iterator[RingReceive]:
    with closing(Socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        yield RingReceive(cast("DatagramReceiver", receiver), sock, USER_DATA)


def test_what_completes_late_is_dropped(receiver: Receiver, receive: RingReceive) -> None:
    receive.leave()
    receiver.callbacks[USER_DATA](3 << CQE_BUFFER_SHIFT | CQE_F_BUFFER | CQE_F_MORE)
    assert receiver.given_back == [3]
    assert not receive.over


@pytest.mark.parametrize("completion", [0, 5 << CQE_BUFFER_SHIFT | CQE_F_BUFFER])
def test_the_receive_ends(receiver: Receiver, receive: RingReceive, completion: int) -> None:
    receive.leave()
    receiver.callbacks[USER_DATA](completion)
    assert receive.over
    assert receiver.given_back == ([5] if completion else [])


def test_a_send_that_has_failed_is_no_end(receiver: Receiver, receive: RingReceive) -> None:
    receive.leave()
    receiver.callbacks[USER_DATA](SEND_INCOMPLETE | 5 << CQE_BUFFER_SHIFT)
    assert not receive.over
    assert receiver.given_back == []


def test_completions_of_the_next_turn_may_still_be_of_the_flow_before(
    receiver: Receiver, receive: RingReceive
) -> None:
    receive.leave()
    quiet = []
    for _ in range(3):
        quiet.append(receive.is_quiet())
        receiver.turn += 1
    assert quiet == [False, False, True]


def test_it_stops(receiver: Receiver, receive: RingReceive) -> None:
    receive.leave()
    receive.stop()
    assert receiver.cancelled == [USER_DATA]
    assert USER_DATA not in receiver.callbacks
    assert receive.sock.fileno() < 0
