"""One run: a number of Services, one uproxy, and all measurements of it."""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.scale.objects import FIRST_PORT, PROBE_ADDRESS
from bench.scale.probe import Backend, until_answered_by, watch_start
from bench.scale.processes import ApiServer, Uproxy, api_server, resident, uproxy

_RESERVED = 1000
"""Descriptors that are not for listeners."""
_SETTLE = 3.0
"""Seconds after the start until memory is read: what only the start needed has been given back."""
_PATIENCE = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is measured."""

    services: int
    ports: int
    """Of each Service."""
    workers: int
    changes: float = 0.0
    """EndpointSlices that change in a second; 0: do not measure changes."""
    seconds: float = 20.0
    """How long CPU is measured."""
    moves: int = 200
    """How often the time from a change to its effect is measured."""


@dataclass(slots=True, kw_only=True)
class Result:
    """Seconds and MiB."""

    setup: Setup
    ready: float = 0.0
    start_cpu: float = 0.0
    """Of the control process until it was ready: what the start takes on an idle machine."""
    stall: float = 0.0
    control: float = 0.0
    workers: list[float] = field(default_factory=list)
    cpu: float = 0.0
    """Of one core, 0 to 1."""
    control_after_changes: float = 0.0
    moves: list[float] = field(default_factory=list)
    """Seconds from a change to the first connection that reached the new backend, sorted."""

    def move(self, quantile: float) -> float:
        return self.moves[min(len(self.moves) - 1, int(quantile * len(self.moves)))]


def fitting(services: int, ports: int, workers: int) -> tuple[Setup, str]:
    """A setup that the limit of descriptors allows, and what had to be given up for that.

    The control process holds a socket for each port and worker.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _RESERVED
    wanted = (ports, workers)
    if services * ports * workers > limit:
        workers = max(1, limit // (services * ports))
    if services * ports * workers > limit:
        ports = max(1, limit // (services * workers))
    note = ""
    if (ports, workers) != wanted:
        note = (
            f"{services} Services: {ports} of {wanted[0]} ports and {workers} of {wanted[1]} "
            f"workers, as this machine allows {limit + _RESERVED} descriptors"
        )
    return Setup(services=services, ports=ports, workers=workers), note


def measure(setup: Setup) -> Result:
    """Raises TimeoutError where uproxy does not do what it should."""
    result = Result(setup=setup)
    with tempfile.TemporaryDirectory() as name, Backend(b"a") as first, Backend(b"b") as second:
        directory = Path(name)
        with api_server(setup.services, setup.ports) as server:
            server.move("127.0.0.1", first.port)
            began = time.monotonic()
            with uproxy(directory, server.url, workers=setup.workers) as program:
                try:
                    start = watch_start(program.health, began, _PATIENCE, program.alive)
                except TimeoutError:
                    log = (directory / "uproxy.log").read_text()[-3000:]
                    raise TimeoutError(f"uproxy did not become ready:\n{log}") from None
                result.ready, result.stall = start.ready, start.stall
                result.start_cpu = program.cpu()
                time.sleep(_SETTLE)
                _read_memory(result, program)
                if setup.changes:
                    _measure_changes(result, server, program, [first, second])
    return result


def _read_memory(result: Result, program: Uproxy) -> None:
    result.control = resident(program.process.pid)
    result.workers = [resident(pid) for pid in program.workers]


def _measure_changes(
    result: Result, server: ApiServer, program: Uproxy, backends: list[Backend]
) -> None:
    setup = result.setup
    server.churn(setup.changes)
    time.sleep(1.0)
    cpu, began = program.cpu(), time.monotonic()
    time.sleep(setup.seconds)
    result.cpu = (program.cpu() - cpu) / (time.monotonic() - began)
    for move in range(1, setup.moves + 1):
        turn = move % 2
        at = server.move("127.0.0.1", backends[turn].port)
        name = (b"a", b"b")[turn]
        result.moves.append(until_answered_by(name, PROBE_ADDRESS, FIRST_PORT) - at)
        # So that samples are spread over the churn, not in step with it.
        time.sleep(0.003 * (move % 7))
    server.churn(0)
    result.moves.sort()
    result.control_after_changes = resident(program.process.pid)
