"""Times as they are written in Kubernetes objects: in UTC, whatever the machine's time zone is."""

from __future__ import annotations

from datetime import UTC, datetime


def time_text(wall: float) -> str:
    """A Unix time as metav1.Time, which has whole seconds."""
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%dT%H:%M:%SZ}"


def micro_time_text(wall: float) -> str:
    """A Unix time as metav1.MicroTime, which always has six digits of fraction."""
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
