"""Latency of requests while the control plane is busy with other Services."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from bench.wire import figures, manifests
from bench.wire.churn import churning, service_changed_by
from bench.wire.loads import wrk
from bench.wire.peers import Subject
from bench.wire.places import Place
from bench.wire.processes import Unavailable
from bench.wire.uproxy_peer import METRICS

_CONNECTIONS = 64
_PATIENCE = 5.0


def latency_under_churn(
    subject: Subject, seconds: float, generations: Iterator[int], *, threads: int
) -> dict[str, float]:
    """The same requests twice, without changes and with them.

    Raises Unavailable if the last change is not served in the end: then nothing was measured.
    """
    assert subject.manifests is not None
    place = subject.places["http"]
    calm = wrk(place, "/", _CONNECTIONS, seconds, threads=threads)
    begin = time.monotonic()
    with churning(subject.manifests, generations) as written:
        busy = wrk(place, "/", _CONNECTIONS, seconds, threads=threads)
    elapsed = time.monotonic() - begin
    _wait_until_served(subject.places[METRICS], written[-1])
    return {
        figures.P99: calm.p99_us,
        figures.P99_CHURN: busy.p99_us,
        figures.SLOWDOWN: busy.p99_us / calm.p99_us,
        figures.CHANGES: len(written) / elapsed,
        figures.ERRORS: calm.errors + busy.errors,
    }


def _wait_until_served(metrics: Place, generation: int) -> None:
    name = manifests.name_of(service_changed_by(generation))
    changed = manifests.bystander_slice(service_changed_by(generation), generation)
    address = changed["endpoints"][-1]["addresses"][0]
    deadline = time.monotonic() + _PATIENCE
    while not any(each.startswith(f"{address}:") for each in _backends(metrics, name)):
        if time.monotonic() > deadline:
            raise Unavailable(f"{address} is not among the backends of {name} after {_PATIENCE} s")
        time.sleep(0.1)


def _backends(metrics: Place, name: str) -> list[str]:
    with urllib.request.urlopen(f"http://{metrics}/api/v1/routes", timeout=10) as answer:
        status: Any = json.load(answer)
    return [
        str(b)
        for f in status["frontends"]
        if f["service"].endswith(f"/{name}")
        for b in f["backends"]
    ]
