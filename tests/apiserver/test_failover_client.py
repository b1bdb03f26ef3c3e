"""An API server at several addresses: dead ones, one that hangs, one that is another's, and one
that moves."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.apiserver.test_credentials import needs_openssl
from tests.fake_api.kinds import SLICES
from tests.fake_api.kubeconfigs import Authority, server_context
from tests.fake_api.server import FakeApi
from tests.fake_api.watching import Watching
from tests.ports import free_port
from tests.sources.kubernetes.cluster import FAST, Collector, in_step, node, service
from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import IN_CLUSTER_NAME, Candidates, candidate_at
from uproxy.apiserver.failover_client import FailoverClient, Pace
from uproxy.apiserver.request import ApiServer, Request
from uproxy.apiserver.unreachable import ApiUnreachable, NoCredentials
from uproxy.sources.kubernetes.source import KubernetesSource

PACE = Pace(head_start=0.05, patience=20.0, fresh=1000.0)
STALE = PACE._replace(fresh=0.0)
"""Asks before each request whether the server is ready."""

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    """Of an API server whose certificate does not have the IP address."""
    return server_context(authority.issue("api-server", f"DNS:{IN_CLUSTER_NAME}"))


@pytest.fixture
def access(authority: Authority) -> Access:
    """That of a Pod, at an address at which nothing answers."""
    return Access(
        origin="a test",
        in_cluster=True,
        server=f"https://127.0.0.1:{free_port()}",
        authority=authority.certificate,
    )


def address(server: FakeApi) -> str:
    return f"{server.host}:{server.port}"


def client(
    access: Access, *addresses: str, learned: tuple[str, ...] = (), pace: Pace = PACE
) -> FailoverClient:
    candidates = Candidates(access, [candidate_at(access, each, "a test") for each in addresses])
    candidates.learn(learned)
    return FailoverClient(access, candidates, pace=pace)


async def ask(api: FailoverClient) -> int:
    async with api.send(Request("GET", "/api/v1/services")) as answer:
        await answer.read()
        return answer.status


def in_use(api: FailoverClient) -> list[str]:
    return [each.server.removeprefix("https://") for each in api.addresses if each.in_use]


def reasons(api: FailoverClient) -> dict[str, str]:
    return {
        each.server.removeprefix("https://"): each.reason for each in api.addresses if each.reason
    }


@asynccontextmanager
async def silent(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that accepts connections and says nothing, at most in TLS."""
    connected: set[asyncio.StreamWriter] = set()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.add(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in connected:
            writer.close()


async def test_a_dead_address_is_skipped(access: Access, context: ssl.SSLContext) -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with FakeApi(tls=context) as server, client(access, dead, address(server)) as api:
        assert await ask(api) == 200
        assert in_use(api) == [address(server)]
        # On a busy machine, the server's answer may take so long that the next address is tried.
        assert reasons(api)[dead] == "connection refused"
        assert api.access.server == server.url
        assert await ask(api) == 200
        assert len(server.asked("/readyz")) == 1, "an answer counts for a while"


@pytest.mark.parametrize("in_tls", [False, True])
async def test_an_address_that_hangs_does_not_hold_up_the_next(
    access: Access, context: ssl.SSLContext, in_tls: bool
) -> None:
    async with (
        silent(context if in_tls else None) as hanging,
        FakeApi(tls=context) as server,
        client(access, hanging, address(server)) as api,
    ):
        assert await ask(api) == 200, "long before the patience with one address is at an end"
        assert in_use(api) == [address(server)]
        assert reasons(api)[hanging] == "no answer within 0.05 s"


async def test_packets_that_are_swallowed_hold_up_nothing(
    access: Access, context: ssl.SSLContext
) -> None:
    """A listener whose queue is full ignores SYNs, like a host that is switched off."""
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler.connect(full.getsockname())
        black_hole = f"127.0.0.1:{full.getsockname()[1]}"
        async with (
            FakeApi(tls=context) as server,
            client(access, black_hole, address(server)) as api,
        ):
            assert await ask(api) == 200
            assert in_use(api) == [address(server)]


async def test_a_server_that_comes_back_need_not_wait_for_one_that_hangs(
    access: Access, context: ssl.SSLContext
) -> None:
    """As when the API server is restarted, and nothing serves the ClusterIP."""
    restarted = FakeApi(tls=context, port=free_port())
    patient = PACE._replace(patience=1000.0)
    async with (
        silent(context) as hanging,
        client(access, address(restarted), hanging, pace=patient) as api,
        asyncio.TaskGroup() as tasks,
    ):
        asking = tasks.create_task(ask(api))
        await restarted.until(lambda: reasons(api))
        async with restarted:
            await restarted.until(asking.done)
            assert asking.result() == 200
            assert in_use(api) == [address(restarted)]


async def test_a_round_ends_when_every_address_has_failed_once(access: Access) -> None:
    """Hosts that are switched off are reported as such after seconds, each at another moment. While
    one was awaited, others were tried again, and then these were awaited, for ever."""
    calls, again = list[asyncio.StreamWriter](), asyncio.Event()

    async def refuse_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(writer)
        writer.close() if len(calls) == 1 else again.set()

    async def refuse_late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await again.wait()
        writer.close()

    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(await asyncio.start_server(accept, "127.0.0.1", 0))
            for accept in (refuse_once, refuse_late)
        ]
        addresses = [f"127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in servers]
        patient = PACE._replace(patience=1000.0)
        api = await stack.enter_async_context(client(access, *addresses, pace=patient))
        with pytest.raises(ApiUnreachable, match="no address of the API server answers"):
            await asyncio.wait_for(ask(api), 15)
        assert len(calls) == 2, "an address is not tried again while it is being tried"
        for each in calls:
            each.close()


async def test_a_server_that_is_not_ready_need_not_wait_for_one_that_hangs(
    access: Access, context: ssl.SSLContext
) -> None:
    patient = PACE._replace(patience=1000.0)
    async with (
        silent(context) as hanging,
        FakeApi(tls=context) as server,
        client(access, address(server), hanging, pace=patient) as api,
        asyncio.TaskGroup() as tasks,
    ):
        server.answer(500, on="readyz", times=1000)
        asking = tasks.create_task(ask(api))
        await server.until(asking.done)
        assert asking.result() == 200


async def test_a_server_with_the_certificate_of_another_is_never_used(
    access: Access, authority: Authority, context: ssl.SSLContext, tmp_path: Path
) -> None:
    """The authority signs certificates of kubelets as well, with other names; and an address may
    have become that of a machine in another cluster."""
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    kubelet = server_context(authority.issue("kubelet", "DNS:worker-1"))
    other_cluster = server_context(stranger.issue("other", f"DNS:{IN_CLUSTER_NAME}"))
    async with FakeApi(tls=kubelet) as first, FakeApi(tls=other_cluster) as second:
        async with client(access, address(first), address(second)) as api:
            with pytest.raises(ApiUnreachable, match="no address of the API server answers") as no:
                await ask(api)
            assert in_use(api) == []
            assert "the server's certificate is refused" in reasons(api)[address(first)]
            assert IN_CLUSTER_NAME in reasons(api)[address(first)]
            assert "the server's certificate is refused" in reasons(api)[address(second)]
            assert not no.value.refused, "the third address may answer soon"
            async with FakeApi(tls=context) as right:
                api.learn([address(right)])
                assert await ask(api) == 200
        assert first.requests == second.requests == [], "no token was sent there"


async def test_only_one_address_and_its_reason(access: Access) -> None:
    async with client(access) as api:
        with pytest.raises(ApiUnreachable) as caught:
            await ask(api)
        assert str(caught.value) == "connection refused"


async def test_the_next_one_is_used_when_the_current_one_fails_and_the_first_again_after_it(
    access: Access, context: ssl.SSLContext
) -> None:
    async with (
        FakeApi(tls=context) as first,
        FakeApi(tls=context) as second,
        client(access, address(first), address(second), pace=STALE) as api,
    ):
        assert await ask(api) == 200
        assert in_use(api) == [address(first)]
        await first.stop()
        assert await ask(api) == 200
        assert in_use(api) == [address(second)]
        await first.__aenter__()
        assert await ask(api) == 200
        assert in_use(api) == [address(second)], "it has not failed"
        await second.stop()
        assert await ask(api) == 200
        assert in_use(api) == [address(first)]


async def test_a_failure_between_two_questions_is_noticed_by_the_request(
    access: Access, context: ssl.SSLContext
) -> None:
    async with (
        FakeApi(tls=context) as first,
        FakeApi(tls=context) as second,
        client(access, address(first), address(second)) as api,
    ):
        assert await ask(api) == 200
        await first.stop()
        with pytest.raises(ApiUnreachable):
            await ask(api)
        assert await ask(api) == 200
        assert in_use(api) == [address(second)]


async def test_a_load_balancer_without_a_server_is_not_asked_again_without_a_look(
    access: Access, context: ssl.SSLContext
) -> None:
    async with (
        FakeApi(tls=context) as first,
        FakeApi(tls=context) as second,
        client(access, address(first), address(second)) as api,
    ):
        first.answer(503, on="services")
        assert await ask(api) == 503
        first.answer(503, on="readyz", times=100)
        assert await ask(api) == 200
        assert reasons(api)[address(first)] == "not ready (HTTP 503)"


async def test_a_server_that_refuses_the_credentials_is_left_for_one_that_accepts_them(
    access: Access, context: ssl.SSLContext
) -> None:
    """As when one of the control-plane nodes has another key for the tokens of service accounts,
    or cannot reach the webhook that it asks about tokens."""
    async with (
        FakeApi(tls=context) as first,
        FakeApi(tls=context) as second,
        client(access, address(first), address(second), pace=STALE) as api,
    ):
        first.answer(401, times=1000)
        assert await ask(api) == 200
        assert in_use(api) == [address(second)]
        assert reasons(api)[address(first)] == "the credentials are refused (HTTP 401)"
        second.answer(401, times=1000)
        assert await ask(api) == 401, "if all refuse them, the answer says so"


async def test_a_server_that_is_not_ready_is_better_than_none(
    access: Access, context: ssl.SSLContext
) -> None:
    """As while etcd is away, when each server answers 500."""
    async with FakeApi(tls=context) as server, client(access, address(server)) as api:
        server.answer(500, on="readyz", times=100)
        assert await ask(api) == 200
        assert in_use(api) == [address(server)]


async def test_a_server_that_stops_is_left_before_it_closes(
    access: Access, context: ssl.SSLContext
) -> None:
    async with (
        FakeApi(tls=context) as first,
        FakeApi(tls=context) as second,
        client(access, address(first), address(second), pace=STALE) as api,
    ):
        assert await ask(api) == 200
        first.answer(500, on="readyz", times=100)
        assert await ask(api) == 200
        assert in_use(api) == [address(second)]


async def test_requests_at_the_same_time_try_the_addresses_once(
    access: Access, context: ssl.SSLContext
) -> None:
    async with FakeApi(tls=context) as server, client(access, address(server)) as api:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask(api)) for _ in range(5)]
        assert [each.result() for each in asking] == [200] * 5
        assert len(server.asked("/readyz")) == 1


