"""Leases of announcing nodes, as they are written and as others may have written them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.announcing.lease_objects import (
    ANNOUNCES,
    UnusableLease,
    decode,
    encode,
    lease_name,
)
from uproxy.core.announcing.leases import AnnouncerLease

NOW = "2026-01-01T00:00:00.000000Z"
FULL = AnnouncerLease(
    node="node-1",
    instance="a1",
    duration=3.75,
    version="17",
    renewals=4,
    interfaces={"eth0": ("192.0.2.0/24", "2001:db8::/64")},
    holds={"192.0.2.10": 3, "2001:db8::10": 1},
    claims={"192.0.2.11": 1},
    unable=frozenset({"192.0.2.12"}),
    draining=True,
    hears=False,
)


def written(lease: AnnouncerLease = FULL, **fields: Any) -> dict[str, Any]:
    return encode(lease, namespace="kube-system", now=NOW, **fields)


def with_annotation(**changed: Any) -> dict[str, Any]:
    lease = written()
    said = json.loads(lease["metadata"]["annotations"][ANNOUNCES]) | changed
    lease["metadata"]["annotations"][ANNOUNCES] = json.dumps(said)
    return lease


def test_what_is_written_is_read_again() -> None:
    assert decode(json.loads(json.dumps(written()))) == FULL


def test_kubernetes_fields_are_filled_in() -> None:
    lease = written(node_uid="u-1")
    assert lease["spec"] == {
        "holderIdentity": "a1",
        "leaseDurationSeconds": 4,
        "renewTime": NOW,
    }
    assert lease["metadata"]["resourceVersion"] == "17"
    assert lease["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "u-1"}
    ]


def test_a_new_lease_has_no_version_and_without_a_node_no_owner() -> None:
    metadata = written(AnnouncerLease(node="n", instance="a", duration=3))["metadata"]
    assert "resourceVersion" not in metadata
    assert "ownerReferences" not in metadata


def test_a_released_lease_has_no_holder() -> None:
    lease = decode(written(AnnouncerLease(node="n", instance="", duration=3)))
    assert isinstance(lease, AnnouncerLease)
    assert lease.released


@pytest.mark.parametrize(
    ("lease", "reason"),
    [
        pytest.param({}, "cannot be read", id="empty"),
        pytest.param({"metadata": None}, "cannot be read", id="metadata null"),
        pytest.param({"metadata": {"name": "x"}}, "no annotation", id="a Lease of something else"),
        pytest.param(with_annotation(node="node-2"), "another name", id="of another node"),
        pytest.param(with_annotation(holds={"192.0.2.300": 1}), "no IP address", id="no address"),
        pytest.param(with_annotation(holds={"2001:DB8::1": 1}), "canonical", id="odd address"),
        pytest.param(with_annotation(holds={"192.0.2.1": -1}), "cannot be read", id="epoch < 0"),
        pytest.param(
            with_annotation(holds={"192.0.2.1": 1e300}), "cannot be read", id="huge epoch"
        ),
        pytest.param(with_annotation(holds=None), "cannot be read", id="holds null"),
        pytest.param(with_annotation(duration=0), "cannot be read", id="no duration"),
        pytest.param(with_annotation(duration="x"), "cannot be read", id="duration is text"),
        pytest.param(with_annotation(duration=1e9), "cannot be read", id="lasts for years"),
        pytest.param(with_annotation(interfaces={"eth0": ["x"]}), "no subnet", id="no subnet"),
        pytest.param(with_annotation(interfaces=[]), "cannot be read", id="interfaces are a list"),
    ],
)
def test_a_lease_that_cannot_be_used_is_ignored_with_a_reason(
    lease: dict[str, Any], reason: str
) -> None:
    found = decode(lease)
    assert isinstance(found, UnusableLease)
    assert reason in found.reason
    assert found.reason.isprintable()


def test_fields_of_later_versions_are_ignored() -> None:
    assert decode(with_annotation(colour="green")) == FULL


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "kind"]), JSON))
def test_no_object_makes_it_fail(lease: dict[str, Any]) -> None:
    assert isinstance(decode(lease), UnusableLease)


@given(st.text())
def test_no_annotation_makes_it_fail(text: str) -> None:
    lease = written()
    lease["metadata"]["annotations"][ANNOUNCES] = text
    assert isinstance(decode(lease), UnusableLease)


NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@pytest.mark.parametrize(
    "node",
    [
        "node-1",
        "ip-10-0-0-1.eu.internal",
        "n" * 253,
        "Node_1",
        "ä",
        "-",
        "a..b",
        "",
        "a" * 236 + ".b",
    ],
)
def test_every_node_has_a_valid_name_of_a_lease(node: str) -> None:
    name = lease_name(node)
    assert NAME.fullmatch(name)
    assert len(name) <= 253


@given(st.text(max_size=300))
def test_whatever_a_node_is_called_its_lease_can_be_created(node: str) -> None:
    name = lease_name(node)
    assert NAME.fullmatch(name)
    assert len(name) <= 253


def test_names_of_leases_differ_where_those_of_nodes_do() -> None:
    long = "n" * 240
    names = ["node-1", "Node-1", "node_1", f"{long}a", f"{long}b", "a..b", "a--b", "-", ""]
    assert len({lease_name(each) for each in names}) == len(names)


def test_a_plain_name_stays_readable() -> None:
    assert lease_name("node-1.example") == "uproxy-announcer-node-1.example"
