from __future__ import annotations

import time

import pytest

from uproxy.core.timestamps import micro_time_text, time_text


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_times_are_in_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert time_text(1_750_000_000.999) == "2025-06-15T15:06:40Z"
        assert micro_time_text(1_750_000_000.0) == "2025-06-15T15:06:40.000000Z"
        assert micro_time_text(1_750_000_000.25) == "2025-06-15T15:06:40.250000Z"
    finally:
        monkeypatch.undo()
        time.tzset()
