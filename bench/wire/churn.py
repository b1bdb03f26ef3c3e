"""Endpoints that come and go while traffic is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.wire import manifests

SERVICES = 2000
RATE = 100
"""Changes each second."""


def service_changed_by(generation: int) -> int:
    """The index of the next Service. The stride is coprime to their number, so that neighbours do
    not change one after the other."""
    return generation * 7 % SERVICES


@contextmanager
def churning(directory: Path, generations: Iterator[int]) -> Iterator[list[int]]:
    """While open, give one Service after the other a new endpoint. Yields what was written."""
    stop = threading.Event()
    written: list[int] = []
    writer = threading.Thread(
        target=_write, args=(directory, generations, stop, written), name="churn"
    )
    writer.start()
    try:
        yield written
    finally:
        stop.set()
        writer.join()


def _write(
    directory: Path, generations: Iterator[int], stop: threading.Event, written: list[int]
) -> None:
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        due += 1 / RATE
        generation = next(generations)
        index = service_changed_by(generation)
        changed = manifests.bystander_slice(index, generation)
        manifests.write(directory / f"slice-{index}.json", [changed])
        written.append(generation)
