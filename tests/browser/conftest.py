"""One Chromium for all tests here that run in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.devtools import PROGRAM, Browser, chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("needs chromium")
    with chromium() as running:
        yield running
