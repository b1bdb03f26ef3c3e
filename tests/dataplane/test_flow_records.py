"""The records of flows: what they say, which are kept, and which go to the flow log."""

from __future__ import annotations

import logging
import socket
import time

import msgspec
import pytest

from tests.dataplane.peers import OWNER, eventually, refusing, world
from tests.dataplane.udp import world as udp
from uproxy.core.flows.flow_record import KEPT, FlowRecord
from uproxy.core.route import Backend, Frontend, ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.flow_records import COMPLETED, LOGGED, FlowRecords
from uproxy.dataplane.tcp.tcp_info import path_quality
from uproxy.net.messages import RecordsWanted

BACKEND = Backend("10.0.0.1", 8080)


def record(number: int, code: str = "--", service: str = "web") -> FlowRecord:
    return FlowRecord(
        number=number,
        start=1e9,
        duration=0.1,
        client="192.0.2.1",
        client_port=40000,
        frontend=Frontend("TCP", "192.0.2.9", 80),
        owner=ServicePortName("default", service, "", "TCP"),
        backend=None,
        client_bytes=1,
        backend_bytes=2,
        dial_time=0.0,
        attempts=0,
        code=code,
    )


def shown(records: FlowRecords, wanted: RecordsWanted) -> list[FlowRecord]:
    return records.records(records.find(wanted).numbers)


def complete(records: FlowRecords, number: int, client: str = "192.0.2.1") -> None:
    """As a flow does that both ends have closed."""
    records.number = number
    at = number % KEPT
    known = record(number)
    records.entries[at], records.owners[at] = known.frontend, known.owner
    records.backends[at] = BACKEND
    COMPLETED.pack_into(
        records.completed, at * COMPLETED.size, 1.0, 2.5, 1.25, 10, 20, 40000, 1, client.encode()
    )


def add(records: FlowRecords, *codes: str) -> None:
    for code in codes:
        records.number += 1
        records.add(record(records.number, code))


async def last(context: Context, count: int = 1) -> FlowRecord:
    """The latest record, once there are so many."""
    await eventually(lambda: context.records.number >= count)
    return shown(context.records, RecordsWanted(1, 0, 1))[0]


