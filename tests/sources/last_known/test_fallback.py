"""The last-known state, served in place of a source until the source has listed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.builders import endpoint_slice, service
from uproxy.core.cluster.objects import EndpointSlice, Object, ObjectName, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.status import ObjectStatus
from uproxy.host.threads import run_to_completion
from uproxy.sources.last_known.fallback import LastKnownFallback, Pace
from uproxy.sources.last_known.snapshot import FILE_NAME, Snapshot, load, save

SOURCE, SLICES = "services", "slices"
PATIENCE = 20.0
AT_ONCE = Pace(grace=0.0, period=0.0)
NEVER = Pace(grace=3600.0, period=3600.0)
SAVED_AT = 1700000000.0
NOTE = (
    "serving the last-known state of 2023-11-14T22:13:20Z: the API server has not answered yet",
)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 (files and threads set no event)
            await asyncio.sleep(0.001)


class State:
    """A sink that keeps a real ClusterState."""

    def __init__(self) -> None:
        self.cluster = ClusterState([SOURCE, SLICES])
        self.errors: list[ObjectStatus] = []

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        self.cluster.replace(source, objects)

    def apply(self, source: str, obj: Object) -> None:
        self.cluster.apply(source, obj)

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        self.cluster.remove(source, kind, key)

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        self.errors = list(errors)

    def accept_last_known(self, source: str) -> None:
        self.cluster.accept_last_known(source)

    def names(self) -> set[str]:
        return {name.name for name in self.cluster.service_names()}


class World:
    def __init__(self, directory: Path, pace: Pace, **storage: Any) -> None:
        self.file = directory / FILE_NAME
        self.state = State()
        self.fallback = LastKnownFallback(
            self.state,
            sources={Service: SOURCE, EndpointSlice: SLICES},
            directory=directory,
            node="here",
            objects=self.state.cluster.all_objects,
            in_thread=run_to_completion,
            pace=pace,
            wall=lambda: SAVED_AT,
            **storage,
        )

    def list(self, *names: str) -> None:
        self.fallback.replace(SOURCE, [service(name) for name in names])
        self.fallback.replace(SLICES, [])

    def saved(self) -> set[str]:
        snapshot = load(self.file, node="here")
        return set() if snapshot is None else {obj.key.name for obj in snapshot.objects}

    async def until_saved(self, *names: str) -> None:
        await until(lambda: self.saved() == set(names))

    async def until_served(self) -> None:
        await until(lambda: self.fallback.serving_since is not None)


@asynccontextmanager
async def world(directory: Path, pace: Pace = AT_ONCE, **storage: Any) -> AsyncIterator[World]:
    """`storage`: `load` and `save` in the place of the real ones."""
    made = World(directory, pace, **storage)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(made.fallback.run())
        yield made
        task.cancel()


def save_state(directory: Path, *names: str, node: str = "here") -> None:
    objects: list[Object] = [service(name) for name in names]
    save(directory / FILE_NAME, Snapshot(node, SAVED_AT, objects))


async def test_last_known_state_is_served_and_takes_nothing_away(tmp_path: Path) -> None:
    save_state(tmp_path, *(f"s{number}" for number in range(500)))
    async with world(tmp_path) as here:
        await here.until_served()
        assert len(here.state.names()) == 500
        assert here.state.cluster.servable
        assert not here.state.cluster.synced
        assert here.fallback.notes == NOTE


async def test_the_source_takes_over(tmp_path: Path) -> None:
    save_state(tmp_path, "kept", "gone")
    async with world(tmp_path) as here:
        await here.until_served()
        kept = here.state.cluster.service(ObjectName("default", "kept"))
        here.list("kept", "new")
        assert here.state.names() == {"kept", "new"}
        assert here.state.cluster.service(ObjectName("default", "kept")) is kept
        assert here.state.cluster.synced
        assert here.fallback.notes == ()
        await here.until_saved("kept", "new")


async def test_what_the_source_lists_in_time_is_all_that_is_served(tmp_path: Path) -> None:
    save_state(tmp_path, "old")
    async with world(tmp_path, NEVER) as here:
        here.list("new")
        await here.until_saved("new")
        assert here.state.names() == {"new"}
        assert here.fallback.serving_since is None


async def test_one_kind_may_be_known_before_another(tmp_path: Path) -> None:
    objects: list[Object] = [service("web"), endpoint_slice("web")]
    save(tmp_path / FILE_NAME, Snapshot("here", SAVED_AT, objects))
    async with world(tmp_path) as here:
        here.fallback.replace(SOURCE, [service("dns")])
        await here.until_served()
        assert here.state.names() == {"dns"}
        assert len(here.state.cluster.slices_of(ObjectName("default", "web"))) == 1
        assert here.state.cluster.servable
        here.fallback.replace(SLICES, [])
        assert here.fallback.serving_since is None
        await here.until_saved("dns")


async def test_changes_are_saved(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.list("a", "b")
        await here.until_saved("a", "b")
        here.fallback.apply(SLICES, endpoint_slice("a"))
        await here.until_saved("a", "b", "a-1")
        here.fallback.remove(SOURCE, Service, ObjectName("default", "b"))
        await here.until_saved("a", "a-1")


async def test_a_change_that_waits_to_be_saved_is_saved_at_the_end(tmp_path: Path) -> None:
    async with world(tmp_path, NEVER) as here:
        here.list("a")
        await here.until_saved("a")
        here.fallback.apply(SOURCE, service("b"))
    assert here.saved() == {"a", "b"}


async def test_nothing_is_saved_before_the_source_has_listed(tmp_path: Path) -> None:
    save_state(tmp_path, "old")
    async with world(tmp_path, NEVER) as here:
        here.fallback.apply(SOURCE, service("first of many"))
    assert here.saved() == {"old"}


async def test_errors_go_through(tmp_path: Path) -> None:
    error = ObjectStatus(where="Service default/a", field="spec", reason="why")
    async with world(tmp_path) as here:
        here.fallback.report_errors(SOURCE, [error])
    assert here.state.errors == [error]


async def test_without_a_file_the_source_is_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.list("a")
        await here.until_saved("a")
        assert here.fallback.serving_since is None


async def test_a_file_that_cannot_be_used_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path, "old", node="elsewhere")
    with caplog.at_level(logging.WARNING):
        async with world(tmp_path) as here:
            await until(lambda: caplog.records)
            assert not here.state.cluster.servable
            here.list("a")
    assert [record.message for record in caplog.records] == [
        f'the last-known state is ignored: {here.file}: it is of node "elsewhere",'
        ' but this node is "here"'
    ]


async def test_a_directory_that_cannot_be_written_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("")
    with caplog.at_level(logging.WARNING):
        async with world(tmp_path / "taken", Pace(grace=3600.0, period=0.0)) as here:
            here.list("a")
            await until(lambda: caplog.records)
            here.list("b")
        assert here.state.names() == {"b"}
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("the state of the cluster cannot be saved: ")
