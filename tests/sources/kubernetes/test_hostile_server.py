"""An API server, or another program in its place, that sends malformed or endless responses."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import pytest

from tests.sources.kubernetes.cluster import FAST, Collector
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.sources.kubernetes.source import KubernetesSource
from uproxy.sources.kubernetes.timing import Timing

Respond = Callable[[str, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


class Server:
    """Answers every request with what a function writes, and then closes the connection."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.url = ""
        self.running: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # RuntimeError: uvloop's word for a connection that the other side has closed.
        with suppress(ConnectionError, RuntimeError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ")[1].decode()
            self.asked.append(target)
            self.heads.append(head)
            await self.respond(target, writer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def served(respond: Respond) -> AsyncIterator[Server]:
    server = Server(respond)
    async with asyncio.TaskGroup() as tasks:

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server.running.append(tasks.create_task(server.serve(reader, writer)))

        listening = await asyncio.start_server(connected, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            listening.close()
            for each in server.running:
                each.cancel()
    await asyncio.sleep(0)  # Transports close in the next iteration of the loop.


@asynccontextmanager
async def watching(
    server: Server, timing: Timing = FAST
) -> AsyncIterator[tuple[Collector, KubernetesSource]]:
    sink = Collector()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(ApiClient(Access(origin="test", server=server.url)))
        source = KubernetesSource(api, node_name="here", timing=timing)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = tasks.create_task(source.run(sink))
        yield sink, source
        running.cancel()


def always(body: bytes, head: bytes = OK) -> Respond:
    async def respond(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(head + body)

    return respond


def without_end(beginning: bytes) -> Respond:
    async def respond(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + beginning)
        while True:
            writer.write(b"x" * 1_000_000)
            await writer.drain()

    return respond


async def test_a_watch_that_is_one_line_without_end_is_given_up() -> None:
    async with (
        served(without_end(b'{"type":"ADDED","object":{"x":"')) as server,
        watching(server) as (sink, source),
    ):
        await sink.until(lambda: any("watch" not in each for each in server.asked))
        assert not sink.state.synced
        server.respond = lists(LIST + b"null}")
        await sink.until(lambda: sink.state.synced)
        server.respond = without_end(b'{"type":"ADDED","object":{"x":"')
        await sink.until(lambda: "a line of more than 16 MiB" in source.last_error)


def lists(body: bytes) -> Respond:
    """Of a server that does not stream lists, and whose watches wait."""

    async def respond(target: str, writer: asyncio.StreamWriter) -> None:
        if "sendInitialEvents" in target:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        elif "watch" in target:
            writer.write(OK)
            await writer.drain()
            await asyncio.Event().wait()
        else:
            writer.write(OK + body)

    return respond


LIST = b'{"metadata":{"resourceVersion":"1"},"items":'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(
            b"<html><body>Log in first</body></html>", "the answer is not a list", id="HTML"
        ),
        pytest.param(b"", "the answer is not a list", id="nothing"),
        pytest.param(b"null", "the answer is not a list", id="null"),
        pytest.param(b'{"metadata":null,"items":[]}', "the answer is not a list", id="no metadata"),
        pytest.param(b'{"metadata":{},"items":[]}', "no usable resourceVersion", id="no version"),
        pytest.param(LIST + b"7}", "the answer is not a list", id="items that are none"),
    ],
)
async def test_lists_that_are_none(body: bytes, reason: str) -> None:
    async with served(lists(body)) as server, watching(server) as (sink, source):
        await sink.until(lambda: reason in source.last_error)
        assert not sink.state.synced
        server.respond = lists(LIST + b"null}")
        await sink.until(lambda: sink.state.synced)


@pytest.mark.parametrize(
    "item",
    [b"null", b"[]", b"7", b"{}", b'{"metadata":null}', b'{"metadata":{"name":7}}', b'"\xff"'],
    ids=lambda item: item.decode(errors="replace"),
)
async def test_items_that_are_no_objects_are_errors(item: bytes) -> None:
    good = b'{"metadata":{"name":"web","namespace":"default"}}'
    services, others = lists(LIST + b"[" + item + b"," + good + b"]}"), lists(LIST + b"[]}")

    async def respond(target: str, writer: asyncio.StreamWriter) -> None:
        await (services if "/services" in target else others)(target, writer)

    async with served(respond) as server, watching(server) as (sink, _):
        await sink.until(lambda: sink.state.synced and sink.errors["services"])
        assert sink.names() == {"web"}
        assert len(sink.errors["services"]) == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ADDED","object":null}',
        b'{"type":"ADDED","object":{}}',
        b'{"type":"ADDED","object":{"metadata":{}}}',
        b'{"type":"DELETED","object":7}',
        b'{"type":"BOOKMARK","object":null}',
        b'{"type":"ERROR","object":null}',
        b'{"type":"ERROR","object":{"code":' + b"9" * 400 + b"}}",
        b'{"type":"","object":{}}',
        b'{"type":7,"object":{}}',
        b"null",
        b"\xff",
        b"[" * 100_000,
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
async def test_events_that_are_none(line: bytes) -> None:
    async def respond(target: str, writer: asyncio.StreamWriter) -> None:
        if "watch" in target and "/services" in target and "Initial" not in target:
            event = b'{"type":"ADDED","object":{"metadata":{"name":"web","resourceVersion":"%d"}}}'
            writer.write(OK + event % (len(server.asked) + 1) + b"\n" + line + b"\n")
        else:
            await lists(LIST + b"[]}")(target, writer)

    async with served(respond) as server, watching(server) as (sink, _):
        await sink.until(lambda: sum("/services" in each for each in server.asked) >= 4)
        await sink.until(lambda: sink.names() == {"web"})


def dripping(target: str, drip: bytes, otherwise: Respond) -> Respond:
    """Answers that matter come in drops, for ever."""

    async def respond(asked: str, writer: asyncio.StreamWriter) -> None:
        if target not in asked:
            return await otherwise(asked, writer)
        writer.write(OK)
        while True:
            writer.write(drip)
            await writer.drain()
            await asyncio.sleep(0.01)

    return respond


@pytest.mark.parametrize("drip", [b"x", b" \n"], ids=["one line", "empty lines"])
async def test_a_watch_that_arrives_byte_by_byte_is_replaced(drip: bytes) -> None:
    async with (
        served(dripping("resourceVersion=", drip, lists(LIST + b"[]}"))) as server,
        watching(server, replace(FAST, silence=0.3)) as (sink, _),
    ):
        await sink.until(lambda: sum("resourceVersion=" in each for each in server.asked) >= 6)
        assert sum("limit=" in each for each in server.asked) == 3, "it goes on where it was"


async def test_a_server_that_accepts_and_sends_nothing_is_given_up() -> None:
    async def silent(target: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    timing = replace(FAST, response_start=0.2)
    async with served(silent) as server, watching(server, timing) as (sink, source):
        await sink.until(lambda: "no answer in time" in source.last_error)
        server.respond = lists(LIST + b"[]}")
        await sink.until(lambda: sink.state.synced)


async def test_an_error_whose_reason_arrives_byte_by_byte_is_still_an_error() -> None:
    async def respond(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with (
        served(respond) as server,
        watching(server, replace(FAST, error_body=0.2)) as (sink, source),
    ):
        await sink.until(lambda: source.last_error.endswith(": 403"))


async def test_a_list_that_arrives_byte_by_byte_is_given_up() -> None:
    async with (
        served(dripping("limit=", b" ", lists(LIST + b"[]}"))) as server,
        watching(server, replace(FAST, initial_list=0.3)) as (sink, source),
    ):
        await sink.until(lambda: "no answer in time" in source.last_error)
        server.respond = lists(LIST + b"[]}")
        await sink.until(lambda: sink.state.synced)


async def test_a_list_in_endless_pages_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uproxy.sources.kubernetes.watcher._MOST_PAGES", 20)
    part = b'{"metadata":{"resourceVersion":"1","continue":"more"},"items":[]}'
    async with served(lists(part)) as server, watching(server) as (sink, source):
        await sink.until(lambda: "more than 20 pages" in source.last_error)
        assert not sink.state.synced


async def test_a_list_of_too_many_objects_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uproxy.sources.kubernetes.mirror._MOST_OBJECTS", 20)
    items = b",".join(b'{"metadata":{"name":"s%d"}}' % number for number in range(21))
    async with served(lists(LIST + b"[" + items + b"]}")) as server, watching(server) as both:
        sink, source = both
        await sink.until(lambda: "more than 20 objects" in source.last_error)
        assert not sink.state.synced


async def test_a_redirect_is_not_followed() -> None:
    async with served(always(LIST + b"[]}")) as elsewhere:
        place = f"Location: {elsewhere.url}/api\r\nContent-Length: 0\r\n\r\n".encode()
        async with (
            served(always(b"", b"HTTP/1.1 302 Found\r\n" + place)) as server,
            ApiClient(Access(origin="test", server=server.url, token="secret")) as api,
            api.send(Request("GET", "/api")) as answer,
        ):
            assert answer.status == 302
        assert elsewhere.asked == []
        assert b"Bearer secret" in server.heads[0]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-server\r\n\r\n", id="another protocol"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="no chunk size"
        ),
    ],
)
async def test_the_reason_for_what_is_not_http_does_not_change_with_each_request(
    answer: bytes,
) -> None:
    """Otherwise every attempt would be a line in the log."""
    async with (
        served(always(b"", answer)) as server,
        ApiClient(Access(origin="test", server=server.url)) as api,
    ):
        reasons = set[str]()
        for seconds in (301, 302):
            request = Request("GET", "/api", query={"timeoutSeconds": seconds})
            with pytest.raises(ApiUnreachable) as caught:
                async with api.send(request) as response:
                    await response.read()
            reasons.add(str(caught.value))
    (reason,) = reasons
    assert reason.startswith("the answer is not valid HTTP: ")
    assert server.url not in reason


async def test_answers_are_read_up_to_a_bound() -> None:
    async with (
        served(without_end(b"x")) as server,
        ApiClient(Access(origin="test", server=server.url)) as api,
        api.send(Request("GET", "/api")) as answer,
    ):
        with pytest.raises(ApiUnreachable, match="larger than 1 MiB"):
            await answer.read(1024 * 1024)


async def test_answers_that_unpack_to_a_hundred_times_as_much_are_bounded_too() -> None:
    bomb = gzip.compress(bytes(100_000_000), compresslevel=1)
    head = OK.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection")
    async with (
        served(always(bomb, head)) as server,
        ApiClient(Access(origin="test", server=server.url)) as api,
        api.send(Request("GET", "/api")) as answer,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(ApiUnreachable, match="larger than 8 MiB"):
                await answer.read(8 * 1024 * 1024)
            assert tracemalloc.get_traced_memory()[1] < 40_000_000
        finally:
            tracemalloc.stop()
