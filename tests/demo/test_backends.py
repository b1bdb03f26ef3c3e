"""Which backends the demo starts for endpoints, and why it starts none for others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.nasty import NASTY, is_fit_to_print
from tests.ports import free_port
from uproxy.core.cluster.decode import from_data
from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Object
from uproxy.core.printable import printable
from uproxy.demo import backends
from uproxy.demo.backends import Backends, Missing, Pod, pods

HERE = "127.0.0.1"


def pod(port: int, address: str = HERE, protocol: str = "TCP", name: str = "one") -> Pod:
    return Pod(name, address, port, protocol, dns=False)


def slice_of(endpoints: list[dict[str, Any]], *ports: dict[str, Any]) -> Object:
    metadata = {"name": "web-1", "namespace": "default"}
    data = {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
    return from_data(data, EndpointSlice)


@pytest.mark.parametrize(
    ("objects", "found"),
    [
        pytest.param(
            [slice_of([{"addresses": ["10.0.0.1"]}], {"port": 80})],
            [Pod("10.0.0.1:80", "10.0.0.1", 80, "TCP", False)],
            id="without a name",
        ),
        pytest.param(
            [
                slice_of(
                    [{"addresses": ["::1"], "targetRef": {"name": "web-x"}}],
                    {"name": "dns-udp", "protocol": "UDP", "port": 53},
                )
            ],
            [Pod("web-x", "::1", 53, "UDP", True)],
            id="with a name",
        ),
        pytest.param(
            [
                slice_of([{"addresses": ["10.0.0.1"], "targetRef": {"name": "a"}}], {"port": 80}),
                slice_of([{"addresses": ["10.0.0.1"], "targetRef": {"name": "b"}}], {"port": 80}),
            ],
            [Pod("a", "10.0.0.1", 80, "TCP", False)],
            id="of two Services",
        ),
        pytest.param(
            [slice_of([{"addresses": ["10.0.0.1"]}], {"name": "x"}, {"port": 0})],
            [],
            id="without a port",
        ),
        pytest.param([slice_of([], {"port": 80})], [], id="no endpoint"),
        pytest.param(
            [
                from_data(
                    {
                        "metadata": {"name": "db", "namespace": "default"},
                        "subsets": [
                            {
                                "addresses": [{"ip": "10.0.0.1"}],
                                "notReadyAddresses": [{"ip": "10.0.0.2"}],
                                "ports": [{"port": 5432}],
                            }
                        ],
                    },
                    Endpoints,
                )
            ],
            [
                Pod("10.0.0.1:5432", "10.0.0.1", 5432, "TCP", False),
                Pod("10.0.0.2:5432", "10.0.0.2", 5432, "TCP", False),
            ],
            id="Endpoints",
        ),
    ],
)
def test_pods(objects: list[Object], found: list[Pod]) -> None:
    assert pods(objects) == found


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_names_are_fit_to_print(text: str) -> None:
    endpoint = {"addresses": ["10.0.0.1"], "targetRef": {"name": text}}
    (found,) = pods([slice_of([endpoint], {"port": 80})])
    assert found.name == (printable(text) or "10.0.0.1:80")
    assert is_fit_to_print(backends.greeting(found))


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.create_server((HERE, port)):
        yield


async def test_each_reason_why_there_is_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "MOST", 1)
    port, other = free_port(), free_port()
    wanted = {
        pod(other): "another program listens there, and answers instead",
        pod(80, "192.0.2.1"): "this machine does not have the address; any of 127.0.0.0/8 will do",
        pod(80, "0.0.0.0"): "that is not the address of a pod",
        pod(80, "224.0.0.1"): "that is not the address of a pod",
        pod(80, "example.com"): "that is not the address of a pod",
        pod(80, protocol="SCTP"): "no backend of the demo speaks SCTP",
    }
    with taken(other):
        async with Backends() as running:
            await running.run(wanted)
            assert {each: why.reason for each, why in running.missing.items()} == wanted
            await running.run([pod(port), pod(free_port())])
            assert [each.reason for each in running.missing.values()] == [
                "there are 1 backends already"
            ]


async def test_backends_come_and_go() -> None:
    first, second = free_port(), free_port()
    async with Backends() as running:
        await running.run([pod(first), pod(second)])
        assert _accepts(first)
        assert _accepts(second)
        await running.run([pod(second, name="renamed")])
        assert not _accepts(first)
        assert _accepts(second)
        assert running.missing == {}
    assert not _accepts(second)


async def test_a_pod_gets_its_backend_once_its_port_is_free() -> None:
    port = free_port()
    async with Backends() as running:
        with taken(port):
            await running.run([pod(port)])
            assert isinstance(running.missing[pod(port)], Missing)
        await running.run([pod(port)])
        assert running.missing == {}
        assert _accepts(port)


def _accepts(port: int) -> bool:
    """A connection is in the queue of the kernel before the program accepts it."""
    try:
        socket.create_connection((HERE, port), 10).close()
    except ConnectionRefusedError:
        return False
    return True