class TestTCP:
    async def test_a_flow_that_both_ends_have_closed(self) -> None:
        async with world() as w:
            w.context.read_clock()
            client, backend = await w.pair()
            await client.send(b"question")
            assert await backend.receive(8) == b"question"
            await backend.send(b"answers")
            assert await client.receive(7) == b"answers"
            port = client.sock.getsockname()[1]
            client.close()
            backend.close()
            found = await last(w.context)
            assert (found.code, found.reason, found.is_bad) == ("--", "", False)
            assert (found.client, found.client_port) == ("127.0.0.1", port)
            assert found.owner == OWNER
            assert found.backend == w.servers[0].backend
            assert (found.client_bytes, found.backend_bytes) == (8, 7)
            assert (found.number, found.attempts) == (1, 1)
            assert 0 <= found.dial_time <= found.duration
            assert abs(found.start - time.time()) < 60

    @pytest.mark.parametrize(("end", "code"), [("client", "CD"), ("backend", "SD")])
    async def test_one_that_an_end_has_reset(self, end: str, code: str) -> None:
        async with world() as w:
            client, backend = await w.pair()
            await client.send(b"x")
            await backend.receive(1)
            (client if end == "client" else backend).reset()
            found = await last(w.context)
            assert (found.code, found.reason) == (code, "ECONNRESET")
            assert found.client_bytes == 1

    async def test_a_reset_after_one_direction_had_ended(self) -> None:
        async with world() as w:
            client, backend = await w.pair()
            client.finish()
            assert await backend.rest() == b""
            backend.reset()
            assert (await last(w.context)).code == "SL"

    async def test_one_that_was_idle(self) -> None:
        async with world(tcp_idle_timeout=0.2) as w:
            await w.pair()
            found = await last(w.context)
            assert (found.code, found.reason) == ("ID", "idle")

    async def test_one_that_no_backend_has_served(self) -> None:
        async with world() as w:
            dead = refusing()
            w.connect(w.listen(refusing(), dead))
            found = await last(w.context)
            assert (found.code, found.reason) == ("SC", "ECONNREFUSED")
            assert (found.backend, found.attempts) == (dead, 2)

    async def test_one_whose_service_is_removed(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            w.connect(listener)
            await server.accept()
            listener.close(0)
            assert (await last(w.context)).code == "KD"

    async def test_a_client_that_is_refused(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            listener.update(
                msgspec.structs.replace(listener.route, allowed_sources=("192.0.2.0/24",))
            )
            client = w.connect(listener)
            assert await client.was_reset()
            found = await last(w.context)
            assert (found.code, found.reason, found.backend) == ("PC", "source_refused", None)
            assert found.client_port == client.sock.getsockname()[1]

    async def test_a_fault_in_uproxy(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL, logger="uproxy")  # Its records would keep the flow.
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            monkeypatch.setattr(w.flows.dialer, "succeeded", None)
            client = w.connect(listener)
            assert await client.was_reset()
            found = await last(w.context)
            assert (found.code, found.reason) == ("PC", "error")
            w.reactor.failures = 0

    async def test_the_quality_of_the_path(self) -> None:
        async with world() as w:
            client, backend = await w.pair()
            await client.send(b"x")
            await backend.receive(1)
            client.reset()
            found = await last(w.context)
            assert found.client_rtt > 0
            assert found.backend_rtt > 0
            assert (found.client_retransmits, found.backend_retransmits) == (0, 0)


class TestUDP:
    async def test_one_that_was_answered(self) -> None:
        async with udp.world(udp_timeout=0.1) as w:
            server = w.server(b"+")
            client = w.client(w.listen(server.backend))
            assert await client.ask(b"question") == b"+question"
            found = await last(w.context)
            assert (found.code, found.reason) == ("--", "")
            assert (found.client_bytes, found.backend_bytes) == (8, 9)
            assert (found.backend, found.attempts) == (server.backend, 1)
            assert found.client_port == client.sock.getsockname()[1]
            assert found.owner == udp.OWNER

    async def test_one_that_was_not(self) -> None:
        async with udp.world(udp_timeout=0.1) as w:
            server = w.server()
            server.silent = True
            w.client(w.listen(server.backend)).send(b"question")
            found = await last(w.context)
            assert (found.code, found.is_bad) == ("IC", False), "syslog has no replies"

    async def test_one_that_was_not_and_whose_frontend_is_closed(self) -> None:
        async with udp.world() as w:
            server = w.server()
            server.silent = True
            listener = w.listen(server.backend)
            w.client(listener).send(b"message")
            await eventually(lambda: len(server.received) == 1)
            listener.close()
            found = await last(w.context)
            assert (found.code, found.is_bad) == ("K-", False)

    async def test_one_whose_backends_all_refuse(self) -> None:
        async with udp.world() as w:
            w.client(w.listen(udp.unused_backend())).send(b"question")
            found = await last(w.context)
            assert (found.code, found.reason, found.attempts) == ("SC", "ECONNREFUSED", 1)

    async def test_one_whose_frontend_is_closed(self) -> None:
        async with udp.world() as w:
            listener = w.listen(w.server().backend)
            await w.client(listener).ask(b"question")
            listener.close()
            found = await last(w.context)
            assert (found.code, found.is_bad) == ("K-", False)


class TestKept:
    def test_the_latest_are(self) -> None:
        records = FlowRecords()
        add(records, *["--"] * (KEPT + 5))
        found = shown(records, RecordsWanted(request=1, after=0, most=3))
        assert [each.number for each in found] == [KEPT + 3, KEPT + 4, KEPT + 5]
        found = shown(records, RecordsWanted(request=1, after=0, most=2 * KEPT))
        assert [each.number for each in found] == list(range(6, KEPT + 6))

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            pytest.param(RecordsWanted(1, 0, 100), [1, 2, 3, 4, 5], id="all"),
            pytest.param(RecordsWanted(1, 2, 100), [3, 4, 5], id="those that are new"),
            pytest.param(RecordsWanted(1, 5, 100), [], id="none is new"),
            pytest.param(RecordsWanted(1, 6, 100), [1, 2, 3, 4, 5], id="after those of another"),
            pytest.param(RecordsWanted(1, 0, 1), [5], id="the last one"),
            pytest.param(RecordsWanted(1, 0, 0), [], id="none"),
            pytest.param(RecordsWanted(1, 0, 100, only_bad=True), [2, 4], id="bad ones"),
            pytest.param(RecordsWanted(1, 0, 1, only_bad=True), [4], id="the last bad one"),
            pytest.param(
                RecordsWanted(1, 0, 100, service=("default", "web")), [1, 2, 5], id="of a Service"
            ),
            pytest.param(
                RecordsWanted(1, 0, 100, only_bad=True, service=("default", "api")),
                [4],
                id="bad ones of a Service",
            ),
        ],
    )
    def test_what_is_found(self, wanted: RecordsWanted, expected: list[int]) -> None:
        records = FlowRecords()
        for number, (code, service) in enumerate(
            [("--", "web"), ("SC", "web"), ("K-", "api"), ("CD", "api")], 1
        ):
            records.number = number
            records.add(record(number, code, service))
        complete(records, 5)
        assert [each.number for each in shown(records, wanted)] == expected

    @pytest.mark.parametrize("client", ["192.0.2.1", "fe80::1234:5678:9abc:def0%uproxy-test0"])
    def test_a_flow_whose_record_is_made_when_it_is_wanted(self, client: str) -> None:
        records = FlowRecords()
        records.clock_offset = 1e9
        complete(records, 1, client)
        (found,) = shown(records, RecordsWanted(request=1, after=0, most=9))
        assert found == msgspec.structs.replace(
            record(1),
            start=1e9 + 1,
            duration=1.5,
            client=client,
            backend=BACKEND,
            client_bytes=10,
            backend_bytes=20,
            dial_time=0.25,
            attempts=2,
        )

    def test_what_is_overwritten_meanwhile_is_left_out(self) -> None:
        records = FlowRecords()
        add(records, "--", "--")
        numbers = records.find(RecordsWanted(request=1, after=0, most=9)).numbers
        add(records, *["--"] * (KEPT - 1))
        assert [each.number for each in records.records(numbers)] == [2]

    @pytest.mark.parametrize(
        ("service", "numbers"),
        [
            (("default", "web"), [1]),
            (("", "web"), [1]),
            (("default", ""), [1, 2]),
            (("prod", ""), []),
            (("", ""), [1, 2]),
        ],
    )
    def test_a_part_of_the_name_of_a_service(
        self, service: tuple[str, str], numbers: list[int]
    ) -> None:
        records = FlowRecords()
        for number, name in enumerate(("web", "dns"), 1):
            records.number = number
            records.add(record(number, service=name))
        assert records.find(RecordsWanted(1, 0, 9, service=service)).numbers == numbers

    def test_what_is_left_out_is_counted(self) -> None:
        records = FlowRecords()
        add(records, "--", "SC", "--", "SC", "SC")
        assert records.find(RecordsWanted(1, 0, most=2)) == ([4, 5], 3, 5)
        assert records.find(RecordsWanted(1, 0, most=2, only_bad=True)) == ([4, 5], 1, 5)
        assert records.find(RecordsWanted(1, 3, most=2)) == ([4, 5], 0, 5)
        add(records, *["--"] * KEPT)
        assert records.find(RecordsWanted(1, 3, most=KEPT)).left_out == 2
        assert records.find(RecordsWanted(1, 0, most=KEPT)).left_out == 0


