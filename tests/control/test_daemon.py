"""How the parts of the program are connected."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.builders import endpoint, endpoint_slice, node, port, service
from tests.ports import free_port
from uproxy.config.settings import Address, Config
from uproxy.control.daemon import Daemon
from uproxy.control.machine import Machine
from uproxy.core.cluster.objects import Object
from uproxy.net.messages import LocalClients, Open, ToWorker

_ADDRESS = "127.0.0.1"


@contextmanager
def messages(daemon: Daemon) -> Iterator[list[ToWorker]]:
    """What workers are told, in order."""
    told = list[ToWorker]()

    def send(worker: int, message: ToWorker, sock: Any = None) -> None:
        told.append(message)

    with (
        patch.object(daemon.workers, "send", send),
        patch.object(daemon.workers, "set_local_clients", told.append),
    ):
        yield told


async def test_the_first_sync_knows_the_node() -> None:
    """Until workers know the networks of its pods, pods count as clients from outside; and without
    its addresses, there is no NodePort at the primary ones."""
    config = Config(
        node_name="here",
        nodeport_addresses=("primary",),
        claim_addresses="never",
        healthz_address=None,
        metrics_address=None,
    )
    daemon = Daemon(config, None, Machine())
    number = free_port()
    objects: list[Object] = [
        node("here", addresses=[_ADDRESS], pod_cidrs=["10.0.0.0/24"]),
        service("web", port(80, node_port=number), type="NodePort"),
        endpoint_slice("web", endpoint("10.0.0.1")),
    ]
    with messages(daemon) as told:
        daemon.reconciler.sink.replace("manifests", objects)
        await daemon.reconciler.sync()
        try:
            assert daemon.reconciler.served_once.is_set()
            socket.create_connection((_ADDRESS, number), 15).close()
        finally:
            daemon.listeners.close_all(grace=0)
    opened = [each.route.frontend for each in told if isinstance(each, Open)]
    assert (_ADDRESS, number) in [(each.address, each.port) for each in opened]
    first = next(index for index, each in enumerate(told) if isinstance(each, Open))
    networks = [each.networks for each in told[:first] if isinstance(each, LocalClients)]
    assert networks[-1:] == [("10.0.0.0/24",)]


async def test_no_status_is_healthy_while_probes_get_no_answer() -> None:
    """Whatever else has their port says nothing about this program."""
    with socket.create_server((_ADDRESS, 0)) as taken:
        health = Address(*taken.getsockname())
        daemon = Daemon(Config(healthz_address=health, metrics_address=None), None, Machine())
        (server,) = daemon.servers
        async with server:
            (said,) = [each for each in daemon.status.now().not_healthy if "/healthz" in each]
            assert said.startswith("/healthz and /readyz do not answer: ")
            assert str(health.port) in said
            assert said not in daemon.status.now().notes, "it is said once"
            taken.close()
            await server.open()
            assert not [each for each in daemon.status.now().not_healthy if "/healthz" in each]
