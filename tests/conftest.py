"""Settings for every test: a network and signals of its own for each test process, and a run on
both event loops that uproxy supports for each async test."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from hypothesis import settings

from tests import io_uring, isolation

TESTS = Path(__file__).parent

isolation.heed_signals()

# The same examples in each run, however slow the machine; HYPOTHESIS_PROFILE=explore looks further.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_configure(config: pytest.Config) -> None:
    """Hook of pytest, before any test module is loaded."""
    io_uring.check_requirement()
    # With -n the tests run in other processes, which are told apart by what pytest-xdist sets.
    if "PYTEST_XDIST_WORKER" in os.environ or not config.getoption("numprocesses", None):
        isolation.own_network()


SLOW = ("netns", "deploy", "e2e", "dataplane", "guides", "announcing", "faults", "bench", "browser")
"""Folders with files that take long, and so have to begin early."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Hook of pytest-xdist, for `--numprocesses auto`. Tests wait for timeouts of real kernels, so
    one process would keep a processor busy for less than a third of the time."""
    return 2 * len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hook of pytest, which says in which order the tests run. Slow ones run first, so that in the
    end no process is busy with one of them while the others have nothing left to do."""

    def rank(item: pytest.Item) -> int:
        (folder, *_) = item.path.relative_to(TESTS).parts
        return SLOW.index(folder) if folder in SLOW else len(SLOW)

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """Hook of pytest, when all tests are known: 400,000 objects that stay until the end.

    Tests of the data plane go through all objects, for cycles and for what is left of flows. With
    these it would take each of them 0.4 s of CPU time.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Hook of pytest, at the end of a run: the last word, behind the list of skipped tests."""
    yield
    if line := io_uring.summary():
        terminalreporter.write_line(line, red=True, bold=True)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Hook of pytest-asyncio: one run of an async test for each of these."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
