"""When the last ACK of a handshake with a backend waits for the client's first bytes."""

from __future__ import annotations

import socket
from _socket import socket as Socket

import pytest

from uproxy.dataplane.handshakes import TRUSTED, Handshakes, acknowledge, has_window


def test_it_waits_once_clients_have_shown_that_they_speak_first() -> None:
    handshakes = Handshakes()
    for _ in range(TRUSTED):
        assert not handshakes.delayed
        handshakes.learn(client_spoke=True)
    assert handshakes.delayed


def test_they_have_to_show_it_in_a_row() -> None:
    handshakes = Handshakes()
    for _ in range(TRUSTED - 1):
        handshakes.learn(client_spoke=True)
    handshakes.learn(client_spoke=False)
    for _ in range(TRUSTED - 1):
        handshakes.learn(client_spoke=True)
    assert not handshakes.delayed


@pytest.mark.parametrize("under_way", [1, 100])
def test_each_time_that_a_server_speaks_first_after_all_it_takes_twice_as_many(
    under_way: int,
) -> None:
    handshakes = Handshakes()
    for round_ in range(10):
        for _ in range(TRUSTED << round_):
            assert not handshakes.delayed
            handshakes.learn(client_spoke=True)
        assert handshakes.delayed
        for _ in range(under_way):
            handshakes.learn(client_spoke=False)


def test_servers_that_always_speak_first_cost_no_trust() -> None:
    handshakes = Handshakes()
    for _ in range(1000):
        handshakes.learn(client_spoke=False)
    for _ in range(TRUSTED):
        handshakes.learn(client_spoke=True)
    assert handshakes.delayed


def test_a_socket_that_is_closed_has_nothing_to_acknowledge() -> None:
    sock = socket.socket()
    sock.close()
    acknowledge(sock)  # Raises nothing: the flow may have ended since its reply was read.
    assert sock.fileno() == -1


def test_the_kernel_tells_whether_a_backend_allows_bytes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = Socket(socket.AF_INET, socket.SOCK_STREAM)
        assert not has_window(sock)
        sock.connect(server.getsockname())
        assert has_window(sock)
        sock.close()
        assert not has_window(sock)
