"""What MetalLB's L2Advertisements mean, and which of them cannot be used."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from uproxy.core.announcing.advertisements import Advertisement, PreferredNodes
from uproxy.core.announcing.l2_advertisements import L2Advertisement, advertisement_from_object
from uproxy.core.cluster.decode import DecodeError
from uproxy.core.cluster.labels import LabelSelector

SELECTOR = {"matchLabels": {"a": "b"}}
SELECTED = LabelSelector(match_labels={"a": "b"})


def advertisement(**spec: Any) -> L2Advertisement:
    metadata = {"name": "first", "namespace": "metallb-system"}
    return msgspec.convert({"metadata": metadata, "spec": spec}, L2Advertisement)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(advertisement(), Advertisement(name="first"), id="for-everything"),
        pytest.param(
            advertisement(nodeSelectors=None, interfaces=None),
            Advertisement(name="first"),
            id="null",
        ),
        pytest.param(
            advertisement(
                ipAddressPools=["x"],
                ipAddressPoolSelectors=[SELECTOR],
                nodeSelectors=[SELECTOR],
                interfaces=["eth0", "eth1", "eth0"],
                serviceSelectors=[SELECTOR],
                preferredNodeSelectors=[{"weight": 100, "preference": SELECTOR}],
            ),
            Advertisement(
                name="first",
                pools=frozenset({"x"}),
                pool_selectors=(SELECTED,),
                node_selectors=(SELECTED,),
                interfaces=("eth0", "eth1"),
                service_selectors=(SELECTED,),
                preferred=(PreferredNodes(SELECTED, 100),),
            ),
            id="every-field",
        ),
    ],
)
def test_advertisement(obj: L2Advertisement, expected: Advertisement) -> None:
    assert advertisement_from_object(obj) == expected


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        pytest.param(
            advertisement(nodeSelectors=[{}] * 1001),
            "spec.nodeSelectors: 1001 are too many; give at most 1000",
            id="selectors",
        ),
        pytest.param(
            advertisement(interfaces=["x"] * 1001), "spec.interfaces: 1001 are", id="interfaces"
        ),
        pytest.param(
            advertisement(preferredNodeSelectors=[{"weight": 101, "preference": {}}]),
            "spec.preferredNodeSelectors[0].weight: 101 is not from 1 to 100",
            id="weight",
        ),
        pytest.param(
            advertisement(preferredNodeSelectors=[{"weight": 1, "preference": {}}] * 1001),
            "spec.preferredNodeSelectors: 1001 are too many",
            id="preferences",
        ),
    ],
)
def test_what_cannot_be_used(obj: L2Advertisement, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)):
        advertisement_from_object(obj)
