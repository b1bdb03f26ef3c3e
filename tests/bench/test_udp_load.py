"""The sender and its echo, over real sockets."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.wire.mmsg import Batch
from bench.wire.places import Place, free_place
from bench.wire.processes import running
from bench.wire.udp_load import SIZE, OnceLoad, Tally, UdpLoad, sources_on_loopback
from bench.wire.udp_trains import TrainLoad
from tests.e2e.program import wait_for

SOURCES = sources_on_loopback(50)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


def test_each_flow_has_its_source_and_payload(sock: socket.socket) -> None:
    port = free_place().port
    sources = sources_on_loopback(40)
    load = UdpLoad(Place(*sock.getsockname()), sources, port)
    try:
        # Nobody answers: what is on its way is given up.
        load.begin_flows()
    finally:
        load.close()
    received = [sock.recvfrom(100) for _ in range(40)]
    assert {sender for _, sender in received} == {(source, port) for source in sources}
    assert sorted(int.from_bytes(data[:4], "big") for data, _ in received) == list(range(40))
    assert {len(data) for data, _ in received} == {SIZE}


def test_each_datagram_may_be_of_a_flow_of_its_own(sock: socket.socket) -> None:
    load = OnceLoad(Place(*sock.getsockname()), free_place().port)
    try:
        # Nobody answers, so that it sends as much as may be on its way.
        sent = load.run(0.001).sent
    finally:
        load.close()
    assert sent > 1
    assert len({sock.recvfrom(100)[1] for _ in range(sent)}) == sent


def test_sources_are_addresses() -> None:
    assert sources_on_loopback(257)[::128] == ["127.1.0.0", "127.1.0.128", "127.1.1.0"]


@pytest.mark.parametrize(
    ("module", "load"),
    [
        pytest.param("udp_load", lambda to, port: UdpLoad(to, SOURCES, port), id="flows"),
        pytest.param("udp_load", OnceLoad, id="a flow for each datagram"),
        pytest.param("udp_trains", lambda to, port: TrainLoad(to, SOURCES[:4], port), id="trains"),
        # This echo knows nothing of segments, as a proxy between the two might.
        pytest.param("udp_load", lambda to, port: TrainLoad(to, SOURCES[:4], port), id="cut up"),
    ],
)
def test_echo_returns_to_every_flow(
    tmp_path: Path, module: str, load: Callable[[Place, int], UdpLoad | TrainLoad]
) -> None:
    place = free_place()
    command = [sys.executable, "-m", f"bench.wire.{module}", place.host, str(place.port)]
    with running(command, tmp_path / "log") as process:
        wait_for("the echo's socket", lambda: _taken(place))
        process.check()
        made = load(place, free_place().port)
        try:
            made.begin_flows()
            tally = made.run(0.1)
        finally:
            made.close()
    assert tally.received == tally.sent > 0
    assert tally.loss == 0
    assert tally.rate == pytest.approx(tally.received / tally.seconds)


def _taken(place: Place) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(place)
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    ("tally", "loss"),
    [
        pytest.param(Tally(sent=0, received=0, seconds=1), 1.0, id="nothing was sent"),
        pytest.param(Tally(sent=4, received=3, seconds=1), 0.25, id="a quarter"),
        pytest.param(Tally(sent=4, received=5, seconds=1), 0.0, id="late ones arrived after all"),
    ],
)
def test_loss(tally: Tally, loss: float) -> None:
    assert tally.loss == loss


def test_empty_queue_is_no_error(sock: socket.socket) -> None:
    assert Batch(4, 8).receive(sock.fileno()) == 0


def test_bad_descriptor_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        Batch(4, 8).receive(-1)
