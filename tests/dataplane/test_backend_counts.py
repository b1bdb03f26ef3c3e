"""What a worker counts of each backend, and reports."""

from __future__ import annotations

import errno

from tests.dataplane.peers import eventually, refusing, world
from tests.dataplane.udp import world as udp
from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.ejection import FAILURES
from uproxy.core.route import Backend, ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.count_reports import CountReports
from uproxy.dataplane.ports import Ports

OFFSET = 1e9
"""From monotonic to Unix seconds."""
NAME = ServicePortName("default", "web", "", "TCP")


def reported(context: Context) -> dict[Backend, BackendCounts]:
    return {backend: counts for _, backend, counts in CountReports(context.ports).backends(OFFSET)}


class TestTCP:
    async def test_a_flow_that_is_refused_first(self) -> None:
        async with world() as w:
            dead, server = refusing(), w.server()
            client = w.connect(w.listen(dead, server.backend))
            backend = await server.accept()
            await client.send(b"question")
            assert await backend.receive(8) == b"question"
            await backend.send(b"answer")
            assert await client.receive(6) == b"answer"
            w.flows.collect()
            counts = reported(w.context)
            refused, served = counts[dead], counts[server.backend]
            assert refused.failures == {"ECONNREFUSED": 1}
            assert (refused.flows, refused.active, refused.retries) == (0, 0, 0)
            assert refused.last_error == "ECONNREFUSED"
            assert refused.last_error_at > OFFSET
            assert (served.flows, served.active, served.retries) == (1, 1, 1)
            assert (served.client_bytes, served.backend_bytes) == (8, 6)
            assert sum(served.connect_times) == 1
            assert (served.failures, served.last_error) == ({}, "")

    async def test_one_that_does_not_answer(self) -> None:
        async with world() as w:
            hole, server = w.black_hole(), w.server()
            w.connect(w.listen(hole.backend, server.backend))
            await server.accept()
            assert reported(w.context)[hole.backend].failures == {"ETIMEDOUT": 1}

    async def test_the_end_of_a_flow_is_reported_and_then_nothing_more(self) -> None:
        async with world() as w:
            client, backend = await w.pair()
            ((_, counts),) = reported(w.context).items()
            assert (counts.flows, counts.active) == (1, 1)
            assert reported(w.context) == {}
            client.close()
            backend.close()
            await w.idle()
            ((_, counts),) = reported(w.context).items()
            assert (counts.flows, counts.active) == (0, 0)
            assert reported(w.context) == {}


class TestUDP:
    async def test_a_flow_that_moves_leaves_its_bytes_with_the_first_backend(self) -> None:
        async with udp.world() as w:
            first, second = w.server(b"1"), w.server(b"2")
            client = w.client(w.listen(first.backend, second.backend))
            assert await client.ask(b"one") == b"1one"
            first.sock.close()
            client.send(b"to nobody")
            await eventually(lambda: w.counters.dial_failures == 1)
            assert await client.ask(b"two") == b"2two"
            w.all_flows.collect()
            counts = reported(w.context)
            assert counts[first.backend].failures == {errno.errorcode[errno.ECONNREFUSED]: 1}
            assert (counts[first.backend].flows, counts[first.backend].active) == (1, 0)
            assert (counts[second.backend].flows, counts[second.backend].active) == (1, 1)
            assert (counts[first.backend].client_bytes, counts[first.backend].backend_bytes) == (
                12,
                4,
            )
            assert (counts[second.backend].client_bytes, counts[second.backend].backend_bytes) == (
                3,
                4,
            )
            assert counts[second.backend].retries == 1

    async def test_what_the_first_backend_has_refused_counts_for_the_second(self) -> None:
        async with udp.world() as w:
            dead, second = udp.unused_backend(), w.server(b"2")
            assert await w.client(w.listen(dead, second.backend)).ask(b"one") == b"2one"
            w.all_flows.collect()
            counts = reported(w.context)
            assert counts[dead].client_bytes == 0
            assert counts[dead].failures == {"ECONNREFUSED": 1}
            assert (counts[second.backend].client_bytes, counts[second.backend].retries) == (3, 1)

    async def test_what_a_backend_has_refused_is_not_among_its_bytes(self) -> None:
        """More than a flow keeps, all in one turn of the ring."""
        async with udp.world() as w:
            dead, second = udp.unused_backend(), w.server(b"2")
            client = w.client(w.listen(dead, second.backend))
            for number in range(40):
                client.send(b"%03d" % number)
            await client.receive()
            client.send(b"the last")
            await eventually(lambda: b"the last" in [data for data, _ in second.received])
            w.all_flows.collect()
            counts = reported(w.context)
            assert counts[second.backend].client_bytes + counts[dead].client_bytes == (
                w.counters.client_bytes
            )
            received = sum(len(data) for data, _ in second.received)
            assert received <= counts[second.backend].client_bytes


class TestReports:
    def test_a_few_at_a_time_and_each_once(self) -> None:
        ports = Ports(lambda: 0.5)
        reports = CountReports(ports)
        backends = [Backend(f"10.0.0.{number}", 80) for number in range(5)]
        for each in backends:
            ports.get(NAME).balancer.begin(each).connected(0.001)
        seen = []
        while found := reports.backends(0.0, most=2):
            assert len(found) <= 2
            seen += [backend for _, backend, _ in found]
        assert seen == backends

    def test_a_backend_without_flows_takes_no_room(self) -> None:
        ports = Ports(lambda: 0.5)
        reports = CountReports(ports)
        balancer = ports.get(NAME).balancer
        balancer.begin(Backend("10.0.0.1", 80)).active -= 1
        balancer.tally(Backend("10.0.0.2", 80)).failed("ECONNREFUSED", 1.0)
        reports.changes({NAME})
        assert len(reports.backends(0.0)) == 1
        assert not balancer.tallies

    def test_a_removed_port_stays_until_its_backends_are_reported(self) -> None:
        ports = Ports(lambda: 0.5)
        reports = CountReports(ports)
        ports.get(NAME).balancer.tally(Backend("10.0.0.2", 80)).failed("ECONNREFUSED", 1.0)
        reports.changes(())
        assert [backend for _, backend, _ in reports.backends(0.0)] == [Backend("10.0.0.2", 80)]
        reports.changes(())
        assert not ports.all

    def test_until_when_a_backend_is_set_aside(self) -> None:
        ports = Ports(lambda: 0.5)
        backend = Backend("10.0.0.1", 80)
        backends = (backend, Backend("10.0.0.2", 80))
        for _ in range(FAILURES):
            ports.get(NAME).balancer.failed(backend, backends, 100.0, "ECONNREFUSED")
        ((_, _, counts),) = CountReports(ports).backends(OFFSET)
        assert (counts.ejections, counts.aside_until) == (1, 101.0)
        assert counts.last_error_at == 100.0 + OFFSET
