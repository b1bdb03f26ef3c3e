"""uproxy itself: `uproxy run` on generated manifests, with defaults except for the flags here."""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Files of uproxy, and the interpreter that runs them."""

    interpreter: str
    """It has the packages that uproxy depends on."""
    root: Path
    """The folder in which the package `uproxy` is."""

    def command(self) -> list[str]:
        """What starts it; with -P, the current directory has no say in what is imported."""
        return [self.interpreter, "-P", "-m", "uproxy.cli"]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.root)}


HERE: Final = Program(interpreter=sys.executable, root=Path(__file__).parents[2])
"""The working tree of this file."""


def uproxy(bystanders: int = 0, *options: str, program: Program = HERE) -> Start:
    """`bystanders`: Services beside those that are measured. `options`: further ones of the command
    line."""

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
        with serving(setup, objects, metrics, *options, program=program) as process:
            yield Subject(places=places | {METRICS: metrics}, process=process, manifests=objects)

    return start


@contextmanager
def serving(
    setup: Setup,
    objects: Path,
    metrics: Place,
    *options: str,
    wrapper: Sequence[str] = (),
    program: Program = HERE,
) -> Iterator[Running]:
    """uproxy on the manifests of a directory, once it is ready.

    `wrapper` goes before the command: words that start it in a network namespace, which this thread
    must have entered as well.
    """
    health = free_place()
    command = [*wrapper, *program.command(), "run", "--manifests", str(objects)]
    command += ["--healthz-bind-address", str(health), "--metrics-bind-address", str(metrics)]
    command += ["--workers", str(setup.workers), "--hostname-override", NODE]
    command += ["--udp-timeout", f"{UDP_TIMEOUT}s", "--drain-timeout", "0s", *options]
    with running(command, setup.directory / "log", program.environment()) as process:
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
