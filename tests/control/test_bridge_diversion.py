"""Which pods of a bridge are used to find out whether replies come up from it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from uproxy.control.bridge_diversion import BridgeCalls, BridgeDiversion
from uproxy.core.route import Backend
from uproxy.host.pod_networks import PodNetworks, Segment

BRIDGE = Segment("198.51.100.0/24", 7, "cbr0", "02:00:00:00:00:01")
A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


class Rules:
    """In the place of BridgeRules."""

    installed, reason = False, ""

    def answers_to_probes(self) -> int:
        return 0

    def divert(self, wanted: Mapping[Backend, str]) -> None:
        self.installed = bool(wanted)


class Bridge:
    """A bridge that works. A pod does not answer its own addresses: it drops what pretends to come
    from itself."""

    def __init__(self, neighbours: Mapping[str, str]) -> None:
        self.neighbours = neighbours
        self.probed: list[tuple[str, str]] = []

    async def switched(self) -> Mapping[str, str]:
        """What several rounds of probes find out."""
        calls = BridgeCalls(
            new_rules=Rules,  # type: ignore[arg-type]
            neighbours=lambda interface: self.neighbours if interface == 7 else {},
            replies_come_back=self._replies_come_back,
        )
        diversion = BridgeDiversion(calls)
        diversion.set_networks(PodNetworks((BRIDGE.network,), (BRIDGE,)))
        await diversion.apply()
        for _ in range(5):
            await diversion.probe()
        return diversion.switched

    def _replies_come_back(self, client: str, backend: str) -> bool:
        self.probed.append((client, backend))
        return self.neighbours[client] != self.neighbours[backend]


@pytest.mark.parametrize(
    ("neighbours", "probed"),
    [
        pytest.param(
            {"198.51.100.3": B, "198.51.100.2": A},
            [("198.51.100.3", "198.51.100.2")],
            id="two pods",
        ),
        pytest.param(
            {"198.51.100.2": A, "198.51.100.20": A, "198.51.100.21": A, "198.51.100.3": B},
            [("198.51.100.3", "198.51.100.2")],
            id="one of two pods has several addresses",
        ),
        pytest.param(
            {"198.51.100.2": A, "198.51.100.20": A, "198.51.100.21": A, "198.51.100.22": A},
            [],
            id="one pod with several addresses",
        ),
        pytest.param({"198.51.100.2": A, "192.0.2.1": B}, [], id="another network"),
    ],
)
async def test_a_probe_is_between_two_pods(
    neighbours: dict[str, str], probed: list[tuple[str, str]]
) -> None:
    bridge = Bridge(neighbours)
    assert await bridge.switched() == {}
    assert bridge.probed == probed
