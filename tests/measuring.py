"""What is different in a run that measures coverage (`make coverage`)."""

from __future__ import annotations

import os
from typing import Final

import pytest

_CONFIGURED: Final = "COVERAGE_PROCESS_CONFIG"
"""What coverage sets in the environment of a run, so that processes that it starts measure too."""

not_while_measured = pytest.mark.skipif(
    _CONFIGURED in os.environ, reason="coverage loads libraries that a worker does without"
)


def unmeasured() -> dict[str, str]:
    """The environment of a process that runs changed sources: the branches of those have other
    lines, and that they were taken says nothing about ours."""
    return {name: value for name, value in os.environ.items() if name != _CONFIGURED}