async def test_requests_at_the_same_time_fail_together(
    access: Access, context: ssl.SSLContext
) -> None:
    async def failure(api: FailoverClient) -> str:
        with pytest.raises(ApiUnreachable) as caught:
            await ask(api)
        return str(caught.value)

    async with FakeApi(tls=context) as server, client(access, address(server)) as api:
        server.answer(503, on="readyz", times=1)
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(failure(api)) for _ in range(5)]
        reasons = {each.result() for each in asking}
        assert len(reasons) == 1
        assert f"{address(server)}: not ready (HTTP 503)" in reasons.pop()


async def test_without_credentials_no_address_is_blamed(
    access: Access, context: ssl.SSLContext, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    async with FakeApi(tls=context) as server:
        api = client(replace(access, token_file=token), address(server), pace=STALE)
        async with api:
            with pytest.raises(NoCredentials, match=f"{token}: no such file"):
                await ask(api)
            assert reasons(api) == {}
            token.write_text("secret")
            assert await ask(api) == 200
            assert server.requests[-1].headers["Authorization"] == "Bearer secret"


async def test_an_authority_that_is_gone_is_a_reason(
    access: Access, authority: Authority, context: ssl.SSLContext, tmp_path: Path
) -> None:
    copy = tmp_path / "ca.crt"
    copy.write_bytes(authority.certificate.read_bytes())
    async with FakeApi(tls=context) as server:
        dead = f"127.0.0.1:{free_port()}"
        async with client(replace(access, authority=copy), dead, address(server)) as api:
            copy.unlink()
            with pytest.raises(ApiUnreachable, match=f"{copy}: no such file"):
                await ask(api)
            copy.write_bytes(authority.certificate.read_bytes())
            assert await ask(api) == 200


@asynccontextmanager
async def followed(api: FailoverClient) -> AsyncIterator[tuple[Collector, KubernetesSource]]:
    """A source that learns where the API servers are, as the program does."""
    sink = Collector()
    async with api:
        source = KubernetesSource(api, node_name="here", timing=FAST)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(source.run(sink))
            learning = tasks.create_task(_learn(api, sink))
            try:
                yield sink, source
            finally:
                following.cancel()
                learning.cancel()


async def _learn(api: FailoverClient, sink: Collector) -> None:
    while True:
        sink.state.take_dirty()
        api.learn(sink.state.api_servers)
        await asyncio.sleep(0.005)


def kubernetes(server: FakeApi) -> dict[str, object]:
    """What an API server writes about itself. Here each has a port of its own, and so a slice."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"kubernetes-{server.port}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": server.port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [server.host], "conditions": {"ready": True}}],
    }


async def test_control_plane_nodes_that_are_replaced_one_by_one(
    access: Access, context: ssl.SSLContext
) -> None:
    """At the end, nothing answers at the address that was known at the start."""
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(FakeApi(tls=context))
        old.apply(node("here"), kubernetes(old))
        api = client(access, address(old))
        sink, source = await stack.enter_async_context(followed(api))
        await sink.until(lambda: source.reachable)
        for generation in range(3):
            new = await stack.enter_async_context(FakeApi(tls=context, same_cluster_as=old))
            new.apply(kubernetes(new))
            await sink.until(partial(_knows, api, new))
            new.delete(SLICES, f"kubernetes-{old.port}")
            await sink.until(partial(in_step, sink, new))
            await old.stop()
            new.apply(service(f"s{generation}"))
            await sink.until(partial(in_step, sink, new))
            assert api.access.server == new.url
            old = new
        assert sink.names() == {"s0", "s1", "s2"}
        formers = [each for each in api.addresses if each.former]
        assert len(formers) == 2, "the first one was given, and the last one is in use"


async def test_the_cluster_ip_is_left_for_an_api_server(
    access: Access, context: ssl.SSLContext
) -> None:
    """As soon as the cluster has named one, the watches move there."""
    async with FakeApi(tls=context) as behind, FakeApi(tls=context, same_cluster_as=behind) as real:
        cluster_ip = replace(access, server=behind.url, tls_server_name=IN_CLUSTER_NAME)
        real.apply(node("here"))
        async with followed(client(cluster_ip)) as (sink, source):
            await sink.until(lambda: source.reachable and len(behind.watches) == 3)
            real.apply(kubernetes(real))
            await sink.until(lambda: _knows(source.api, real))
            behind.order(Watching.close, on="nodes")
            await sink.until(lambda: len(real.watches) == 3 and not behind.watches)
            assert (source.reachable, source.last_error) == (True, ""), "nothing was lost"


async def test_a_server_that_falls_silent_does_not_mean_that_none_answers(
    access: Access, context: ssl.SSLContext
) -> None:
    """Claims are released if no API server answers right after them, so the death of one of several
    must not look like that. The address in use is not asked whether it is ready when it has
    answered just now."""
    answered = asyncio.Event()

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        while await reader.readuntil(b"\r\n\r\n") and not answered.is_set():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            answered.set()

    connected = list[asyncio.StreamWriter]()
    dying = await asyncio.start_server(answer_once, "127.0.0.1", 0, ssl=context)
    async with (
        dying,
        FakeApi(tls=context) as server,
        client(access, f"127.0.0.1:{dying.sockets[0].getsockname()[1]}", address(server)) as api,
    ):
        source = KubernetesSource(api, node_name="here", timing=FAST)
        assert await source.answers(patience=0.05)
        assert answered.is_set(), "it was the address in use"
        assert in_use(api) == [address(server)]
        for each in connected:
            each.close()


def _knows(api: ApiServer, server: FakeApi) -> bool:
    return server.url in {each.server for each in api.addresses}
