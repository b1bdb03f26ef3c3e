"""The results of a run, which are stored in one JSON file."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number that a scenario yields for each peer and round."""

    name: str
    unit: str
    higher_is_better: bool = True
    digits: int = 0
    """After the decimal point, in tables."""
    compared: bool = True
    """Whether the ratio of two peers is meaningful."""


class Outcome(msgspec.Struct, kw_only=True):
    """A scenario's measurements."""

    scenario: str
    title: str
    baseline: str
    """The peer to which ratios are taken."""
    figures: tuple[Figure, ...]
    load: float = 0.0
    """The machine's load average when it began: that of other programs, and of what was measured
    before."""
    rounds: dict[str, list[dict[str, float] | None]]
    """By peer. Equal positions belong to the same round; None: the measurement failed."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran."""

    processor: str
    processors: int
    memory: int
    """Bytes."""
    kernel: str
    python: str
    build: str = "unknown build"
    """How the interpreter was compiled."""


class Run(msgspec.Struct, kw_only=True):
    """Everything about one run."""

    started: str
    """UTC, ISO 8601."""
    revision: str
    """Of the working tree; "+" at its end: with changes that are not committed."""
    machine: Machine
    versions: dict[str, str]
    """Of the peers and the load generators."""
    seconds: float
    """Of each measurement."""
    nice: int = 0
    """Priority of all processes; a negative one takes precedence over other load."""
    own_network: bool
    load: float
    """The machine's load average at the start, due to other programs."""
    skipped: dict[str, str]
    """Peers that could not run, and why."""
    failures: list[str]
    """Rounds that failed, and why."""
    outcomes: list[Outcome]


def write(run: Run, directory: Path, label: str = "") -> Path:
    """Store a run under a name of its own."""
    moment = run.started.replace(":", "").replace("-", "")
    name = "-".join(filter(None, (moment, run.revision.rstrip("+")[:10], label)))
    path = directory / f"{name}.json"
    directory.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
    return path


def read(path: Path) -> Run:
    """A run that was stored. Raises msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=Run)
