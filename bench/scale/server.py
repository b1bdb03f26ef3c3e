"""The fake API server with many objects, in a process of its own: `python -m bench.scale.server`.

It prints its URL, then obeys lines on stdin:
  move ADDRESS PORT   give the probe Service only this endpoint; print when, in monotonic seconds
  churn RATE          change one endpoint of a Service RATE times per second; 0 stops that
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time

import uvloop

from bench.scale import objects
from tests.fake_api.server import FakeApi


class Feeder:
    """Changes objects as it is told."""

    def __init__(self, server: FakeApi, services: int, ports: int) -> None:
        self._server = server
        self._services = services
        self._ports = ports
        self._rate = 0.0
        self._rate_changed = asyncio.Event()

    def fill(self) -> None:
        server, ports = self._server, self._ports
        server.apply(objects.namespace(), objects.node())
        server.apply(objects.service(objects.PROBE, objects.PROBE_ADDRESS, 1))
        for number in range(self._services):
            name, address = objects.service_name(number), objects.cluster_ip(number)
            server.apply(objects.service(name, address, ports))
            server.apply(objects.slice_of(number, ports))

    def obey(self, line: str) -> None:
        match line.split():
            case ["move", address, port]:
                at = time.monotonic()
                self._server.apply(objects.probe_slice(address, int(port)))
                _say(repr(at))
            case ["churn", rate]:
                self._rate = float(rate)
                self._rate_changed.set()

    async def churn(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for change in itertools.count():
            while not self._rate or not self._services:
                self._rate_changed.clear()
                await self._rate_changed.wait()
                due = loop.time()
            due += 1 / self._rate
            await asyncio.sleep(due - loop.time())
            number = change * 7919 % self._services
            generation = 1 + change // self._services
            self._server.apply(objects.slice_of(number, self._ports, generation=generation))


async def _serve(arguments: argparse.Namespace) -> None:
    # Watches of a real server are served from memory too; 5,000 changes are less than a minute.
    async with FakeApi(history=5000, bookmark_period=60.0) as server, asyncio.TaskGroup() as tasks:
        feeder = Feeder(server, arguments.services, arguments.ports)
        feeder.fill()
        _say(server.url)
        task = tasks.create_task(feeder.churn())
        lines = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(lines)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await lines.readline():
            feeder.obey(line.decode())
        task.cancel()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, required=True)
    parser.add_argument("--ports", type=int, required=True)
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
