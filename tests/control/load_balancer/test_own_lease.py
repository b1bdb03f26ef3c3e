from __future__ import annotations

import dataclasses
import logging

import pytest

from tests.control.load_balancer.api import api_server
from tests.fake_api.kinds import LEASES
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.own_lease import Outcome, OwnLease
from uproxy.core.announcing.lease_objects import decode, lease_name
from uproxy.core.announcing.leases import AnnouncerLease

NAMESPACE = "kube-system"
SAID = AnnouncerLease(node="n1", instance="n1_1", duration=3.0, holds={"192.0.2.192": 1})


def own_lease(ask: object) -> OwnLease:
    return OwnLease(ask, node="n1", namespace=NAMESPACE, node_uid=lambda: "1-2-3")  # type: ignore[arg-type]


async def test_it_is_created_and_then_replaced() -> None:
    async with api_server() as (server, ask):
        lease = own_lease(ask)
        version = (await lease.write(SAID)).version
        stored = server.store.get(LEASES, (NAMESPACE, lease_name("n1"))).data
        assert version == stored["metadata"]["resourceVersion"]
        assert decode(stored) == dataclasses.replace(SAID, version=version)
        assert stored["metadata"]["ownerReferences"][0]["uid"] == "1-2-3"
        renewed = dataclasses.replace(SAID, version=version, renewals=1)
        again = (await lease.write(renewed)).version
        stored = server.store.get(LEASES, (NAMESPACE, lease_name("n1"))).data
        assert decode(stored) == dataclasses.replace(renewed, version=again)
        assert int(again) > int(version)
        assert lease.trouble == ""


async def test_what_another_process_has_written_is_not_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with api_server() as (server, ask):
        lease = own_lease(ask)
        version = (await lease.write(SAID)).version
        exists = await lease.write(SAID)
        assert exists == Outcome(conflict=True, current=dataclasses.replace(SAID, version=version))
        await lease.write(dataclasses.replace(SAID, version=version, renewals=1))
        stale = await lease.write(dataclasses.replace(SAID, version=version, renewals=2))
        assert stale.conflict
        assert stale.current is not None
        assert stale.current.renewals == 1
        assert not stale.version
        server.delete(LEASES, lease_name("n1"), NAMESPACE)
        gone = await lease.write(dataclasses.replace(SAID, version=version))
        assert gone == Outcome(conflict=True)
        assert not caplog.records


async def test_one_that_cannot_be_read_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with api_server() as (server, ask):
        lease = own_lease(ask)
        await lease.write(SAID)
        stored = server.store.get(LEASES, (NAMESPACE, lease_name("n1"))).data
        server.apply({**stored, "metadata": {**stored["metadata"], "annotations": {}}})
        assert await lease.write(SAID) == Outcome()
        assert f"delete Lease {lease_name('n1')}" in lease.trouble
        assert len(caplog.records) == 1


async def test_a_refusal_is_said_once_and_is_over_with_the_next_success(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with api_server() as (server, ask):
        lease = own_lease(ask)
        server.answer(403, on="leases", times=2)
        with caplog.at_level(logging.WARNING):
            assert await lease.write(SAID) == Outcome()
            assert await lease.write(SAID) == Outcome()
        assert [each.levelname for each in caplog.records] == ["WARNING"]
        assert "grant" in lease.trouble
        assert (await lease.write(SAID)).version
        assert lease.trouble == ""


async def test_a_server_that_does_not_answer_is_no_trouble_of_the_lease() -> None:
    async def unreachable(_: Request) -> tuple[int, bytes]:
        raise ApiUnreachable("connection refused")

    lease = own_lease(unreachable)
    assert await lease.write(SAID) == Outcome()
    assert lease.trouble == ""
