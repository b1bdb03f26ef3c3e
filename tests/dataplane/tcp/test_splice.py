"""When bytes are spliced instead of copied, and what is done where that does not work."""

from __future__ import annotations

import asyncio
import errno
import os
import resource

import pytest

from tests.dataplane.peers import Peer, World, descriptors, pattern, world
from uproxy.dataplane.kernel import Kernel
from uproxy.dataplane.tcp.pipes import Pipe, PipePool

MIB = 1 << 20


class TestSplice:
    async def test_begins_with_bulk_and_ends_with_it(self) -> None:
        async with world("adaptive") as w:
            pipes = w.flows.movers.shared.pipes = CountingPipes()
            client, backend = await w.pair()
            assert await lent_pipes(w, client, backend, pattern(32 * MIB)) > 0
            for value in pattern(50):
                before = pipes.lent
                await backend.send(bytes([value]))
                assert await client.receive(1) == bytes([value])
            assert pipes.lent == before

    async def test_never_means_never(self) -> None:
        async with world("never") as w:
            w.flows.movers.shared.pipes = CountingPipes()
            client, backend = await w.pair()
            assert await lent_pipes(w, client, backend, pattern(16 * MIB)) == 0

    async def test_kernels_without_it_copy(self) -> None:
        async with world("adaptive") as w:
            w.flows.movers.shared.pipes = UnsupportedPipes()
            client, backend = await w.pair()
            data = pattern(16 * MIB)
            assert await lent_pipes(w, client, backend, data) == 1
            assert await lent_pipes(w, client, backend, data) == 0

    async def test_without_pipes_bytes_are_copied(self) -> None:
        async with world("always") as w:
            w.flows.movers.shared.pipes = NoPipes()
            client, backend = await w.pair()
            assert await lent_pipes(w, client, backend, pattern(4 * MIB)) > 0

    def test_pipes_are_used_again_only_when_empty(self) -> None:
        pool = PipePool()
        first = pool.borrow()
        assert first is not None
        pool.give_back(first)
        assert pool.borrow() is first
        first.size = 1
        pool.give_back(first)
        second = pool.borrow()
        assert second is not None
        assert second is not first
        pool.give_back(second)
        pool.close()

    @pytest.mark.parametrize("size", [None, 4096], ids=["unknown", "too small"])
    def test_a_pipe_of_no_use_is_closed(self, size: int | None) -> None:
        def size_of_pipe(fd: int) -> int:
            if size is None:
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            return size

        before = descriptors()
        assert PipePool(Kernel(size_of_pipe=size_of_pipe)).borrow() is None
        assert descriptors() == before

    def test_no_pipes_without_descriptors(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            assert PipePool().borrow() is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class UnsupportedPipe(Pipe):
    def fill(self, fd: int, most: int = 0) -> int:
        raise OSError(errno.EINVAL, "no splice here")


class CountingPipes(PipePool):
    lent = 0

    def borrow(self) -> Pipe | None:
        self.lent += 1
        return super().borrow()


class UnsupportedPipes(CountingPipes):
    def borrow(self) -> Pipe | None:
        self.lent += 1
        self.used += 1
        return UnsupportedPipe(self.kernel)


class NoPipes(CountingPipes):
    def borrow(self) -> Pipe | None:
        self.lent += 1
        return None


async def lent_pipes(w: World, client: Peer, backend: Peer, data: bytes) -> int:
    """Send, compare what arrives, and tell how often a pipe was asked for."""
    pipes = w.flows.movers.shared.pipes
    assert isinstance(pipes, CountingPipes)
    before = pipes.lent
    async with asyncio.TaskGroup() as group:
        group.create_task(send_pieces(backend, data))
        assert await client.receive(len(data)) == data
    return pipes.lent - before


async def send_pieces(peer: Peer, data: bytes) -> None:
    for start in range(0, len(data), MIB):
        await peer.send(data[start : start + MIB])
