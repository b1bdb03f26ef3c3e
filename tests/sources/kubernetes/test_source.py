"""Lists and watches through everything that a server and a network may do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import thread_time
from typing import Any

import pytest

from tests.fake_api.kinds import NODES, SERVICES
from tests.fake_api.server import FakeApi
from tests.fake_api.store import ApiError
from tests.fake_api.watching import Watching, WatchList, line
from tests.sources.kubernetes.cluster import FAST, endpointslice, followed, in_step, node, service
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.objects import TO_BE_DELETED_TAINT, Node, ObjectName
from uproxy.sources.kubernetes.resources import resources
from uproxy.sources.kubernetes.retry_schedule import Spacing
from uproxy.sources.kubernetes.timing import Timing

WEB = service("web")
NEVER = Backoff(initial=3600.0, maximum=3600.0)


async def test_everything_that_this_node_needs_and_nothing_else() -> None:
    async with FakeApi() as server:
        other = service("other")
        other["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "cilium"}
        server.apply(WEB, other, service("headless", clusterIP="None"), node("here"), node("there"))
        server.apply(endpointslice("web", "192.0.2.1"))
        server.apply(endpointslice("headless", **{"service.kubernetes.io/headless": ""}))
        async with followed(server) as (sink, source):
            assert sink.names("services") == {"web"}
            assert sink.names("endpointslices") == {"web-1"}
            assert sink.names("node") == {"here", "there"}, "their addresses are not for Services"
            assert sink.state.node.known
            assert source.reachable
            assert source.last_error == ""


def test_services_of_a_proxy_name() -> None:
    selectors = {each.source: each.labels for each in resources("here", "mine")}
    assert selectors["services"] == "service.kubernetes.io/service-proxy-name=mine"


async def test_changes_arrive_in_order_and_once() -> None:
    async with FakeApi() as server, followed(server) as (sink, _):
        server.apply(WEB)
        server.apply(service("web", ports=[{"port": 81}]))
        server.apply(service("web", ports=[{"port": 81}]))  # the same: not a change
        server.delete(SERVICES, "web")
        server.apply(node("here", taints=[{"key": "x"}]))
        await sink.until(lambda: sink.state.node.taints == ("x",))
        await sink.until(lambda: not sink.names())
        assert [each for each in sink.calls if "services" in each] == [
            "replace services 0",
            "apply services default/web",
            "apply services default/web",
            "remove services default/web",
        ]


async def test_deleted_node_is_not_known_any_more() -> None:
    async with FakeApi() as server:
        server.apply(node("here"))
        async with followed(server) as (sink, _):
            server.delete(NODES, "here")
            await sink.until(lambda: not sink.state.node.known)


async def test_of_other_nodes_only_addresses_arrive_and_only_changes() -> None:
    """A Node of 15 kB says every five minutes that it lives."""
    there = node("there", unschedulable=True)
    there["metadata"]["labels"] = {"zone": "b"}
    there["status"] = {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]}
    async with FakeApi() as server:
        server.apply(node("here"), there)
        async with followed(server) as (sink, _):
            assert sink.state.hosts.host_of("192.0.2.2") == "an address of node there"
            [kept] = [each for each in sink.state.all_objects() if each.key.name == "there"]
            assert isinstance(kept, Node)
            assert (kept.metadata.labels, kept.spec.unschedulable) == (None, False)
            sink.calls.clear()
            server.apply({**there, "spec": {"taints": [{"key": "a heartbeat"}]}})
            moved = [{"type": "InternalIP", "address": "192.0.2.3"}]
            server.apply({**there, "status": {"addresses": moved}})
            await sink.until(lambda: sink.state.hosts.host_of("192.0.2.3") != "")
            assert sink.calls == ["apply node there"]


async def test_labels_of_other_nodes_and_whether_their_network_is_there() -> None:
    def there(zone: str, unavailable: str, ready: str, beat: str = "") -> dict[str, Any]:
        said = {"NetworkUnavailable": unavailable, "Ready": ready}
        conditions = [
            {"type": kind, "status": status, "lastHeartbeatTime": beat}
            for kind, status in said.items()
        ]
        metadata = {"name": "there", "labels": {"zone": zone}, "annotations": {"beat": beat}}
        return {**node("there"), "metadata": metadata, "status": {"conditions": conditions}}

    async with FakeApi() as server:
        server.apply(node("here"), there("a", "False", "True"))
        async with followed(server, node_labels=True) as (sink, _):
            seen = list[tuple[Any, bool]]()
            sink.calls.clear()
            server.apply(there("a", "False", "Unknown", beat="2"))
            for zone, unavailable in (("b", "False"), ("b", "True")):
                server.apply(there(zone, unavailable, "True"))
                await sink.until(lambda: len(sink.calls) > len(seen))
                [kept] = [each for each in sink.state.all_objects() if each.key.name == "there"]
                assert isinstance(kept, Node)
                assert kept.metadata.annotations is None
                seen.append((kept.metadata.labels, kept.network_unavailable))
    assert sink.calls == ["apply node there"] * 2, "a heartbeat is no change"
    assert seen == [({"zone": "b"}, False), ({"zone": "b"}, True)]


async def test_that_other_nodes_are_about_to_go() -> None:
    tainted = {**node("there"), "spec": {"taints": [{"key": TO_BE_DELETED_TAINT}]}}
    deleted = node("other")
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    async with FakeApi() as server:
        server.apply(node("here"), tainted, deleted, node("usual"))
        async with followed(server) as (sink, _):
            nodes = [each for each in sink.state.all_objects() if isinstance(each, Node)]
    assert {each.key.name for each in nodes if each.leaving} == {"there", "other"}


async def test_a_node_that_does_not_exist_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeApi() as server:
        server.apply(node("there"))
        async with followed(server):
            pass
    assert "the cluster has no node here" in caplog.text


async def test_what_no_longer_matches_the_selector_goes() -> None:
    async with FakeApi() as server:
        server.apply(WEB)
        async with followed(server) as (sink, _):
            relabelled = service("web")
            relabelled["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "x"}
            server.apply(relabelled)
            await sink.until(lambda: not sink.names())
            server.apply(service("web"))
            await sink.until(lambda: sink.names() == {"web"})


@pytest.mark.parametrize("how", ["error-event", "bad-request", "plain-watch", "plain-list"])
async def test_server_without_watch_list_is_asked_once(how: WatchList) -> None:
    async with FakeApi() as server:
        server.watch_list = how
        server.apply(*(service(f"web-{number}") for number in range(3)))
        async with followed(server) as (sink, source):
            assert len(sink.names()) == 3
            server.expire()  # All is listed anew.
            server.order(Watching.close)
            await sink.until(lambda: sink.calls.count("replace services 3") == 2)
            assert len(server.asked("/services", sendInitialEvents="true")) == 1
            assert source.last_error == "", "a server without it is nothing to complain about"
            server.apply(service("later"))
            await sink.until(lambda: "later" in sink.names())


async def test_endpoints_before_services() -> None:
    async with FakeApi() as server:
        server.apply(WEB, endpointslice("web", "192.0.2.1"))
        async with followed(server) as (sink, _):
            calls = [each for each in sink.calls if "node" not in each]
            assert calls == [
                "apply endpointslices default/web-1",
                "replace endpointslices 1",
                "apply services default/web",
                "replace services 1",
            ]


async def test_list_in_pages() -> None:
    async with FakeApi() as server:
        server.watch_list = "bad-request"
        server.apply(*(service(f"web-{number:04}") for number in range(1200)))
        async with followed(server) as (sink, _):
            assert len(sink.names()) == 1200
            assert len(server.asked("/services", limit="500")) == 3
            assert "replace services 1200" in sink.calls


async def test_list_that_expires_while_it_is_read_begins_anew() -> None:
    async with FakeApi() as server:
        server.watch_list = "bad-request"
        server.apply(*(service(f"web-{number:04}") for number in range(1200)))
        seen: list[str] = []

        class Expiring(dict[str, Any]):
            def __setitem__(self, key: str, value: Any) -> None:
                if not seen:
                    seen.append(key)
                else:
                    super().__setitem__(key, value)

        server._pages = Expiring()
        async with followed(server) as (sink, source):
            assert seen, "a part has expired"
            assert len(sink.names()) == 1200
            assert source.last_error == ""


async def _break(server: FakeApi, how: Callable[[Watching], Awaitable[None]]) -> None:
    await server.until(lambda: len(server.watches) == 3)
    assert server.order(how) == 3


async def cut_cleanly(watching: Watching) -> None:
    await watching.cut(reset=False)


async def cut_by_reset(watching: Watching) -> None:
    await watching.cut(reset=True)


async def send_garbage(watching: Watching) -> None:
    await watching.response.write(b'{"type": "ADDED", "object": \n')


async def send_binary(watching: Watching) -> None:
    await watching.response.write(b'{"type":"ADDED","object":"\xff\xfe"}\n')


async def send_nonsense(watching: Watching) -> None:
    await watching.response.write(b"[1, 2]\n")


async def gone(watching: Watching) -> None:
    await watching.send_error(ApiError(410, "Expired", "too old resource version: 1 (2)"))


async def internal_error(watching: Watching) -> None:
    await watching.send_error(ApiError(500, "InternalError", "etcd has no leader"))


async def too_many(watching: Watching) -> None:
    await watching.send_error(ApiError(429, "TooManyRequests", "storage is reinitializing"))


FAULTS = [
    pytest.param(Watching.close, id="closed"),
    pytest.param(Watching.reset, id="reset"),
    pytest.param(cut_cleanly, id="cut in a line"),
    pytest.param(cut_by_reset, id="reset in a line"),
    pytest.param(send_garbage, id="line that is not JSON"),
    pytest.param(send_binary, id="line that is not UTF-8"),
    pytest.param(send_nonsense, id="JSON that is no event"),
    pytest.param(gone, id="410 as an event"),
    pytest.param(internal_error, id="500 as an event"),
    pytest.param(too_many, id="429 as an event"),
    pytest.param(Watching.replay, id="old events again"),
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_of_a_watch_changes_nothing_and_loses_nothing(
    fault: Callable[[Watching], Awaitable[None]],
) -> None:
    async with FakeApi() as server:
        server.apply(WEB, service("doomed"), endpointslice("web", "192.0.2.1"), node("here"))
        async with followed(server) as (sink, source):
            server.apply(service("web", ports=[{"port": 81}]))
            server.delete(SERVICES, "doomed")
            await sink.until(lambda: in_step(sink, server))
            sink.state.take_dirty()
            before = dict(sink.objects["services"])
            await _break(server, fault)
            server.apply(service("after"))
            await sink.until(lambda: "after" in sink.names() and source.reachable)
            after = dict(sink.objects["services"])
            assert after.pop(ObjectName("default", "after")) is not None
            assert all(after[name] is before[name] for name in before), "the same objects"
            assert sink.state.take_dirty() == {ObjectName("default", "after")}
            assert in_step(sink, server)


@pytest.mark.parametrize("as_status", [True, False], ids=["as a status", "as an event"])
async def test_history_that_is_too_short(as_status: bool) -> None:
    async with FakeApi() as server:
        server.gone_as_status = as_status
        server.apply(*(service(f"web-{number}") for number in range(10)))
        async with followed(server) as (sink, source):
            sink.state.take_dirty()
            await server.stop()
            server.delete(SERVICES, "web-3")
            server.apply(service("web-4", ports=[{"port": 81}]), service("new"))
            server.store.forget()
            async with server:
                await sink.until(lambda: source.reachable and in_step(sink, server))
                assert sink.state.take_dirty() == {
                    ObjectName("default", name) for name in ("web-3", "web-4", "new")
                }


async def test_watch_goes_on_where_a_bookmark_was() -> None:
    async with FakeApi(bookmark_period=0.01) as server:
        server.apply(WEB)
        async with followed(server) as (sink, source):
            # Others' objects move the version on; without bookmarks the watch would be outdated.
            for number in range(20):
                server.apply(node(f"other-{number}"))
            version = server.store.version
            await asyncio.sleep(0.05)
            server.store.forget()
            server.store.version -= 1
            server.order(Watching.close)
            await server.until(
                lambda: len(server.asked("/services", resourceVersion=str(version))) == 1
            )
            await sink.until(lambda: source.reachable)
            assert sink.calls.count("replace services 1") == 1


async def test_watch_is_asked_for_with_bookmarks_and_an_end() -> None:
    async with FakeApi() as server, followed(server, replace(FAST, watch_lifetime=300.0)):
        (asked,) = server.asked("/services")
        assert asked.query["allowWatchBookmarks"] == "true"
        assert 300 <= int(asked.query["timeoutSeconds"]) <= 600
        assert asked.query["labelSelector"] == "!service.kubernetes.io/service-proxy-name"
        assert asked.query["fieldSelector"] == "spec.clusterIP!=None"


async def test_watch_that_ends_as_agreed_goes_on_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="uproxy")
    async with FakeApi() as server:
        server.apply(WEB, node("here"))
        async with followed(server, replace(FAST, watch_lifetime=0.6)) as (sink, source):
            await server.until(lambda: len(server.asked("/services", watch="true")) >= 3)
            server.apply(service("after"))
            await sink.until(lambda: "after" in sink.names())
            assert sink.calls.count("replace services 1") == 1
            assert source.last_error == ""
    assert len(caplog.records) == 2, caplog.text


async def test_peer_that_is_silent_for_too_long_is_given_up() -> None:
    async with FakeApi(bookmark_period=1000) as server:
        timing = replace(FAST, watch_lifetime=0.6, overtime=0.2)
        async with followed(server, timing) as (sink, source):
            server.order(Watching.stall)
            await sink.until(lambda: "did not end a watch" in source.last_error)
            server.apply(WEB)
            await sink.until(lambda: sink.names() == {"web"})


@pytest.mark.parametrize("code", [401, 403, 429, 500, 503, 504])
@pytest.mark.parametrize("watch_list", ["served", "bad-request"])
async def test_errors_at_the_start_are_waited_out(code: int, watch_list: WatchList) -> None:
    async with FakeApi() as server:
        server.watch_list = watch_list
        server.apply(WEB)
        server.answer(code, on="/services", times=3)
        server.answer(code, on="/nodes", times=2)
        async with followed(server) as (sink, source):
            assert sink.names() == {"web"}
            assert source.reachable


async def test_forbidden_is_named() -> None:
    async with FakeApi() as server:
        server.apply(WEB)
        server.answer(403, on="/endpointslices", times=1000)
        async with followed(server, synced=False) as (sink, source):
            await sink.until(lambda: "endpointslices: 403" in source.last_error)
            await sink.until(lambda: sink.names() == {"web"})
            assert not sink.state.synced
            assert not source.reachable
            server.heal()
            await sink.until(lambda: source.reachable and sink.state.synced)


async def test_retry_after_is_respected() -> None:
    async with FakeApi() as server:
        server.answer(429, on="/services", retry_after=1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with followed(server):
            assert loop.time() - began >= 1


async def test_server_that_is_restarted_is_followed_again_by_all_at_once() -> None:
    """With the real times, but for those that would show that a failure is held against others."""
    timing = Timing(backoff=NEVER, shortest_watch=0.0)
    async with FakeApi(bookmark_period=1000) as server:
        server.apply(WEB, endpointslice("web", "192.0.2.1"), node("here"))
        async with followed(server, timing) as (sink, source):
            await server.until(lambda: len(server.watches) == 3)
            server.order(Watching.close)
            await server.stop()
            await sink.until(lambda: "connection refused" in source.last_error)
            server.apply(service("new"), endpointslice("new"), node("here", taints=[{"key": "x"}]))
            server.store.forget()
            server.forbids = True
            server.requests.clear()
            async with server:
                await server.until(lambda: len(server.requests) >= 3)
                server.forbids = False
                refused = len(server.requests)
                await sink.until(lambda: source.reachable and in_step(sink, server))
                for part in ("/services", "/endpointslices", "/nodes"):
                    asked = [each for each in server.requests[refused:] if part in each.path]
                    how = ["sendInitialEvents" in each.query for each in asked]
                    assert how == [False, True], "too old (410), then all"


async def test_success_of_one_kind_ends_the_wait_of_others() -> None:
    spacing = Spacing(first=3600.0, unreachable=3600.0, refusing=3600.0, together=0.0)
    timing = replace(FAST, spacing=spacing, shortest_watch=0.0)
    async with FakeApi() as server, followed(server, timing) as (sink, source):
        await server.until(lambda: len(server.watches) == 3)
        server.answer(403, on="/services")
        server.answer(503, on="/nodes")
        server.order(Watching.close, on="services")
        server.order(Watching.close, on="nodes")
        await sink.until(lambda: len(source.reachability.troubles) == 2)
        server.order(Watching.close, on="endpointslices")
        await sink.until(lambda: source.reachable)


async def test_watch_that_is_silent_is_replaced() -> None:
    timing = replace(FAST, silence=0.5, healthy_after=0.1)
    async with FakeApi(bookmark_period=0.05) as server, followed(server, timing) as (sink, source):
        server.order(Watching.stall)
        await server.until(lambda: len(server.asked("/services", watch="true")) >= 2)
        server.apply(WEB)
        await sink.until(lambda: sink.names() == {"web"})
        assert sink.calls.count("replace services 0") == 1, "it goes on where it was"
        assert source.last_error == "", "nothing is wrong"


async def test_a_server_that_was_restored_from_a_backup_is_listed_again() -> None:
    """Its versions begin again where they were. A watch from a version of before that, which lies
    in its future now, brings neither changes nor bookmarks."""
    timing = replace(FAST, silence=0.5, healthy_after=0.1)
    async with FakeApi(bookmark_period=0.05) as server, followed(server, timing) as (sink, source):
        server.apply(WEB)
        backup = server.store.backup()
        for number in range(20):
            server.apply(service(f"later-{number}"))
        await sink.until(lambda: len(sink.names()) == 21)
        await server.stop()
        server.store.restore(backup)
        await server.__aenter__()
        await sink.until(lambda: sink.names() == {"web"})
        server.apply(service("after"))
        await sink.until(lambda: sink.names() == {"web", "after"})
        await sink.until(lambda: source.reachable)


async def test_a_quiet_server_without_bookmarks_is_listed_less_and_less() -> None:
    """A server need not send any. One that has just started does not until something has changed or
    etcd has reported its progress, which may be minutes later."""
    timing = replace(FAST, silence=0.02, healthy_after=0.01)
    async with (
        FakeApi(bookmark_period=1000.0) as server,
        followed(server, timing) as (sink, source),
    ):
        server.apply(WEB)
        await sink.until(lambda: sink.names() == {"web"})
        await server.until(lambda: len(server.asked("/services", watch="true")) >= 80)
        lists = len(server.asked("/services", sendInitialEvents="true"))
        assert lists <= 7, "after 1, 2, 4, 8, 16 and 32 watches that stayed silent"
        assert source.last_error == "", "nothing is wrong"


async def test_a_server_that_ends_every_watch_is_asked_less_and_less() -> None:
    async with FakeApi() as server:
        backoff = Backoff(initial=0.05, maximum=10.0)
        async with followed(server, replace(FAST, shortest_watch=1.0, backoff=backoff)) as (
            sink,
            source,
        ):
            server.watch_limit = 0.0
            server.order(Watching.close)
            began = asyncio.get_running_loop().time()
            await server.until(lambda: len(server.asked("/services")) == 6)
            # At once, then after 0.1, 0.2, 0.4 s.
            assert asyncio.get_running_loop().time() - began >= 0.65
            assert "ended a watch at once" in source.last_error
            server.watch_limit = 10.0
            await sink.until(lambda: source.reachable)


async def test_server_that_is_away_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="uproxy")
    async with FakeApi() as server:
        server.apply(WEB, node("here"))
        async with followed(server) as (sink, source):
            await server.stop()
            await sink.until(lambda: "refused" in source.last_error)
            assert not source.reachable
            assert sink.names() == {"web"}, "what was known stays"
            server.apply(service("meanwhile"))
            async with server:
                await sink.until(lambda: source.reachable and "meanwhile" in sink.names())
    messages = [each.getMessage() for each in caplog.records]
    assert sum("watching the cluster" in each for each in messages) == 2
    assert sum("lost the cluster" in each for each in messages) == 1
    assert sum(" again, after " in each for each in messages) == 1
    assert len(messages) <= 7, messages


async def test_object_that_cannot_be_used_is_an_error() -> None:
    async with FakeApi() as server:
        broken = service("x", ports=[{"port": "http"}])
        server.apply(WEB, broken)
        async with followed(server) as (sink, _):
            assert sink.names() == {"web"}
            (error,) = sink.errors["services"]
            assert error.startswith("Service default/x: spec.ports[0].port: expected int")
            server.apply(service("x"))
            await sink.until(lambda: sink.names() == {"web", "x"})
            await sink.until(lambda: not sink.errors["services"])
            good = sink.objects["services"][ObjectName("default", "x")]

            server.apply(broken)
            await sink.until(lambda: sink.errors["services"])
            assert sink.objects["services"][ObjectName("default", "x")] is good, "last good one"
            server.expire()
            server.order(Watching.close)
            await sink.until(lambda: sink.calls.count("replace services 2") == 1)
            assert sink.objects["services"][ObjectName("default", "x")] is good, "after a list too"
            assert sink.errors["services"]

            server.delete(SERVICES, "x")
            await sink.until(lambda: not sink.errors["services"])
            assert sink.names() == {"web"}


async def test_unknown_events_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async def unknown(watching: Watching) -> None:
        await watching.send(("RENAMED", b"{}"), ("RENAMED", b"{}"))

    async with FakeApi() as server, followed(server) as (sink, source):
        server.order(unknown)
        server.apply(WEB)
        await sink.until(lambda: sink.names() == {"web"})
        assert source.reachable
    told = [each for each in caplog.records if "RENAMED" in each.getMessage()]
    assert len(told) == 3, "once for each resource"


async def test_event_of_several_megabytes() -> None:
    async with FakeApi() as server, followed(server) as (sink, _):
        large = service("large")
        large["metadata"]["annotations"] = {"text": "x" * 5_000_000}
        server.apply(large)
        await sink.until(lambda: sink.names() == {"large"})


async def test_old_versions_do_not_come_back() -> None:
    async with FakeApi() as server:
        server.apply(WEB)
        old = server.store.get(SERVICES, ("default", "web")).raw
        server.apply(service("web", ports=[{"port": 81}]))
        async with followed(server) as (sink, _):

            async def send_old(watching: Watching) -> None:
                await watching.response.write(line("MODIFIED", old) + line("DELETED", old))

            server.order(send_old, on="services")
            server.apply(service("after"))
            await sink.until(lambda: "after" in sink.names())
            assert in_step(sink, server)
            server.delete(SERVICES, "web")
            await sink.until(lambda: sink.names() == {"after"})
            server.order(send_old, on="services")
            server.apply(service("last"))
            await sink.until(lambda: sink.names() == {"after", "last"})


async def test_large_cluster_does_not_stall_the_loop() -> None:
    async with FakeApi(history=10) as server:
        server.apply(*(service(f"web-{number}") for number in range(2000)))
        longest = 0.0
        done = False

        async def measure() -> None:
            nonlocal longest
            while not done:
                before = thread_time()
                await asyncio.sleep(0)
                longest = max(longest, thread_time() - before)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(measure())
            async with followed(server) as (sink, _):
                assert len(sink.names()) == 2000
            done = True
        # Of the processor's time, as other programs may take theirs. Generous, since the fake
        # server shares the loop; a list decoded in one go takes longer.
        assert longest < 0.5
