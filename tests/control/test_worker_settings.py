"""What workers are told of the flow log."""

from __future__ import annotations

import sys

import msgspec
import pytest

from uproxy.config.settings import Config
from uproxy.control.worker_settings import worker_settings
from uproxy.net.messages import Settings


@pytest.mark.parametrize(
    ("config", "every"),
    [
        pytest.param(Config(), 0, id="no log"),
        pytest.param(Config(flow_log_every=100), 0, id="no log, but how often"),
        pytest.param(Config(flow_log="-"), 1, id="every flow"),
        pytest.param(Config(flow_log="/f", flow_log_every=100), 100, id="one of 100"),
        pytest.param(Config(flow_log="/f", flow_log_every=0), sys.maxsize, id="only bad ends"),
    ],
)
def test_how_many_flows_are_logged(config: Config, every: int) -> None:
    settings = worker_settings(config, 0)
    assert settings.flow_log_every == every
    raw = msgspec.msgpack.encode(settings)
    assert msgspec.msgpack.decode(raw, type=Settings) == settings
