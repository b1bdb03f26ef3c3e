"""Findings about manifests never stand in the way of what manifests are for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.sources.manifests.test_source import manifest
from uproxy.config.settings import Config
from uproxy.control import manifests
from uproxy.control.daemon import Daemon
from uproxy.control.machine import Machine

_PATIENCE = 20.0


async def test_an_unexpected_error_ends_the_findings_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = asyncio.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr(manifests, "service_findings", fail)
    (tmp_path / "a.yaml").write_text(manifest("a"))
    config = Config(manifests=(tmp_path,), healthz_address=None, metrics_address=None)
    daemon = Daemon(config, None, Machine())
    daemon.reconciler.served_once.set()
    changed = asyncio.Event()
    daemon.state.observe(lambda kind, name: changed.set())
    async with asyncio.timeout(_PATIENCE), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(
            manifests.follow_manifests(daemon.manifests, daemon.reconciler, None)
        )
        await failed.wait()
        await changed.wait()
        changed.clear()
        (tmp_path / "b.yaml").write_text(manifest("b"))
        await changed.wait()
        following.cancel()
    assert {name.name for name in daemon.state.service_names()} == {"a", "b"}
    assert "cannot say what is wrong with manifests any more" in caplog.text
