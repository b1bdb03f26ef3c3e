"""Whether this machine has io_uring, decided in one place for all tests.

Where the kernel refuses it, the tests that need it are skipped, each with the reason, and pytest's
summary says so once more. With REQUIRE_IO_URING=1 such a run fails before its first test.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Final

import pytest

from uproxy.uring.loop import new_ring_loop

REQUIRE: Final = "REQUIRE_IO_URING"

ADVICE: Final = (
    "it takes Linux 6.1 or newer, sysctl kernel.io_uring_disabled=0, and a seccomp profile that "
    "allows io_uring_setup, io_uring_enter and io_uring_register"
)


def _refusal() -> str:
    try:
        new_ring_loop().close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


REFUSAL: Final = _refusal()
"""Why a worker could not use io_uring here; "" where it can."""

_WHY_SKIPPED: Final = f"needs io_uring, which cannot be used here ({REFUSAL}): {ADVICE}"

needs_io_uring = pytest.mark.skipif(bool(REFUSAL), reason=_WHY_SKIPPED)
"""Mark of tests that need a real io_uring."""

on_ring_loops = pytest.mark.asyncio(loop_factories=["ring"])
"""Mark of tests that run on the event loop around an io_uring only."""

on_loops_without_a_ring = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

every_engine = pytest.mark.parametrize(
    "engine", [pytest.param("auto", marks=needs_io_uring, id="io_uring"), "never"]
)
"""Mark of tests of whole programs: `engine` is what `--io-uring` is to be."""


def ring_loop() -> asyncio.AbstractEventLoop:
    """A loop for a test, which is skipped where there can be none."""
    if REFUSAL:
        pytest.skip(_WHY_SKIPPED)
    loop = new_ring_loop()
    loop.ring.busy_poll.allowed = True
    return loop


def check_requirement(environ: Mapping[str, str] = os.environ) -> None:
    """Raise pytest.UsageError where io_uring is required and cannot be used."""
    if REFUSAL and environ.get(REQUIRE) == "1":
        raise pytest.UsageError(
            f"{REQUIRE}=1, but io_uring cannot be used here ({REFUSAL}): {ADVICE}"
        )


def summary() -> str:
    """A line for the end of a run; "" where all tests could run."""
    if not REFUSAL:
        return ""
    return (
        f"Tests that need io_uring did NOT run: it cannot be used here ({REFUSAL}); {ADVICE}. "
        f"{REQUIRE}=1 makes such a run fail."
    )
