"""What MetalLB's IPAddressPools mean, and which of them cannot be used."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from uproxy.core.allocation.ip_address_pools import DRAIN, RESERVE, IPAddressPool, pool_from_object
from uproxy.core.allocation.pools import Pool, Reservation, ServiceAllocation
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.decode import DecodeError
from uproxy.core.cluster.labels import LabelSelector
from uproxy.core.cluster.objects import ObjectName

parse = AddressRange.parse
ADDRESSES = ["192.0.2.0/28"]


def pool(
    spec: dict[str, Any], annotations: dict[str, str] | None = None, **metadata: Any
) -> IPAddressPool:
    return msgspec.convert(
        {
            "metadata": {
                "name": "first",
                "namespace": "metallb-system",
                "annotations": annotations,
                **metadata,
            },
            "spec": spec,
        },
        IPAddressPool,
    )


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(
            pool({"addresses": ["192.0.2.1-192.0.2.9", "2001:db8::/120"]}),
            Pool(name="first", ranges=(parse("192.0.2.1-192.0.2.9"), parse("2001:db8::/120"))),
            id="defaults",
        ),
        pytest.param(
            pool({"addresses": ADDRESSES, "autoAssign": None, "serviceAllocation": None}),
            Pool(name="first", ranges=(parse("192.0.2.0/28"),)),
            id="null",
        ),
        pytest.param(
            pool({"addresses": ADDRESSES, "autoAssign": False, "avoidBuggyIPs": True}),
            Pool(
                name="first",
                ranges=(parse("192.0.2.0/28"),),
                auto_assign=False,
                avoid_buggy_ips=True,
            ),
            id="switches",
        ),
        pytest.param(
            pool(
                {
                    "addresses": ADDRESSES,
                    "serviceAllocation": {
                        "priority": 50,
                        "namespaces": ["a", "b"],
                        "namespaceSelectors": [{"matchLabels": {"team": "x"}}],
                        "serviceSelectors": [{"matchLabels": {"tier": "y"}}],
                    },
                }
            ),
            Pool(
                name="first",
                ranges=(parse("192.0.2.0/28"),),
                allocation=ServiceAllocation(
                    priority=50,
                    namespaces=frozenset({"a", "b"}),
                    namespace_selectors=(LabelSelector(match_labels={"team": "x"}),),
                    service_selectors=(LabelSelector(match_labels={"tier": "y"}),),
                ),
            ),
            id="serviceAllocation",
        ),
        pytest.param(
            pool({"addresses": ADDRESSES, "serviceAllocation": {}}),
            Pool(name="first", ranges=(parse("192.0.2.0/28"),), allocation=ServiceAllocation()),
            id="serviceAllocation-for-all",
        ),
        pytest.param(
            pool(
                {"addresses": ADDRESSES},
                {RESERVE: "192.0.2.1, 192.0.2.2=default/web", DRAIN: "true"},
                labels={"b": "2", "a": "1"},
            ),
            Pool(
                name="first",
                ranges=(parse("192.0.2.0/28"),),
                reservations=(
                    Reservation(parse("192.0.2.1")),
                    Reservation(parse("192.0.2.2"), ObjectName("default", "web")),
                ),
                drained=(parse("192.0.2.0/28"),),
                labels=(("a", "1"), ("b", "2")),
            ),
            id="annotations",
        ),
    ],
)
def test_pool(obj: IPAddressPool, expected: Pool) -> None:
    assert pool_from_object(obj) == expected


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        pytest.param(pool({}), "spec.addresses: it has no addresses; give", id="nothing"),
        pytest.param(
            pool({"addresses": ["192.0.2.1", "x\x1b[2J"]}),
            'spec.addresses[1]: "x\\x1b[2J" is not a range; write FIRST-LAST or a CIDR',
            id="control-characters",
        ),
        pytest.param(
            pool({"addresses": ["9" * 1_000_000]}),
            f'spec.addresses[0]: "{"9" * 97}..." is not a range',
            id="a-megabyte-of-digits",
        ),
        pytest.param(
            pool({"addresses": ["192.0.2.9-192.0.2.1"]}),
            'spec.addresses[0]: "192.0.2.9-192.0.2.1" ends before it begins',
            id="backwards",
        ),
        pytest.param(
            pool({"addresses": ["192.0.2.9-2001:db8::1"]}),
            "has two IP families; give both ends in the same one",
            id="two-families",
        ),
        pytest.param(
            pool({"addresses": ["::/0"]}), '"::/0" contains the unspecified address', id="all-ipv6"
        ),
        pytest.param(
            pool({"addresses": ["1.0.0.0-255.255.255.254"]}),
            "contains multicast addresses; give a range without 224.0.0.0-239.255.255.255",
            id="almost-all-ipv4",
        ),
        pytest.param(
            pool({"addresses": ["fe80::1"]}), "contains link-local addresses", id="link-local"
        ),
        pytest.param(
            pool({"addresses": ["169.254.0.0-169.254.0.9"]}),
            "contains link-local addresses",
            id="link-local-ipv4",
        ),
        pytest.param(
            pool({"addresses": ["192.0.2.0/28", "192.0.2.15"]}),
            "192.0.2.0-192.0.2.15 and 192.0.2.15 overlap; leave one out",
            id="overlap",
        ),
        pytest.param(
            pool({"addresses": ["192.0.2.1"] * 1_000_000}),
            "spec.addresses: 1000000 ranges are too many; give at most 10000",
            id="a-million-ranges",
        ),
        pytest.param(
            pool({"addresses": ADDRESSES, "serviceAllocation": {"serviceSelectors": [{}] * 1001}}),
            "spec.serviceAllocation.serviceSelectors: 1001 are too many",
            id="selectors",
        ),
        pytest.param(
            pool({"addresses": ADDRESSES}, {RESERVE: "192.0.2.1=x"}),
            'metadata.annotations[uproxy.dev/reserve]: "x" is not the name of a Service',
            id="reserve",
        ),
        pytest.param(
            pool({"addresses": ADDRESSES}, {RESERVE: "," * 10_000}),
            "metadata.annotations[uproxy.dev/reserve]: too many ranges",
            id="reserve-too-much",
        ),
        pytest.param(
            pool({"addresses": ADDRESSES}, {DRAIN: "maybe"}),
            "metadata.annotations[uproxy.dev/drain]: neither true nor false",
            id="drain",
        ),
    ],
)
def test_what_cannot_be_used(obj: IPAddressPool, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)) as raised:
        pool_from_object(obj)
    assert len(str(raised.value)) < 300
