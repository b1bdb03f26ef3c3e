"""Settings for every test: async ones run on both event loops that uproxy supports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Hook of pytest-asyncio: one run of an async test for each of these."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
