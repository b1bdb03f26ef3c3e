"""What a TCP flow does with bytes, ends and resets, in every way of moving bytes."""

from __future__ import annotations

import asyncio
import hashlib
import random
import select
import socket
from _socket import socket as Socket
from typing import Any

import pytest

from tests.dataplane.peers import MIB, Peer, eventually, fill, pattern, world
from uproxy.dataplane.handshakes import TRUSTED
from uproxy.dataplane.kernel import Kernel
from uproxy.dataplane.tcp.flow import Flow
from uproxy.dataplane.tcp.listener import TcpListener
from uproxy.dataplane.tcp.shared_buffers import SpliceMode

every_mode = pytest.mark.parametrize("mode", ["never", "adaptive", "always"])


@every_mode
class TestStreams:
    async def test_bytes_go_both_ways(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await client.send(b"hello")
            assert await backend.receive(5) == b"hello"
            await backend.send(b"world")
            assert await client.receive(5) == b"world"

    async def test_single_bytes_arrive_one_by_one(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            for value in pattern(200):
                await client.send(bytes([value]))
                assert await backend.receive(1) == bytes([value])
                await backend.send(bytes([value ^ 1]))
                assert await client.receive(1) == bytes([value ^ 1])

    async def test_the_server_may_speak_first(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await backend.send(b"220 ready")
            assert await client.receive(9) == b"220 ready"

    async def test_the_server_may_speak_and_end_before_the_dial_is_noticed(
        self, mode: SpliceMode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The dial's event is the only one then: edges are reported once."""
        async with world(mode) as w:
            server = w.server()
            listener = w.listen(server.backend)
            dial = listener.dialer.dial

            def dial_and_be_told(flow: Flow) -> None:
                dial(flow)
                select.select([server.sock], [], [])
                with server.sock.accept()[0] as backend:
                    backend.send(b"220 ready")

            monkeypatch.setattr(listener.dialer, "dial", dial_and_be_told)
            client = w.connect(listener)
            assert await client.receive(9) == b"220 ready"
            client.finish()
            assert await client.rest() == b""

    async def test_the_first_reply_of_a_backend_is_acknowledged_at_once(
        self, mode: SpliceMode
    ) -> None:
        """With TCP_QUICKACK off, the last ACK of the handshake waits for the client's first bytes.
        So would the ACK of the first reply, and a backend that writes it in several pieces, with
        Nagle's algorithm, waits for that: 44 ms. The socket does not tell (pingpong mode), and time
        is not to be measured here."""
        options: list[int] = []

        class Told(Socket):
            def setsockopt(self, level: int, option: int, *value: Any) -> None:
                if (level, option) == (socket.IPPROTO_TCP, socket.TCP_QUICKACK):
                    options.append(*value)
                super().setsockopt(level, option, *value)

        async def exchange(count: int) -> None:
            """After this, so many options were set."""
            client = w.connect(listener)
            await client.send(b"request")
            backend = await server.accept()
            assert await backend.receive(7) == b"request"
            await backend.send(b"reply")
            assert await client.receive(5) == b"reply"
            await eventually(lambda: len(options) == count)

        async with world(mode, kernel=Kernel(new_socket=Told)) as w:
            server = w.server()
            listener = w.listen(server.backend)
            for number in range(TRUSTED):
                await exchange(number + 1)
            assert options == [1] * TRUSTED
            await exchange(TRUSTED + 2)
            assert options[TRUSTED:] == [0, 1]

    async def test_handshakes_are_not_delayed_where_servers_speak_first(
        self, mode: SpliceMode
    ) -> None:
        async with world(mode) as w:
            server = w.server()
            listener = w.listen(server.backend)
            handshakes = listener.port.handshakes
            handshakes.delayed = True
            client = w.connect(listener)
            backend = await server.accept()
            await backend.send(b"220 ready")
            assert await client.receive(9) == b"220 ready"
            await eventually(lambda: not handshakes.delayed)

    async def test_a_backend_that_allows_no_bytes_gets_the_last_ack_at_once(
        self, mode: SpliceMode
    ) -> None:
        """As behind a SYN proxy. Linux would send window probes in place of the ACK, for ever."""
        options: list[int] = []

        class Windowless(Socket):
            delayed_meanwhile = True

            def getsockopt(self, level: int, option: int, *size: int) -> Any:
                found = super().getsockopt(level, option, *size)
                is_info = (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
                return bytes(*size) if is_info else found

            def setsockopt(self, level: int, option: int, *value: Any) -> None:
                if (level, option) == (socket.IPPROTO_TCP, socket.TCP_QUICKACK):
                    options.append(*value)
                    # Another flow may learn meanwhile that its backend allows no bytes.
                    handshakes.delayed = self.delayed_meanwhile
                super().setsockopt(level, option, *value)

        async with world(mode, kernel=Kernel(new_socket=Windowless)) as w:
            server = w.server()
            listener = w.listen(server.backend)
            handshakes = listener.port.handshakes
            for Windowless.delayed_meanwhile in (True, False):
                handshakes.delayed = True
                options.clear()
                client = w.connect(listener)
                await eventually(lambda: options == [0, 1])
                await eventually(lambda: not handshakes.delayed)
                await (await server.accept()).send(b"220 ready")
                assert await client.receive(9) == b"220 ready"

    async def test_64_mib_both_ways_at_once(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            up, down = pattern(64 * MIB, b"up"), pattern(64 * MIB, b"down")
            async with asyncio.TaskGroup() as group:
                group.create_task(send_all(client, up))
                group.create_task(send_all(backend, down))
                received = group.create_task(client.digest())
                arrived = group.create_task(backend.digest())
            assert received.result() == (64 * MIB, hashlib.sha256(down).hexdigest())
            assert arrived.result() == (64 * MIB, hashlib.sha256(up).hexdigest())
            await w.idle()
            assert w.counters.client_bytes == w.counters.backend_bytes == 64 * MIB

    async def test_urgent_data_keeps_its_place(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            for receiver, sender in ((backend, client), (client, backend)):
                await sender.send(b"abc")
                assert await receiver.receive(3) == b"abc"
                sender.sock.send(b"!", socket.MSG_OOB)
                await sender.send(b"def")
                assert await receiver.receive(4) == b"!def"
                await sender.send(b"more")
                assert await receiver.receive(4) == b"more"

    async def test_urgent_data_behind_urgent_data_loses_nothing(self, mode: SpliceMode) -> None:
        """The kernel forgets an urgent byte that was not read when the next one arrives, unless
        the socket has been told before to keep it in its place."""
        async with world(mode) as w:
            client, backend = await w.pair()
            for receiver, sender in ((backend, client), (client, backend)):
                for byte in (b"1", b"2", b"3"):
                    sender.sock.send(byte, socket.MSG_OOB)
                await sender.send(b"more")
                assert await receiver.receive(7) == b"123more"

    async def test_slow_writer_and_slow_reader_take_turns(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            data = pattern(3 * MIB)
            async with asyncio.TaskGroup() as group:
                group.create_task(send_all(client, data, pieces=70_001))
                received = bytearray()
                while len(received) < len(data):
                    received += await backend.receive(min(9_999, len(data) - len(received)))
                    await asyncio.sleep(0)
            assert received == data

    async def test_many_flows_of_all_sizes(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            chance = random.Random(117)
            server = w.server()
            listener = w.listen(server.backend)
            # Inherited by what is accepted: such sockets take held bytes in parts only.
            listener._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    client = w.connect(listener)
                    backend = await server.accept()
                    for sender, receiver in ((client, backend), (backend, client)):
                        size = int(3 * MIB ** chance.random())
                        data = pattern(size, str(number).encode())
                        pieces = chance.choice([max(1, size // 50), 5_000, 100_000, MIB])
                        group.create_task(send_all(sender, data, max(pieces, size // 200)))
                        group.create_task(expect(receiver, data))
            await w.idle()


@every_mode
class TestEnds:
    async def test_client_ends_and_gets_its_reply(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await client.send(b"request")
            client.finish()
            assert await backend.rest() == b"request"
            reply = pattern(MIB)
            async with asyncio.TaskGroup() as group:
                group.create_task(send_all(backend, reply))
                assert await client.rest() == reply
            await w.idle()
            assert (w.counters.client_bytes, w.counters.backend_bytes) == (7, MIB)

    async def test_backend_ends_and_gets_the_rest(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await backend.send(b"banner")
            backend.finish()
            assert await client.rest() == b"banner"
            upload = pattern(MIB)
            async with asyncio.TaskGroup() as group:
                group.create_task(send_all(client, upload))
                assert await backend.rest() == upload
            await w.idle()

    async def test_both_end_at_once(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await client.send(b"ping")
            await backend.send(b"pong")
            client.finish()
            backend.finish()
            assert await client.rest() == b"pong"
            assert await backend.rest() == b"ping"
            await w.idle()

    async def test_the_end_comes_after_all_that_was_held(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            data = pattern(24 * MIB)
            async with asyncio.TaskGroup() as group:
                group.create_task(send_all(backend, data))
                await eventually(lambda: w.flows.pending > 0)
                assert await client.rest() == data
            client.close()
            await w.idle()

    async def test_both_end_behind_messages_for_which_there_is_no_room(
        self, mode: SpliceMode
    ) -> None:
        async with world(mode) as w:
            server = w.server()
            server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            listener = w.listen(server.backend)
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sock.connect(listener.route.frontend[1:])
            client, backend = w.client(sock), await server.accept()
            await eventually(lambda: all(each.mover for each in listener.flows))
            narrow_sends(listener)
            messages = [(client, pattern(16_000, b"c")), (backend, pattern(16_000, b"b"))]
            for peer, message in messages:  # In one go, so that the relay sees both at once.
                assert peer.sock.send(message) == len(message)
                peer.finish()
            async with asyncio.TaskGroup() as group:
                answer = group.create_task(client.rest())
                request = group.create_task(backend.rest())
            assert request.result() == messages[0][1]
            assert answer.result() == messages[1][1]

    async def test_backend_that_closes_at_once(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            backend.close()
            assert await client.rest() == b""
            client.close()
            await w.idle()

    async def test_last_words_are_heard(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await client.send(b"request")
            assert await backend.receive(7) == b"request"
            data = pattern(700_001)
            async with asyncio.TaskGroup() as group:
                received = group.create_task(client.rest())
                await backend.send(data)
                backend.close()
            assert received.result() == data


@every_mode
class TestResets:
    async def test_client_resets(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            client.reset()
            assert await backend.was_reset()
            await w.idle()

    async def test_backend_resets(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            backend.reset()
            assert await client.was_reset()
            await w.idle()

    async def test_reset_after_its_own_end(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            client.finish()
            assert await backend.rest() == b""
            client.reset()
            await w.idle()
            assert await backend_write_fails(backend)

    async def test_reset_of_a_receiver_for_which_bytes_are_held(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            sent = await fill(w, backend)
            client.reset()
            assert await backend_write_fails(backend)
            await w.idle()
            assert 0 < w.counters.backend_bytes < sent

    async def test_reset_of_a_sender_of_which_bytes_are_held(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await fill(w, backend)
            backend.reset()
            await w.idle()
            assert await client.was_reset()

    async def test_last_words_before_a_reset_that_a_write_notices(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            # All before the engine's next round, in which the client's event comes first.
            client.sock.send(b"lost")
            backend.sock.send(b"bye")
            backend.reset()
            assert await client.receive(3) == b"bye"
            assert await client.was_reset()
            await w.idle()
            assert (w.counters.client_bytes, w.counters.backend_bytes) == (1, 3)

    async def test_reply_that_was_sent_before_a_reset(self, mode: SpliceMode) -> None:
        """A server that rejects an upload replies and closes without reading all of it."""
        async with world(mode) as w:
            client, backend = await w.pair()
            await client.send(pattern(100_000))
            assert await backend.receive(10) == pattern(100_000)[:10]
            await backend.send(b"413 too large")
            backend.close()
            assert await client.receive(13) == b"413 too large"
            assert await client.was_reset()
            await w.idle()


def narrow_sends(listener: TcpListener) -> None:
    """Have the sockets of all flows take as little at a time as the kernel allows."""
    for flow in listener.flows:
        for sock in (flow.client_sock, flow.sock):
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


async def send_all(peer: Peer, data: bytes, pieces: int = MIB) -> None:
    """Send, then end the stream."""
    for start in range(0, len(data), pieces):
        await peer.send(data[start : start + pieces])
    peer.finish()


async def expect(peer: Peer, data: bytes) -> None:
    assert await peer.rest() == data


async def backend_write_fails(backend: Peer) -> bool:
    """Whether the other end has gone; a reset that came without a read shows in a write."""
    try:
        async with asyncio.timeout(10):
            while True:
                await backend.send(b"x")
                await asyncio.sleep(0.001)
    except (ConnectionResetError, BrokenPipeError):
        return True
