"""`python -m bench.comeback`: how soon the cluster is watched again after its API server was away.

The fake API server goes away and comes back. Then it forbids everything for a while, like a server
that has not read its roles yet, and it has lost its history, so that every watch gets status 410.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from tests.fake_api.server import FakeApi
from tests.sources.kubernetes.cluster import Collector, endpointslice, in_step, node, service
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.sources.kubernetes.source import KubernetesSource


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.comeback", description=__doc__)
    parser.add_argument(
        "--away", type=float, default=5.0, help="seconds that the API server is away, default 5"
    )
    parser.add_argument(
        "--forbidding",
        type=float,
        default=3.0,
        help="seconds for which it then forbids everything, default 3",
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of restarts, default 5")
    arguments = parser.parse_args()
    found = asyncio.run(_measure(arguments.away, arguments.forbidding, arguments.rounds))
    print("all kinds watched again after", ", ".join(f"{each:.1f} s" for each in found))
    print(f"median {statistics.median(found):.1f} s")


async def _measure(away: float, forbidding: float, rounds: int) -> list[float]:
    found = []
    async with FakeApi() as server, ApiClient(Access(origin="bench", server=server.url)) as api:
        server.apply(service("web"), endpointslice("web", "192.0.2.1"), node("here"))
        source, sink = KubernetesSource(api, node_name="here"), Collector()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(source.run(sink))
            for number in range(rounds):
                await server.until(lambda: source.reachable, 120.0)
                await asyncio.sleep(11.0)  # A watch that has lasted so long is a healthy one.
                name = f"new-{number}"
                found.append(await _restart(server, source, sink, name, away, forbidding))
            running.cancel()
    return found


async def _restart(
    server: FakeApi,
    source: KubernetesSource,
    sink: Collector,
    name: str,
    away: float,
    forbidding: float,
) -> float:
    await server.stop()
    await asyncio.sleep(away)
    taints = [{"key": name}]
    server.apply(service(name), endpointslice(name, "192.0.2.1"), node("here", taints=taints))
    server.store.forget()
    server.forbids = True
    await server.__aenter__()
    await asyncio.sleep(forbidding)
    server.forbids = False
    ready = time.monotonic()
    await server.until(lambda: source.reachable and in_step(sink, server), 120.0)
    return time.monotonic() - ready


if __name__ == "__main__":
    main()
