"""The example in the docstring of the package runs as it is printed."""

from __future__ import annotations

import doctest

from tests.io_uring import needs_io_uring
from uproxy import uring


@needs_io_uring
def test_the_example_runs() -> None:
    result = doctest.testmod(uring)
    assert result.attempted
    assert not result.failed
