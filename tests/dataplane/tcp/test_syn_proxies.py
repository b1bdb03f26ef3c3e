"""Backends behind a SYN proxy, which allow no bytes until the handshake is complete."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.dataplane.peers import Server, World, eventually, world
from tests.netns import kit
from tests.netns.kit import Namespace
from uproxy.dataplane.handshakes import TRUSTED
from uproxy.dataplane.tcp.listener import TcpListener

pytestmark = kit.needs("nft=nftables")

NEAR, FAR = "192.0.2.1", "192.0.2.2"
SYN_PROXY: Final = """
table ip proxied {
  chain early {
    type filter hook prerouting priority raw;
    ip daddr 192.0.2.2 tcp flags syn notrack;
  }
  chain late {
    type filter hook input priority 0;
    ip daddr 192.0.2.2 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm;
    ip daddr 192.0.2.2 ct state invalid drop;
  }
}
"""


@contextmanager
def syn_proxy() -> Iterator[tuple[Namespace, Namespace]]:
    """Namespaces of the worker and of its backends, whose host has a SYN proxy."""
    with kit.namespace("near") as near, kit.namespace("far") as far:
        near.ip(
            f"link add eth0 type veth peer name eth0 netns {far.name}",
            "link set eth0 up",
            f"addr add {NEAR}/24 dev eth0",
        )
        far.ip("link set eth0 up", f"addr add {FAR}/24 dev eth0")
        loaded = subprocess.run(
            far.command("nft", "-f", "-"), input=SYN_PROXY, text=True, capture_output=True
        )
        if loaded.returncode:
            pytest.skip(f"needs SYNPROXY in the kernel: {loaded.stderr.strip()}")
        far.sysctl(netfilter__nf_conntrack_tcp_loose=0)
        yield near, far


async def exchange(w: World, listener: TcpListener, server: Server) -> None:
    client = w.connect(listener)
    await client.send(b"request")
    backend = await server.accept()
    assert await backend.receive(7) == b"request"
    await backend.send(b"reply")
    assert await client.receive(5) == b"reply"


async def test_connections_do_not_hang() -> None:
    with syn_proxy() as (near, far), near.inside():
        async with world() as w:
            with far.inside():
                server = w.server(FAR)
            listener = w.listen(server.backend)
            handshakes = listener.port.handshakes
            for _ in range(TRUSTED):
                assert not handshakes.delayed
                await exchange(w, listener, server)
            await eventually(lambda: handshakes.delayed)
            await exchange(w, listener, server)
            assert not handshakes.delayed
