from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from tests.fake_api.kinds import SERVICES
from tests.fake_api.server import FakeApi
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.request import Request
from uproxy.control.load_balancer.ask import asking
from uproxy.control.load_balancer.status_writer import Pace, StatusWriter
from uproxy.core.allocation.decisions import Condition, Decision, ServiceEvent
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.load_balancer import ASSIGNED
from uproxy.core.cluster.objects import ObjectName, Service

RETRY = Backoff(initial=0.05, maximum=0.1)
QUICK = Pace(RETRY, RETRY)
ADDRESS = "192.0.2.10"


class Written:
    """A writer, and the cluster that it writes to and hears from at once."""

    def __init__(self, server: FakeApi, api: ApiClient, pace: Pace) -> None:
        self.server = server
        self.leading = True
        self.lags = False
        """Whether the writer hears nothing new."""
        self.events: list[tuple[str, str]] = []
        self.asked: list[Request] = []
        self.at_once = self.most_at_once = 0
        self._known: dict[ObjectName, Service] = {}
        self._plain = asking(api)
        self.writer = StatusWriter(
            self._ask,
            service=self.service,
            may_write=lambda: self.leading,
            ip_mode=lambda: "VIP",
            send_events=self._send_events,
            pace=pace,
        )

    async def _ask(self, request: Request) -> tuple[int, bytes]:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._plain(request)
        finally:
            self.at_once -= 1

    def _send_events(self, name: ObjectName, events: tuple[ServiceEvent, ...]) -> None:
        self.events += [(name.name, each.reason) for each in events]

    def service(self, name: ObjectName) -> Service | None:
        if not self.lags or name not in self._known:
            self._known[name] = msgspec.convert(self.data(name.name), Service)
        return self._known[name]

    def data(self, name: str) -> dict[str, Any]:
        return self.server.store.get(SERVICES, ("default", name)).data

    def create(self, name: str) -> None:
        self.server.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            }
        )

    def put(self, name: str, address: str = ADDRESS, *reasons: str) -> None:
        events = tuple(ServiceEvent("Normal", each, "") for each in reasons)
        self.writer.put(
            Decision(
                service=ObjectName("default", name),
                addresses=(address,) if address else (),
                pool="default" if address else "",
                condition=Condition("True", "Assigned", "") if address else None,
                events=events,
            )
        )

    def addresses(self, name: str) -> list[str]:
        balancer = self.data(name).get("status", {}).get("loadBalancer", {})
        return [each["ip"] for each in balancer.get("ingress") or ()]

    async def until_written(self, name: str, address: str = ADDRESS) -> None:
        await self.server.until(lambda: self.addresses(name) == [address])

    def overwrite(self, name: str, **annotations: str) -> None:
        before = self.data(name)
        metadata = {**before["metadata"], "annotations": annotations}
        self.server.apply({**before, "metadata": metadata})


@asynccontextmanager
async def writing(pace: Pace = QUICK) -> AsyncIterator[Written]:
    async with FakeApi() as server, ApiClient(Access(origin="test", server=server.url)) as api:
        written = Written(server, api, pace)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(written.writer.run())
            yield written
            task.cancel()


async def test_each_change_of_addresses_is_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with writing() as written:
        written.create("web")
        written.put("web")
        await written.until_written("web")
        written.writer.look_again()
        written.put("web", "")
        await written.server.until(lambda: not written.addresses("web"))
        await written.server.until(lambda: len(caplog.messages) > 1)
    assert caplog.messages == [
        "Service default/web gets 192.0.2.10",
        "Service default/web loses 192.0.2.10",
    ]


async def test_it_is_written_once_with_annotations_and_condition() -> None:
    async with writing() as written:
        written.create("web")
        written.put("web", ADDRESS, "IPAllocated")
        await written.until_written("web")
        await written.server.until(lambda: written.events)
        found = written.data("web")
        assert found["metadata"]["annotations"][ASSIGNED] == ADDRESS
        assert [each["type"] for each in found["status"]["conditions"]] == [
            "uproxy.dev/AddressAssigned"
        ]
        for _ in range(3):
            written.put("web")
        written.create("other")
        written.put("other", "192.0.2.11")
        await written.until_written("other", "192.0.2.11")
        paths = [each.path for each in written.asked]
        assert paths == [
            f"/api/v1/namespaces/default/services/{n}/status" for n in ("web", "other")
        ]
        assert written.events == [("web", "IPAllocated")]


async def test_many_are_written_a_few_at_a_time() -> None:
    async with writing() as written:
        for number in range(100):
            written.create(f"web-{number}")
            written.put(f"web-{number}", f"192.0.2.{number + 1}")
        for number in range(100):
            await written.until_written(f"web-{number}", f"192.0.2.{number + 1}")
        assert 1 < written.most_at_once <= 8
        assert len(written.asked) == 100


async def test_after_a_conflict_the_new_version_is_looked_at() -> None:
    async with writing() as written:
        written.create("web")
        written.lags = True
        written.service(ObjectName("default", "web"))
        written.overwrite("web", **{"example.com/owner": "me"})
        written.put("web", ADDRESS, "IPAllocated")
        await written.server.until(lambda: len(written.asked) >= 2)
        assert written.addresses("web") == []
        written.lags = False
        written.put("web")
        await written.until_written("web")
        assert written.data("web")["metadata"]["annotations"]["example.com/owner"] == "me"
        await written.server.until(lambda: written.events == [("web", "IPAllocated")])


