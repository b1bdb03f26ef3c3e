"""Messages and descriptors between the control process and a worker."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.descriptors import free_descriptors
from uproxy.core.flows.counters import Counters
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.net.channel import Channel, Outgoing
from uproxy.net.messages import Close, Drained, FromWorker, Open, Ready, Report, ToWorker, Update

NAME = ServicePortName("default", "web", "http", "TCP")


def route(port: int, backends: int = 1) -> Route:
    return Route(
        frontend=Frontend("TCP", "127.0.0.1", port),
        owner=NAME,
        kind=FrontendKind.NODE_PORT,
        backends=tuple(Backend("127.0.0.1", 10000 + each) for each in range(backends)),
    )


def updates(ports: Sequence[int], backends: int = 1) -> list[Outgoing]:
    return [(Update(route(port, backends)), None) for port in ports]


def opens(ports: Sequence[int], sock: socket.socket) -> list[Outgoing]:
    return [(Open(route(port)), sock) for port in ports]


Ends = tuple[Channel[FromWorker], Channel[ToWorker]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    control, worker = socket.socketpair()
    one: Channel[FromWorker] = Channel(control, FromWorker)  # type: ignore[arg-type]
    other: Channel[ToWorker] = Channel(worker, ToWorker)  # type: ignore[arg-type]
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


def exchange(
    control: Channel[FromWorker], worker: Channel[ToWorker], messages: Sequence[Outgoing]
) -> list[tuple[ToWorker, bool]]:
    """Alternate until everything has arrived; whether each had a descriptor, which is closed."""
    received = []
    waiting = list(messages)
    while True:
        del waiting[: control.offer(waiting)]
        arrived = worker.receive()
        for message, descriptor in arrived:
            received.append((message, descriptor is not None))
            if descriptor is not None:
                os.close(descriptor)
        if not arrived and not waiting and not control.wants_write:
            return received


def test_each_open_comes_with_its_own_descriptor(ends: Ends) -> None:
    control, worker = ends
    pairs = [socket.socketpair() for _ in range(3)]
    theirs = [each for _, each in pairs]
    messages: list[Outgoing] = [
        (Open(route(1)), theirs[0]),
        (Update(route(9)), None),
        (Open(route(2)), theirs[1]),
        (Open(route(3)), theirs[2]),
    ]
    assert control.offer(messages) == 4
    for each in theirs:
        each.close()
    received = worker.receive()
    assert [message for message, _ in received] == [message for message, _ in messages]
    assert received[1][1] is None
    descriptors = [number for message, number in received if isinstance(message, Open)]
    for index, (ours, _) in enumerate(pairs):
        number = descriptors[index]
        assert number is not None
        with ours, socket.socket(fileno=number) as sock:
            sock.send(b"%d" % index)
            assert ours.recv(8) == b"%d" % index


def test_more_descriptors_than_one_frame_takes(ends: Ends, sock: socket.socket) -> None:
    control, worker = ends
    received = exchange(control, worker, opens(range(1, 500), sock))
    assert received == [(Open(route(port)), True) for port in range(1, 500)]


def test_what_does_not_fit_is_not_taken_and_comes_in_order(ends: Ends) -> None:
    control, worker = ends
    many = updates(range(1, 200), backends=2000)
    taken = control.offer(many)
    assert 0 < taken < len(many)
    assert control.wants_write
    assert control.offer(many[taken:]) == 0
    rest = exchange(control, worker, many[taken:])
    assert [message for message, _ in rest] == [message for message, _ in many]


def test_messages_to_the_control_process(ends: Ends) -> None:
    control, worker = ends
    report = Report([(NAME, Counters(flows=3, dropped={"dial_failed": 1}))], 3)
    worker.post(Ready(), report)
    worker.post(Drained())
    assert [message for message, _ in control.receive()] == [Ready(), report, Drained()]
    assert control.receive() == []
    assert not control.ended


def test_the_end_comes_after_the_last_message(ends: Ends) -> None:
    control, worker = ends
    control.offer([(Close(route(1).frontend, 30.0), None)])
    control.close()
    assert [message for message, _ in worker.receive()] == [Close(route(1).frontend, 30.0)]
    assert worker.ended
    assert not worker.fault
    worker.post(Ready())
    assert worker.receive() == []


def test_last_words_are_heard_though_nothing_can_be_said_any_more(ends: Ends) -> None:
    """A worker that dies has counted until then."""
    control, worker = ends
    worker.post(Report([], 7))
    worker.close()
    assert control.offer([(Close(route(1).frontend, 0.0), None)]) == 0
    assert control.ended
    assert control.receive() == [(Report([], 7), None)]


@pytest.mark.parametrize("free", [0, 1, 3, 199])
def test_without_free_descriptors_just_what_they_were_for_is_known_to_be_lost(
    ends: Ends, sock: socket.socket, free: int
) -> None:
    """unix(7): MSG_CTRUNC. The channel goes on, also with frames that came close behind."""
    control, worker = ends
    assert control.offer([*opens(range(1, 201), sock), *updates([1])]) == 200
    assert control.offer([*updates([7]), *opens(range(201, 211), sock)]) == 11
    with free_descriptors(free):
        received = worker.receive()
    for _, descriptor in received:
        if descriptor is not None:
            os.close(descriptor)
    expected = [(Open(route(port)), port <= free) for port in range(1, 201)]
    expected += [(Update(route(7)), False)]  # type: ignore[list-item]
    expected += [(Open(route(port)), False) for port in range(201, 211)]
    assert [(message, number is not None) for message, number in received] == expected
    again = exchange(control, worker, opens(range(200, 211), sock))
    assert again == [(Open(route(port)), True) for port in range(200, 211)]
    assert not worker.ended


def test_frames_of_which_descriptors_were_lost_do_not_take_those_of_others(
    ends: Ends, sock: socket.socket
) -> None:
    control, worker = ends
    control.offer(opens([1, 2, 3], sock))
    with free_descriptors(1):
        # Frame by frame, while those behind it wait.
        first = worker.receive()
    control.offer(opens([4, 5], sock))
    second = worker.receive()
    assert [number is not None for _, number in first] == [True, False, False]
    assert [number is not None for _, number in second] == [True, True]
    for _, number in [*first, *second]:
        if number is not None:
            os.close(number)


class Refusing:
    """A socket that cannot send for now."""

    def __init__(self, sock: socket.socket, code: int) -> None:
        self._sock = sock
        self.code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytearray) -> int:
        if self.code:
            raise OSError(self.code, os.strerror(self.code))
        return self._sock.send(data)

    def sendmsg(self, *arguments: Any) -> int:
        if self.code:
            raise OSError(self.code, os.strerror(self.code))
        return self._sock.sendmsg(*arguments)


@pytest.mark.parametrize("name", ["ENOBUFS", "ETOOMANYREFS", "ENOMEM", "EMFILE", "ENFILE"])
@pytest.mark.parametrize("descriptors", [False, True])
def test_a_send_that_fails_for_want_of_something_is_to_be_tried_again(
    sock: socket.socket, name: str, descriptors: bool
) -> None:
    ours, theirs = socket.socketpair()
    refusing = Refusing(ours, getattr(errno, name))
    control: Channel[FromWorker] = Channel(refusing, FromWorker)  # type: ignore[arg-type]
    worker: Channel[ToWorker] = Channel(theirs, ToWorker)  # type: ignore[arg-type]
    messages = opens([1], sock) if descriptors else updates([1])
    assert control.offer(messages) == 0
    assert (control.out_of_resources, control.ended) == (True, "")
    refusing.code = 0
    assert exchange(control, worker, messages) == [(messages[0][0], descriptors)]
    assert (control.out_of_resources, control.ended) == (False, "")
    control.close()
    worker.close()


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(struct.pack("!I", 3) + b"\xc1\xc1\xc1", id="no msgpack"),
        pytest.param(struct.pack("!I", 2) + b"\x91\x01", id="no message"),
        pytest.param(b"\xff\xff\xff\xff", id="endless"),
        pytest.param(struct.pack("!I", 0), id="empty"),
    ],
)
def test_what_makes_no_sense_ends_the_channel_behind_what_did(garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    control: Channel[FromWorker] = Channel(ours, FromWorker)  # type: ignore[arg-type]
    worker: Channel[ToWorker] = Channel(theirs, ToWorker)  # type: ignore[arg-type]
    worker.post(Ready("epoll"))
    theirs.send(garbage)
    worker.post(Drained())
    assert control.receive() == [(Ready("epoll"), None)]
    assert control.ended
    assert "invalid message" in control.fault
    assert control.receive() == []
    control.close()
    worker.close()


def test_a_frame_that_is_cut_short_by_the_end_is_left_out() -> None:
    """Its sender was killed while it sent."""
    ours, theirs = socket.socketpair()
    control: Channel[FromWorker] = Channel(ours, FromWorker)  # type: ignore[arg-type]
    theirs.send(struct.pack("!I", 100) + b"\xdd")
    theirs.close()
    assert control.receive() == []
    assert control.ended
    assert not control.fault
    control.close()


async def test_the_end_is_noticed_behind_many_small_frames(sock: socket.socket) -> None:
    """uvloop calls back only once when the other side has closed with something unread. Each read
    ends behind the descriptors of one frame."""
    ours, theirs = socket.socketpair()
    worker: Channel[ToWorker] = Channel(ours, ToWorker)  # type: ignore[arg-type]
    control: Channel[FromWorker] = Channel(theirs, FromWorker)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    received: list[int] = []
    ended = asyncio.Event()

    def receive() -> None:
        received.extend(number for _, number in worker.receive() if number is not None)
        if worker.ended:
            loop.remove_reader(ours)
            ended.set()

    loop.add_reader(ours, receive)
    worker.post(Ready())
    sent = 0
    while control.offer(opens([1], sock)):
        sent += 1
    control.close()
    async with asyncio.timeout(15):
        await ended.wait()
    assert len(received) == sent > 50
    for number in received:
        os.close(number)
    worker.close()


def test_nothing_leaks_when_it_closes_with_descriptors_on_the_way(
    ends: Ends, sock: socket.socket
) -> None:
    control, worker = ends
    before = len(os.listdir("/proc/self/fd"))
    many = [(Open(route(port, backends=2000)), sock) for port in range(1, 50)]
    assert control.offer(many) < len(many) or control.wants_write
    control.close()
    worker.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2


@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_whatever_raise_an_error(data: bytes, framed: bool) -> None:
    ours, theirs = socket.socketpair()
    control: Channel[FromWorker] = Channel(ours, FromWorker)  # type: ignore[arg-type]
    with theirs, closing(control):
        theirs.send((struct.pack("!I", len(data)) if framed else b"") + data)
        theirs.shutdown(socket.SHUT_WR)
        while control.receive():
            pass
        assert control.ended


@given(st.data())
def test_frames_arrive_whole_however_they_are_cut(data: st.DataObject) -> None:
    """And without the last one, where its sender was killed."""
    ours, theirs = socket.socketpair()
    frames = b"".join(_encoded(Report([], number)) for number in range(5))
    end = data.draw(st.integers(0, len(frames)))
    control: Channel[FromWorker] = Channel(ours, FromWorker)  # type: ignore[arg-type]
    received: list[FromWorker] = []
    with theirs, closing(control):
        start = 0
        while start < end:
            size = data.draw(st.integers(1, end - start))
            theirs.send(frames[start : start + size])
            start += size
            received += [message for message, _ in control.receive()]
        theirs.shutdown(socket.SHUT_WR)
        assert control.receive() == []
        assert (control.fault, bool(control.ended)) == ("", True)
    whole = end // (len(frames) // 5)
    assert received == [Report([], number) for number in range(whole)]


def _encoded(message: FromWorker) -> bytes:
    ours, theirs = socket.socketpair()
    sender: Channel[ToWorker] = Channel(ours, ToWorker)  # type: ignore[arg-type]
    with theirs:
        sender.post(message)
        sender.close()
        return theirs.recv(1000)
