"""A receiver that is slow, or does not read at all, holds up no other flow, and costs little."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import socket
from pathlib import Path

import pytest

from tests.dataplane.peers import MIB, Peer, World, eventually, fill, pattern, world
from tests.dataplane.tcp.test_conformance import every_mode, send_all
from uproxy.dataplane.tcp.pipes import Pipe, PipePool
from uproxy.dataplane.tcp.shared_buffers import SpliceMode

HELD = 64 * 1024
"""Bytes of a direction that are ours at any time, beside what its sockets have."""


@every_mode
class TestBackPressure:
    @pytest.mark.asyncio(loop_factories=["uvloop"])
    async def test_200_mb_for_a_client_that_does_not_read(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            block = pattern(MIB)
            progress = [0]
            expected = hashlib.sha256()
            rss = resident()
            async with asyncio.TaskGroup() as group:
                group.create_task(send_blocks(backend, block, 200, progress, expected))
                await stuck(w, progress)
                assert progress[0] < 200
                assert 0 < w.flows.pending <= HELD
                assert resident() - rss < 40 * MIB
                size, digest = await client.digest()
            assert (size, digest) == (200 * MIB, expected.hexdigest())
            assert w.flows.pending == 0

    async def test_one_direction_does_not_hold_up_the_other(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            await fill(w, backend)
            await client.send(b"still here")
            assert await backend.receive(10) == b"still here"
            client.reset()

    async def test_a_busy_flow_leaves_turns_to_others(self, mode: SpliceMode) -> None:
        async with world(mode) as w:
            client, backend = await w.pair()
            other, other_backend = await w.pair()
            async with asyncio.TaskGroup() as group:
                group.create_task(send_all(backend, pattern(64 * MIB)))
                received = group.create_task(client.digest())
                turns = 0
                while not received.done():
                    await other.send(b"?")
                    assert await other_backend.receive(1) == b"?"
                    turns += 1
                backend.finish()
            assert turns > 5

    @pytest.mark.parametrize("window", [1, HELD], ids=["tiny window", "window"])
    @pytest.mark.parametrize("piece", [20_000, 64 * 1024, 3 * MIB])
    async def test_little_is_held_for_a_receiver_that_does_not_read(
        self, mode: SpliceMode, piece: int, window: int
    ) -> None:
        """Whatever is on its way, however it comes, and in how small packets it leaves."""
        async with world(mode) as w:
            w.flows.movers.shared.pipes = pipes = MeasuredPipes()
            server = w.server()
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            sock.connect(w.listen(server.backend).route.frontend[1:])
            client, backend = w.client(sock), await server.accept()
            data = pattern(piece)
            most = [0]

            def full() -> bool:
                most[0] = max(most[0], w.flows.pending)
                try:
                    while backend.sock.send(data) == piece and not w.flows.pending:
                        pass
                except BlockingIOError:
                    return w.flows.pending > 0
                return False

            await eventually(full)
            await settled(w, most)
            assert 0 < most[0] <= HELD
            assert pipes.most <= HELD
            client.reset()
            backend.reset()


class MeasuredPipes(PipePool):
    """Pipes whose content is measured when they are drained no further."""

    most = 0

    def borrow(self) -> Pipe | None:
        self.used += 1
        return MeasuredPipe(self)


class MeasuredPipe(Pipe):
    def __init__(self, pool: MeasuredPipes) -> None:
        super().__init__(pool.kernel)
        self.pool = pool

    def drain(self, fd: int) -> None:
        try:
            super().drain(fd)
        except BlockingIOError:
            self.pool.most = max(self.pool.most, self.size)
            raise


async def settled(w: World, most: list[int]) -> None:
    """Wait until what is held has not changed for fifty rounds in a row."""
    seen, rounds = -1, 0

    def quiet() -> bool:
        nonlocal seen, rounds
        held = w.flows.pending
        most[0] = max(most[0], held)
        rounds = rounds + 1 if held == seen else 0
        seen = held
        return rounds > 50

    await eventually(quiet)


async def send_blocks(
    peer: Peer, block: bytes, count: int, progress: list[int], sent: hashlib._Hash
) -> None:
    for number in range(count):
        data = number.to_bytes(4, "big") + block[4:]
        sent.update(data)
        await peer.send(data)
        progress[0] += 1
    peer.finish()


async def stuck(w: World, progress: list[int]) -> None:
    """Wait until a sender has made no progress for fifty rounds in a row, with bytes held."""
    seen, rounds = -1, 0

    def quiet() -> bool:
        nonlocal seen, rounds
        rounds = rounds + 1 if progress[0] == seen and w.flows.pending else 0
        seen = progress[0]
        return rounds > 50

    await eventually(quiet)


def resident() -> int:
    """Bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