async def test_who_says_that_a_service_is_not_there_may_be_wrong() -> None:
    """What stands before the API server may say so. If it is gone, its watch says that as well."""
    async with writing() as written:
        written.create("web")
        written.server.answer(503, on="services")
        written.server.answer(404, on="services")
        written.put("web", ADDRESS, "IPAllocated")
        await written.until_written("web")
        await written.server.until(lambda: not written.writer.reasons)
        assert written.events == [("web", "IPAllocated")]


async def test_one_that_cannot_be_written_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        async with writing() as written:
            bad, good = ObjectName("default", "bad"), ObjectName("default", "good")
            written.create("bad")
            written.create("good")
            written.server.answer(403, on="services/bad", times=1000)
            written.put("bad", ADDRESS, "IPAllocated")
            written.put("good", "192.0.2.11")
            await written.until_written("good", "192.0.2.11")
            await written.server.until(lambda: len(written.asked) > 5)
            assert "grant patch on services/status" in written.writer.reasons[bad]
            assert good not in written.writer.reasons
            assert written.events == []
            written.server.heal()
            await written.until_written("bad")
            await written.server.until(lambda: not written.writer.reasons)
            assert written.events == [("bad", "IPAllocated")]
    assert len(caplog.records) == 1
    assert "cannot write the status of the Service default/bad" in caplog.text


async def test_an_outage_is_waited_out_by_all_together() -> None:
    async with writing() as written:
        for number in range(20):
            written.create(f"web-{number}")
        written.server.answer(503, on="services", times=1000)
        for number in range(20):
            written.put(f"web-{number}", f"192.0.2.{number + 1}")
        await written.server.until(lambda: len(written.asked) > 20)
        assert written.writer.reasons
        written.server.heal()
        for number in range(20):
            await written.until_written(f"web-{number}", f"192.0.2.{number + 1}")
        await written.server.until(lambda: not written.writer.reasons)


async def test_no_server_is_an_outage_too() -> None:
    async with writing() as written:
        written.create("web")
        await written.server.stop()
        written.put("web")
        await written.server.until(lambda: written.writer.reasons)
        await written.server.__aenter__()
        await written.until_written("web")


async def test_a_decision_that_changes_meanwhile_is_the_one_that_is_written() -> None:
    async with writing() as written:
        written.create("web")
        written.server.answer(503, on="services", times=2)
        written.put("web")
        await written.server.until(lambda: written.asked)
        written.put("web", "192.0.2.11")
        await written.until_written("web", "192.0.2.11")


async def test_who_may_not_write_writes_nothing_and_later_what_is_left() -> None:
    async with writing() as written:
        written.create("web")
        written.create("other")
        written.leading = False
        written.put("web")
        written.put("other", "192.0.2.11")
        written.writer.remove(ObjectName("default", "other"))
        written.create("third")
        written.put("third", "192.0.2.12")
        written.leading = True
        await written.until_written("web")
        await written.until_written("third", "192.0.2.12")
        assert written.addresses("other") == []


async def test_after_clear_nothing_is_written() -> None:
    async with writing() as written:
        written.create("web")
        written.server.answer(500, on="services", times=1)
        written.put("web")
        await written.server.until(lambda: written.writer.reasons)
        written.writer.clear()
        assert not written.writer.reasons
        written.create("other")
        written.put("other", "192.0.2.11")
        await written.until_written("other", "192.0.2.11")
        assert written.addresses("web") == []


async def test_what_the_cluster_does_not_keep_is_not_written_at_once_again() -> None:
    slow = Backoff(initial=1.0, maximum=1.0)
    async with writing(Pace(slow, RETRY)) as written:
        written.create("web")
        written.put("web")
        await written.until_written("web")
        await written.server.until(lambda: written.at_once == 0)
        written.overwrite("web")
        written.server.store.apply(SERVICES, {**written.data("web"), "status": {}})
        written.put("web")
        name = ObjectName("default", "web")
        await written.server.until(lambda: "does not keep" in written.writer.reasons.get(name, ""))
        assert written.addresses("web") == []
        await written.until_written("web")
        assert len(written.asked) == 2


async def test_every_mark_goes_when_a_service_is_not_for_us_any_more() -> None:
    async with writing() as written:
        written.create("web")
        written.put("web")
        await written.until_written("web")
        written.put("web", "")
        await written.server.until(lambda: written.addresses("web") == [])
        assert not written.data("web")["metadata"].get("annotations")
        assert not written.data("web")["status"].get("conditions")


async def test_an_unexpected_error_is_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with writing() as written:
        mistake = Mock(side_effect=RuntimeError("no reason"))
        monkeypatch.setattr("uproxy.control.load_balancer.status_writer.status_patch", mistake)
        written.create("web")
        with caplog.at_level(logging.ERROR):
            written.put("web")
            await written.server.until(lambda: mistake.call_count > 1)
        assert "RuntimeError" in written.writer.reasons[ObjectName("default", "web")]
        monkeypatch.undo()
        await written.until_written("web")
    assert "cannot write the status of the Service default/web" in caplog.text
