"""Takes the screenshots in docs/images: `make screenshots`, or SECONDS=30 for a quick look.

A shop of a few Services is served and visited for five minutes, so that the lines are full; one of
its pods does not answer.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from PIL import Image

from tests.browser.devtools import Page, chromium
from tests.browser.live import endpoint_slice, named
from tests.e2e.pods import Pod, pod, read_line
from tests.e2e.program import endpoints, program, service, write
from tests.ports import free_port
from uproxy.core.protocols import TCP, UDP

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
COLOURS: Final = 256
NODES: Final = ("node-1", "node-2", "node-3")
ROW: Final = "shop/checkout:main/TCP"


class Shop(NamedTuple):
    """One Service of the shop."""

    namespace: str
    name: str
    pods: tuple[str, ...]
    address: str
    port: int
    visits: float
    """Visits per second, on average."""
    size: int
    """Bytes that each of them sends, and gets back."""
    protocol: str = TCP


SHOPS: Final = (
    Shop(
        "shop",
        "web",
        ("web-7d9f-x2lq", "web-7d9f-8fkz", "web-7d9f-mm4c"),
        "127.96.0.10",
        80,
        40,
        900,
    ),
    Shop("shop", "cart", ("cart-55c4-9wqd", "cart-55c4-lz7p"), "127.96.0.11", 8080, 12, 4000),
    Shop("shop", "checkout", ("checkout-6b8d-t5rn",), "127.96.0.12", 8080, 4, 2500),
    Shop("shop", "search", (), "127.96.0.13", 9200, 0, 0),
    Shop("mail", "smtp", ("smtp-0",), "127.96.0.14", 2525, 1, 30_000),
    Shop("kube-system", "kube-dns", ("coredns-a1", "coredns-b2"), "127.96.0.15", 5353, 6, 60, UDP),
)


def manifests(shop: Shop, pods: list[Pod], node_port: int) -> Iterator[dict[str, Any]]:
    ports = [{"name": "main", "port": shop.port, "nodePort": node_port, "protocol": shop.protocol}]
    made = [service(shop.name, ports=ports, clusterIP=shop.address)]
    slices = [
        each
        for number, one in enumerate(pods)
        for each in endpoints(shop.name, [one], protocol=shop.protocol, node=NODES[number % 3])
    ]
    made += named(slices)
    if shop.name == "checkout":
        broken = endpoint_slice(shop.name, "IPv4", "127.97.0.99", 8080)
        broken["ports"][0]["name"] = "main"
        broken["endpoints"][0]["nodeName"] = "node-2"
        broken["endpoints"][0]["targetRef"]["name"] = "checkout-6b8d-qk2v"
        made.append(broken)
    for each in made:
        each["metadata"]["namespace"] = shop.namespace
        yield each


def visit(shop: Shop) -> None:
    """Send as much as the Service gets, and read it back."""
    kind = socket.SOCK_STREAM if shop.protocol == TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(5)
        sock.connect((shop.address, shop.port))
        sock.sendall(b"x" * shop.size)
        if shop.protocol == TCP:
            read_line(sock)
        left = shop.size
        while left > 0 and (data := sock.recv(65536)):
            left -= len(data)


@contextmanager
def visitors(shop: Shop, ended: threading.Event) -> Iterator[None]:
    """Visits that become more and fewer within minutes."""

    def run() -> None:
        while not ended.wait(1 / (shop.visits * (1 + 0.5 * math.sin(time.monotonic() / 25)))):
            with contextlib.suppress(OSError):
                visit(shop)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def save(page: Page, name: str) -> None:
    """Save what is seen, with few colours: pages have no more."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = IMAGES / name
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def take(url: str) -> None:
    with chromium() as browser:
        for name, width, height, dark in (
            ("page-desktop.png", 1280, 900, False),
            ("page-dark.png", 1280, 900, True),
            ("page-phone.png", 360, 780, False),
        ):
            with browser.page(width=width, height=height, dark=dark) as page:
                page.open(url)
                page.wait_for("document.querySelectorAll('#ports .port').length")
                page.wait_for("!document.querySelector('#ports tbody').innerText.includes('–')")
                if width > 400:
                    open_row(page)
                save(page, name)


def open_row(page: Page) -> None:
    rows = "[...document.querySelectorAll('#ports .open')]"
    page.run(f"{rows}.find((each) => each.textContent === '{ROW}').click()")
    page.wait_for("document.querySelectorAll('.detail table').length === 2")


def serve(seconds: float, then: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        folder = Path(directory, "manifests")
        folder.mkdir()
        documents = list[dict[str, Any]]()
        for shop in SHOPS:
            pods = [
                stack.enter_context(pod(name, f"127.97.{shop.port % 256}.{number}"))
                for number, name in enumerate(shop.pods, start=11)
            ]
            documents += manifests(shop, pods, free_port())
        write(folder, "shop.yaml", *documents)
        options = ("--hostname-override", "node-1", "--nodeport-addresses", "127.0.0.1/32")
        running = stack.enter_context(program(folder, *options))
        ended = threading.Event()
        for shop in SHOPS:
            if shop.visits:
                stack.enter_context(visitors(shop, ended))
        time.sleep(seconds)
        then(f"http://127.0.0.1:{running.metrics}/")
        ended.set()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="of traffic before they are taken"
    )
    arguments = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    serve(arguments.seconds, take)


if __name__ == "__main__":
    main()
