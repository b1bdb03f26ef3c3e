"""When addresses are claimed for Services, and which claims are watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from tests.builders import service, table
from uproxy.control.service_addresses import ServiceAddresses
from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.reserved import ReservedAddresses
from uproxy.host.claims import Claims

CLUSTER_IP, EXTERNAL = "10.96.0.1", "203.0.113.1"
TABLE = table(service("web", ip=CLUSTER_IP, external_ips=(EXTERNAL,)))


class FakeClaims:
    """Claims in memory."""

    reason = ""

    def __init__(self, *claimed: str) -> None:
        self.claimed = set(claimed)

    async def claim(self, addresses: Sequence[str]) -> Mapping[str, str]:
        self.claimed.update(addresses)
        return {}

    async def release(self, addresses: Sequence[str]) -> None:
        self.claimed.difference_update(addresses)


def service_addresses(claims: FakeClaims, told: list[str] | None = None) -> ServiceAddresses:
    made = ServiceAddresses(cast("Claims", claims), told.extend if told is not None else _ignore)
    made.update(TABLE, TABLE.routes, frozenset())
    return made


def _ignore(_: object) -> None:
    pass


async def test_only_cluster_ips_before_the_addresses_of_all_nodes_are_known() -> None:
    claims = FakeClaims()
    told: list[str] = []
    held = service_addresses(claims, told)
    failures = await held.claim([CLUSTER_IP, EXTERNAL], TABLE.routes, all_known=False)
    assert claims.claimed == {CLUSTER_IP}
    assert failures.keys() == {EXTERNAL}
    assert "until all nodes are known" in failures[EXTERNAL]
    assert told == []
    assert not await held.claim([EXTERNAL], TABLE.routes, all_known=True)
    assert claims.claimed == {CLUSTER_IP, EXTERNAL}
    assert told == [EXTERNAL], "the API server is looked after"


async def test_reserved_addresses_of_an_earlier_process_are_released() -> None:
    claims = FakeClaims(CLUSTER_IP, EXTERNAL, "203.0.113.2")
    options = RoutingOptions(servers={EXTERNAL: "the API server's address"})
    await service_addresses(claims).release_reserved(ReservedAddresses(options, HostAddresses()))
    assert claims.claimed == {CLUSTER_IP, "203.0.113.2"}
