"""Unexpected errors: each one affects only the object, file or request that it comes from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_api.server import FakeApi
from tests.sources.kubernetes.cluster import followed, in_step, service
from tests.sources.last_known.test_fallback import until, world
from tests.sources.recorder import Recorder
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.core.backoff import Backoff
from uproxy.sources.kubernetes.mirror import Mirror
from uproxy.sources.manifests.catalog import Catalog
from uproxy.sources.manifests.file import FileContent
from uproxy.sources.manifests.source import ManifestSource, read_file

MANIFEST = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\n"


def failing_once(call: Callable[..., Any], *, on: str) -> Callable[..., Any]:
    """A function that divides by zero the first time that this is in one of its arguments."""
    left = [on]

    def failing(*arguments: Any, **named: Any) -> Any:
        if left and any(on in str(each) for each in arguments):
            left.clear()
            raise ZeroDivisionError("a surprise")
        return call(*arguments, **named)

    return failing


async def test_one_event_does_not_end_the_source(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change = Mirror.apply_change

    def raw_change(self: Mirror[Any], raw: Any) -> Any:
        return surprising(bytes(raw).decode(), self, raw)

    surprising = failing_once(lambda _, mirror, raw: change(mirror, raw), on='"odd"')
    monkeypatch.setattr(Mirror, "apply_change", raw_change)
    async with FakeApi() as server, followed(server) as (sink, source):
        server.apply(service("odd"))
        await sink.until(lambda: "unexpected" in source.last_error)
        server.apply(service("fine"))
        await sink.until(lambda: in_step(sink, server) and source.reachable)
        assert sink.names() == {"odd", "fine"}
    assert "ZeroDivisionError" in caplog.text, "with all there is to find the reason"


SOON = Backoff(initial=0.01, maximum=0.01)


async def test_one_file_does_not_end_the_source(tmp_path: Path) -> None:
    for name in ("odd", "fine"):
        (tmp_path / f"{name}.yaml").write_text(MANIFEST.replace("NAME", name))
    read: Callable[[str], FileContent | None] = failing_once(read_file, on="odd.yaml")
    sink = Recorder()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(ManifestSource([tmp_path], read=read).run(sink))
        await sink.until(lambda: sink.names() == {"fine"} and bool(sink.errors))
        assert "ZeroDivisionError" in sink.errors[0]
        (tmp_path / "odd.yaml").write_text(MANIFEST.replace("NAME", "better"))
        await sink.until(lambda: sink.names() == {"fine", "better"} and not sink.errors)
        running.cancel()


async def test_one_failed_update_does_not_end_the_source(tmp_path: Path) -> None:
    class Surprising(Catalog):
        failing = False

        def update(self, readings: Any) -> Any:
            if Surprising.failing:
                Surprising.failing = False
                raise ZeroDivisionError("a surprise")
            return super().update(readings)

    path = tmp_path / "x.yaml"
    path.write_text(MANIFEST.replace("NAME", "web"))
    sink = Recorder()
    async with asyncio.TaskGroup() as tasks:
        source = ManifestSource([tmp_path], backoff=SOON, catalog=Surprising)
        running = tasks.create_task(source.run(sink))
        await sink.until(lambda: sink.names() == {"web"})
        Surprising.failing = True
        path.write_text(MANIFEST.replace("NAME", "other"))
        await sink.until(lambda: sink.names() == {"other"} and not sink.errors)
        running.cancel()
    assert sink.calls.count("report_errors") >= 3, "none, one, none"


async def test_a_repeated_unexpected_error_has_one_traceback_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    updates: list[object] = []

    class Surprising(Catalog):
        def update(self, readings: object) -> Any:
            updates.append(readings)
            raise ZeroDivisionError("a surprise")

    sink = Recorder()
    async with asyncio.TaskGroup() as tasks:
        source = ManifestSource([tmp_path], backoff=SOON, catalog=Surprising)
        running = tasks.create_task(source.run(sink))
        await sink.until(lambda: len(updates) >= 5)
        running.cancel()
    assert sink.errors == ["manifests: : cannot be read: unexpected ZeroDivisionError"]
    assert caplog.text.count("Traceback") == 1


async def test_a_request_fails_for_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeApi() as server, ApiClient(Access(origin="test", server=server.url)) as api:
        async with api.send(Request("GET", "/api")) as answer:
            assert answer.status == 200

        async def surprise(*_: object, **__: object) -> None:
            raise ZeroDivisionError("with the password hunter2")

        monkeypatch.setattr(api._client, "call_api", surprise)
        with pytest.raises(ApiUnreachable, match=r"^unexpected ZeroDivisionError$"):
            async with api.send(Request("GET", "/api")):
                pass


async def test_the_state_on_disk_does_not_end_the_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    saved = 0

    def save(path: Path, snapshot: Any) -> None:
        nonlocal saved
        saved += 1
        if saved < 3:
            raise ZeroDivisionError("a surprise")

    def load(path: Path, *, node: str) -> None:
        raise ZeroDivisionError("a surprise")

    async with world(tmp_path, load=load, save=save) as found:
        await until(lambda: "the last-known state is ignored" in caplog.text)
        for count in range(1, 4):
            found.list("web")
            await until(lambda count=count: saved >= count)  # type: ignore[misc]
        await until(lambda: "saved again" in caplog.text)
    assert caplog.text.count("cannot be saved") == 1
