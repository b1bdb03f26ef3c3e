"""All that a UDP listener knows about how its datagrams are received."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from uproxy.dataplane.udp.flow import Listening


class Intake(Protocol):
    """Receives what clients send to one listener, and gives it to their flows, which it begins."""

    def close(self) -> None:
        """Stop receiving, before the socket is closed."""


NewIntake = Callable[[Listening], Intake]
"""Makes the intake of a listener, and begins to receive."""
