"""Limits of what one process or user may have open."""

from __future__ import annotations

from typing import Final, NamedTuple

from uproxy.cli.doctor.facts import Machine
from uproxy.cli.doctor.findings import Finding, Result

_SPARE: Final = 1024
"""Descriptors of a worker that flows cannot have: for listeners, pipes and the control channel."""
_FEWEST: Final = 256
_WATCHES: Final = 8192


class Load(NamedTuple):
    """How much uproxy is to serve on the machine."""

    max_flows: int
    workers: int


def inotify(machine: Machine) -> Finding:
    watches = machine.number("fs.inotify.max_user_watches", _WATCHES)
    instances = machine.number("fs.inotify.max_user_instances", 128)
    if watches >= _WATCHES and instances >= 16:
        return Finding("inotify", Result.OK, f"{watches:,} watches")
    text = f"{watches:,} watches, {instances} instances: changes to manifests may be noticed late"
    advice = f"sysctl fs.inotify.max_user_watches={_WATCHES} fs.inotify.max_user_instances=128"
    return Finding("inotify", Result.WARN, text, advice)


def descriptors(machine: Machine, load: Load) -> Finding:
    """A TCP flow takes two descriptors of its worker."""
    limit = machine.descriptors
    if limit < _FEWEST:
        text = f"only {limit} open files per process, too few to start"
        return Finding("descriptors", Result.FAIL, text, "ulimit -n 65536, or LimitNOFILE=65536")
    room = max(limit - _SPARE, limit // 2) // 2 * load.workers
    if room < load.max_flows:
        wanted = 2 * -(-load.max_flows // load.workers) + _SPARE
        workers = "1 worker" if load.workers == 1 else f"{load.workers} workers"
        text = f"{limit:,} open files per process allow about {room:,} TCP flows in {workers};"
        text += f" further clients wait, although --max-flows is {load.max_flows:,}"
        advice = f"ulimit -Hn {wanted}, or LimitNOFILE={wanted} (systemd)"
        return Finding("descriptors", Result.WARN, text, advice)
    text = f"enough for --max-flows {load.max_flows:,}"
    return Finding("descriptors", Result.OK, text)
