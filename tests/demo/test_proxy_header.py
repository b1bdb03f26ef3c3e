"""PROXY headers, which the pods of the demo leave out."""

from __future__ import annotations

import asyncio

import pytest

from tests.demo.test_backends import HERE, pod
from tests.ports import free_port
from uproxy.demo.backends import Backends
from uproxy.demo.proxy_header import without_header

V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x12\x34\0\x50"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        pytest.param(REQUEST, REQUEST, id="none"),
        pytest.param(V1 + REQUEST, REQUEST, id="version 1"),
        pytest.param(V2 + REQUEST, REQUEST, id="version 2"),
        pytest.param(V1, b"", id="nothing behind it"),
        pytest.param(b"PROXY" + b"x" * 200, b"PROXY" + b"x" * 200, id="another word"),
        pytest.param(b"PROXY " + b"x" * 200, b"PROXY " + b"x" * 200, id="no end"),
        pytest.param(b"\r\nGET /", b"\r\nGET /", id="an empty line first"),
    ],
)
def test_what_follows_a_header(start: bytes, rest: bytes) -> None:
    assert without_header(start) == rest


@pytest.mark.parametrize("header", [V1, V2], ids=["version 1", "version 2"])
def test_a_part_of_a_header_decides_nothing(header: bytes) -> None:
    assert {without_header(header[:size]) for size in range(1, len(header))} == {None}


@pytest.mark.parametrize("header", [b"", V1, V2], ids=["none", "version 1", "version 2"])
async def test_a_pod_answers_with_and_without_it(header: bytes) -> None:
    port = free_port()
    async with Backends() as running:
        await running.run([pod(port)])
        reader, writer = await asyncio.open_connection(HERE, port)
        for byte in header + REQUEST:
            writer.write(bytes((byte,)))
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 15)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"You've hit one\n")
