"""/healthz, /livez and /readyz over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.http.client import fetch
from uproxy.config.settings import Address
from uproxy.core.report.health import ProxyHealth
from uproxy.core.report.readiness import Reason, ReasonKind
from uproxy.core.report.telemetry import Telemetry
from uproxy.http.health import healthz_app
from uproxy.http.server import HttpServer


@dataclass
class Scene:
    """What the endpoints read, for a test to change."""

    health: ProxyHealth = field(default_factory=lambda: ProxyHealth(sync_period=5.0))
    telemetry: Telemetry = field(default_factory=Telemetry)
    eligible: bool = True
    not_ready: tuple[Reason, ...] = ()
    notes: tuple[Reason, ...] = ()
    now: float = 0.0
    wall: float = 1787311751.0
    address: Address = Address("127.0.0.1", 0)


@asynccontextmanager
async def serving() -> AsyncIterator[Scene]:
    scene = Scene()
    app = healthz_app(
        scene.health,
        scene.telemetry,
        node_eligible=lambda: scene.eligible,
        not_ready=lambda: scene.not_ready,
        notes=lambda: scene.notes,
        monotonic=lambda: scene.now,
        wall=lambda: scene.wall,
    )
    async with HttpServer(app, [scene.address], name="healthz") as server:
        scene.address = server.bound[0]
        yield scene


async def test_healthz_and_livez() -> None:
    async with serving() as scene:
        scene.health.updated("IPv4", wall=scene.wall)
        for path, eligible in (("/healthz", b'"nodeEligible":true,'), ("/livez", b"")):
            answer = await fetch(scene.address, path)
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.body == (
                b'{"lastUpdated":"2026-08-21T11:29:11Z","currentTime":"2026-08-21T11:29:11Z",'
                + eligible
                + b'"healthy":true,"status":{"IPv4":'
                b'{"lastUpdated":"2026-08-21T11:29:11Z","healthy":true}}}'
            )


async def test_a_late_update_turns_both_red() -> None:
    async with serving() as scene:
        scene.health.updated("IPv4", wall=scene.wall)
        scene.health.queued_update("IPv4", now=0)
        scene.now = 10.0
        for path in ("/healthz", "/livez"):
            answer = await fetch(scene.address, path)
            assert (answer.status, answer.json["healthy"]) == (503, False)
            assert answer.headers["Content-Type"] == "application/json"


async def test_a_node_on_its_way_out_turns_healthz_red_only() -> None:
    async with serving() as scene:
        scene.eligible = False
        assert (await fetch(scene.address, "/healthz")).status == 503
        assert (await fetch(scene.address, "/livez")).status == 200


async def test_answers_are_counted_by_code() -> None:
    async with serving() as scene:
        await fetch(scene.address, "/healthz")
        await fetch(scene.address, "/livez")
        scene.eligible = False
        await fetch(scene.address, "/healthz")
        await fetch(scene.address, "/healthz")
        assert scene.telemetry.probes == {
            ("healthz", 200): 1,
            ("healthz", 503): 2,
            ("livez", 200): 1,
        }


STARTING = Reason(ReasonKind.STARTING, "waiting for the first list of Services")
TAKEN = [Reason(ReasonKind.FRONTEND, f"shop/web: 10.0.0.7:{port}/TCP: in use") for port in (80, 81)]


async def test_readyz_says_which_kinds_of_reasons_there_are_and_how_many() -> None:
    """And nothing of what is served here, which is for the metrics address."""
    async with serving() as scene:
        scene.not_ready = (STARTING, *TAKEN)
        answer = await fetch(scene.address, "/readyz")
        assert answer.status == 503
        assert answer.body == b"starting: 1\nfrontend not open: 2\n"
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        scene.not_ready = ()
        answer = await fetch(scene.address, "/readyz")
        assert (answer.status, answer.body) == (200, b"ok")


async def test_readyz_has_notes() -> None:
    async with serving() as scene:
        scene.notes = (Reason(ReasonKind.LAST_KNOWN, "that of yesterday"),)
        answer = await fetch(scene.address, "/readyz")
        assert (answer.status, answer.body) == (200, b"ok\nlast-known state served: 1\n")
        scene.not_ready = (STARTING,)
        answer = await fetch(scene.address, "/readyz")
        assert answer.status == 503
        assert answer.body == b"starting: 1\nlast-known state served: 1\n"


@pytest.mark.parametrize("method", ["HEAD", "POST"])
@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/healthz?verbose"])
async def test_any_method(path: str, method: str) -> None:
    async with serving() as scene:
        assert (await fetch(scene.address, path, method=method)).status == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz/", "/healthz/ping", "/Healthz"])
async def test_other_paths_are_404(path: str) -> None:
    async with serving() as scene:
        assert (await fetch(scene.address, path)).status == 404
