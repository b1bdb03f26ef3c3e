"""uproxy itself: `uproxy run` on generated manifests, with defaults except for the flags here."""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.wire import manifests
from bench.wire.peers import UDP_TIMEOUT, Setup, Start, Subject
from bench.wire.places import Place, free_place
from bench.wire.processes import Running, Unavailable, running

NODE = "bench"
"""Name of the node that uproxy serves."""
METRICS = "metrics"
"""Name among the places of a Subject."""
_PATIENCE = 60.0
"""Seconds until it must have read all manifests and serve them."""


def uproxy(bystanders: int = 0) -> Start:
    """`bystanders`: Services beside those that are measured."""

    @contextmanager
    def start(setup: Setup) -> Iterator[Subject]:
        places = {each.name: free_place() for each in setup.services}
        objects = setup.directory / "manifests"
        objects.mkdir()
        manifests.write(objects / "measured.json", manifests.measured(setup.services, places))
        for index, (service, endpoints) in enumerate(manifests.bystanders(bystanders)):
            manifests.write(objects / f"service-{index}.json", [service])
            manifests.write(objects / f"slice-{index}.json", [endpoints])
        metrics = free_place()
        with serving(setup, objects, metrics) as process:
            yield Subject(places=places | {METRICS: metrics}, process=process, manifests=objects)

    return start


@contextmanager
def serving(
    setup: Setup,
    objects: Path,
    metrics: Place,
    *options: str,
    wrapper: Sequence[str] = (),
) -> Iterator[Running]:
    """uproxy on the manifests of a directory, once it is ready.

    `wrapper` goes before the command: words that start it in a network namespace, which this thread
    must have entered as well.
    """
    health = free_place()
    command = [*wrapper, sys.executable, "-m", "uproxy.cli", "run", "--manifests", str(objects)]
    command += ["--healthz-bind-address", str(health), "--metrics-bind-address", str(metrics)]
    command += ["--workers", str(setup.workers), "--hostname-override", NODE]
    command += ["--udp-timeout", f"{UDP_TIMEOUT}s", "--drain-timeout", "0s", *options]
    with running(command, setup.directory / "log") as process:
        _wait_until_ready(process, health)
        yield process


def _wait_until_ready(process: Running, health: Place) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _ready(health):
        process.check()
        if time.monotonic() > deadline:
            raise Unavailable(f"uproxy is not ready after {_PATIENCE:.0f} s")
        time.sleep(0.02)


def _ready(health: Place) -> bool:
    try:
        with urllib.request.urlopen(f"http://{health}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