class TestLog:
    def logged(self, records: FlowRecords) -> list[str]:
        taken = records.take_log()
        return [] if taken is None else [each.code for each in taken.records]

    def test_how_many_can_change(self) -> None:
        records = FlowRecords(1)
        add(records, "--", "--")
        assert self.logged(records) == ["--", "--"]
        records.log_every(3)
        add(records, "--", "--")
        assert self.logged(records) == []
        add(records, "--", "SC", "--", "--")
        assert self.logged(records) == ["--", "SC", "--"]
        records.log_every(0)
        add(records, "SC", "--")
        assert self.logged(records) == []

    def test_none_without_it(self) -> None:
        records = FlowRecords()
        add(records, "--", "SC")
        assert records.take_log() is None

    def test_some_good_ones_and_all_bad_ones(self) -> None:
        records = FlowRecords(every=3)
        add(records, "--", "SC", "--", "CD", "K-", "--", "--", "--")
        assert self.logged(records) == ["SC", "--", "CD", "--"]

    def test_a_flood_of_bad_ones_leaves_room_for_good_ones(self) -> None:
        records = FlowRecords(every=1)
        add(records, *["PC"] * (LOGGED + 7), "--")
        taken = records.take_log()
        assert taken is not None
        assert [each.code for each in taken.records] == ["PC"] * LOGGED + ["--"]
        assert taken.left_out == 7
        add(records, "PC")
        assert self.logged(records) == ["PC"]

    def test_what_is_left_out_is_said_once(self) -> None:
        records = FlowRecords(every=1)
        add(records, *["--"] * (LOGGED + 1))
        taken = records.take_log()
        assert taken is not None
        assert taken.left_out == 1
        assert records.take_log() is None

    async def test_a_good_flow_of_the_log_says_how_its_path_is(self) -> None:
        async with world(flow_log_every=1) as w:
            client, backend = await w.pair()
            client.close()
            backend.close()
            await eventually(lambda: w.context.records.number == 1)
            taken = w.context.records.take_log()
            assert taken is not None
            assert taken.records[0].code == "--"
            assert taken.records[0].client_rtt > 0


def test_a_kernel_that_does_not_say_how_a_connection_is() -> None:
    with socket.socket() as sock:
        sock.close()
        assert path_quality(sock) == (0, 0)
