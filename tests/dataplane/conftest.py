"""The data path runs on a third kind of event loop, too: the one around an io_uring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tests.dataplane.node_worker import pod_network
from tests.io_uring import ring_loop
from tests.netns.kit import World


@pytest.fixture(scope="module")
def net() -> Iterator[World]:
    """A network with pods, for tests that need root."""
    with pod_network() as made:
        yield made


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Hook of pytest-asyncio: one run of an async test for each of these."""
    return {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
        "ring": ring_loop,
    }
