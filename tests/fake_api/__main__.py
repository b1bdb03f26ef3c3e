"""`python -m tests.fake_api --port 8001 [--kubeconfig FILE] [MANIFEST ...]`: until it is ended.

The first line that it prints is its URL. Clients in network namespaces reach it with --host.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import uvloop
import yaml

from tests.fake_api.kinds import METALLB
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi


async def _serve(arguments: argparse.Namespace) -> None:
    async with FakeApi(host=arguments.host, port=arguments.port, bookmark_period=60.0) as server:
        if arguments.without_metallb:
            server.uninstall(*METALLB)
        for path in arguments.manifests:
            documents = yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader)
            server.apply(*(each for each in documents if each))
        if arguments.kubeconfig is not None:
            write_kubeconfig(arguments.kubeconfig, server.url)
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_api")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--without-metallb", action="store_true", help="without MetalLB's resource definitions"
    )
    parser.add_argument("--kubeconfig", type=Path, help="write one that leads here")
    parser.add_argument("manifests", type=Path, nargs="*", help="objects to begin with")
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
