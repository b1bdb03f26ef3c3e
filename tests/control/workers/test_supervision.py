"""Workers are fed, watched and replaced, whatever becomes of their processes."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import struct
import time
from typing import Any

import pytest
from msgspec.structs import replace

from tests.control.workers.world import FAST, WEB, Played, eventually, route, world
from uproxy.control.workers.liveness import CRASH_LOOP
from uproxy.core.flows import counter_totals
from uproxy.core.flows.counters import Counters
from uproxy.net.messages import (
    Close,
    Drain,
    Drained,
    LocalClients,
    Open,
    Report,
    Settings,
    Unserved,
    Update,
)

TOO_MANY = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def silent(process: Played) -> None:
    """Neither listens nor says anything."""


def mute(process: Played) -> None:
    """Starts, and is never heard again."""
    process.begin()
    process.listen()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def opened(process: Played) -> list[int]:
    return [each.route.frontend.port for each in process.heard if isinstance(each, Open)]


def told(process: Played, kind: type) -> bool:
    return any(isinstance(each, kind) for each in process.heard)


async def test_a_process_learns_everything_when_it_starts() -> None:
    async with world(routes=3) as made:
        made.workers.set_local_clients(LocalClients(("10.1.1.1",), ()))
        await eventually(lambda: made.processes and len(opened(made.processes[0])) == 3)
        (process,) = made.processes
        assert isinstance(process.heard[0], Settings)
        assert isinstance(process.heard[1], LocalClients)
        assert process.descriptors == 3


async def test_its_successor_learns_what_is_true_by_then() -> None:
    async with world(routes=3) as made:
        await eventually(lambda: made.processes and len(opened(made.processes[0])) == 3)
        made.routes = [route(7)]
        made.workers.set_local_clients(LocalClients(("10.1.1.1",), ()))
        made.processes[0].end(-signal.SIGKILL)
        await eventually(lambda: len(made.processes) == 2 and opened(made.processes[1]) == [7])
        assert LocalClients(("10.1.1.1",), ()) in made.processes[1].heard
        assert [each.restarts for each in made.workers.status()] == [1]


async def test_many_listeners_take_no_descriptor_of_ours_on_their_way() -> None:
    """A descriptor for each, all at once, was more than was left, and ended the program."""
    async with world(routes=5000, plays=silent) as made:
        before = descriptors()
        await eventually(lambda: made.processes)
        process = made.processes[0]
        await asyncio.sleep(0)
        for port in range(1, 5001):
            made.workers.send(0, Update(route(port, backend=2)))
        await asyncio.sleep(0)
        assert descriptors() <= before + 3, "the two ends of its channel, and a look at them"
        process.listen()
        process.begin()
        await eventually(lambda: len(opened(process)) == 5000)
        assert process.descriptors == 5000
        assert descriptors() <= before + 3


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(TOO_MANY, id="out of descriptors"),
        pytest.param(FileNotFoundError(errno.ENOENT, "No such file", "python3"), id="no python"),
        pytest.param(RuntimeError("odd"), id="unexpected"),
    ],
)
async def test_a_process_that_cannot_be_started_is_tried_again(error: Exception) -> None:
    async with world(2) as made:
        await made.workers.ready()
        made.errors = [error]
        made.processes[0].end(1)
        await eventually(lambda: len(made.processes) == 3)
        await eventually(lambda: not any(each.reason for each in made.workers.status()))
        assert made.workers.status()[0].restarts == 2


async def test_one_that_cannot_be_told_what_to_do_is_tried_again() -> None:
    async with world(2, routes=3) as made:
        await made.workers.ready()
        state, made.routes = made.routes, None  # type: ignore[assignment]
        made.processes[0].end(1)
        await eventually(lambda: made.workers.status()[0].restarts > 2)
        assert "could not be supervised" in made.workers.status()[0].reason
        made.routes = state
        await eventually(lambda: opened(made.processes[-1]) == [1, 2, 3])
        assert made.processes[1].alive


async def test_a_message_that_cannot_be_used_leaves_those_behind_it_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(routes=3) as made:
        await eventually(lambda: made.processes and len(opened(made.processes[0])) == 3)
        made.routes = None  # type: ignore[assignment]
        channel = made.processes[0].channel
        channel.post(Unserved([route(1).frontend]), Report([(WEB, Counters(flows=7))], 0))
        await eventually(lambda: WEB in made.workers.counters())
        assert "cannot handle the message Unserved" in caplog.text


async def test_counts_go_on_though_it_is_not_known_who_is_wanted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: object) -> bool:
        raise KeyError("odd")

    async with world(wanted=fail) as made:
        await made.workers.ready()
        made.processes[0].count(flows=1, active=0)
        await eventually(lambda: "cannot remove the counters of deleted Services" in caplog.text)
        made.processes[0].count(flows=1, active=0)
        await eventually(lambda: made.workers.counters()[WEB].flows == 2)


async def test_no_process_can_be_started_and_nothing_is_said_to_be_fine() -> None:
    async with world(2, timeouts=FAST) as made:
        made.broken = PermissionError(errno.EACCES, "Permission denied", "python3")
        await eventually(lambda: list(made.workers.unavailable))
        assert not made.workers.started
        await eventually(lambda: made.workers.need_restart)
        (first, second) = made.workers.problems
        assert first.startswith("worker 0 could not be started ([Errno 13] Permission denied")
        assert second.startswith("worker 1 could not be started")
        assert all("could not be started" in each.reason for each in made.workers.status())
        made.broken = None
        await eventually(lambda: made.workers.started and not list(made.workers.unavailable))
        assert not made.workers.need_restart


async def test_a_crash_loop_is_told_although_each_process_starts() -> None:
    async with world(2) as made:
        made.plays = lambda process: (process.begin(), process.end(1))  # type: ignore[assignment, func-returns-value]
        await eventually(lambda: list(made.workers.unavailable))
        (problem, *_) = made.workers.problems
        assert "exited with code 1" in problem
        assert "times in a row" in problem
        assert max(each.restarts for each in made.workers.status()) >= CRASH_LOOP


async def test_two_that_die_at_once() -> None:
    async with world(2, routes=3) as made:
        await made.workers.ready()
        for process in list(made.processes):
            process.end(-signal.SIGSEGV)
        await eventually(lambda: len(made.processes) == 4)
        await made.workers.ready()
        await eventually(lambda: all(len(opened(each)) == 3 for each in made.processes[2:]))


async def test_a_worker_that_says_nothing_is_doubted_and_then_replaced() -> None:
    async with world(timeouts=FAST, plays=mute) as made:
        await made.workers.ready()
        await eventually(lambda: list(made.workers.unavailable))
        assert made.workers.status()[0].reason.startswith("has not answered for")
        (problem,) = made.workers.problems
        assert problem.startswith("worker 0 has not answered for")
        await eventually(lambda: len(made.processes) == 2)
        assert not made.processes[0].alive


async def test_a_sign_of_life_is_enough() -> None:
    async with world(timeouts=FAST, plays=mute) as made:
        await made.workers.ready()
        for _ in range(20):
            made.processes[0].beat()
            await asyncio.sleep(0.05)
            assert not list(made.workers.unavailable)
        assert len(made.processes) == 1


async def test_a_pause_of_the_control_process_itself_is_nobodys_silence() -> None:
    """SIGSTOP for everything, a virtual machine that was paused, a loop that was blocked."""
    async with world(timeouts=FAST, plays=mute) as made:
        await made.workers.ready()
        for _ in range(3):
            time.sleep(3 * FAST.hung)  # noqa: ASYNC251
            made.processes[0].beat()
            await asyncio.sleep(0.05)
            assert not list(made.workers.unavailable)
        assert len(made.processes) == 1


async def test_a_start_that_takes_for_ever_is_ended() -> None:
    async with world(timeouts=FAST._replace(start=0.3), plays=lambda each: each.listen()) as made:
        await eventually(lambda: len(made.processes) == 2)
        assert made.workers.status()[0].restarts == 1


async def test_one_that_does_not_end_with_its_channel_is_killed() -> None:
    async with world(timeouts=FAST, plays=mute) as made:
        await made.workers.ready()
        made.processes[0].obedient = False
        await eventually(lambda: not made.processes[0].alive)


async def test_what_makes_no_sense_is_the_end_of_that_worker_only() -> None:
    async with world(2) as made:
        await made.workers.ready()
        made.processes[0].sock.send(struct.pack("!I", 2) + b"\x91\x01")
        await eventually(lambda: len(made.processes) == 3)
        assert made.processes[1].alive
        assert [each.restarts for each in made.workers.status()] == [1, 0]


async def test_a_worker_killed_in_the_middle_of_a_frame() -> None:
    async with world() as made:
        await made.workers.ready()
        made.processes[0].count(flows=3, active=1)
        made.processes[0].sock.send(struct.pack("!I", 1000) + b"\xdd")
        made.processes[0].end(-signal.SIGKILL)
        await eventually(lambda: len(made.processes) == 2)
        assert made.workers.counters() == {WEB: Counters(flows=3)}


async def test_reports_and_ends_are_told_with_the_worker_that_they_are_of() -> None:
    """Counts of backends are kept elsewhere, by worker."""
    told: list[tuple[str, int]] = []
    async with world(
        2,
        reported=lambda worker, _: told.append(("report", worker)),
        ended=lambda worker: told.append(("end", worker)),
    ) as made:
        await made.workers.ready()
        await eventually(lambda: {("report", 0), ("report", 1)} <= set(told))
        assert not [each for each in told if each[0] == "end"]
        made.processes[1].end(-signal.SIGKILL)
        await eventually(lambda: ("end", 1) in told)
        assert ("end", 0) not in told


async def test_few_descriptors_are_told_once_for_all_workers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(2) as made:
        await eventually(lambda: len(made.processes) == 2)
        for process in made.processes * 2:
            process.channel.post(Report([], 0, flow_limit=7))
        await eventually(lambda: [each.most_flows for each in made.workers.status()] == [7, 7])
    told = [each for each in caplog.messages if "the limit on open files" in each]
    assert len(told) == 1
    assert "lets each worker serve only 7 flows" in told[0]


async def test_counts_that_were_sent_before_the_end_are_counted() -> None:
    async with world() as made:
        await made.workers.ready()
        for _ in range(100):
            made.processes[0].count(flows=1, active=2)
        made.processes[0].end(1)
        await eventually(lambda: len(made.processes) == 2)
        assert made.workers.counters() == {WEB: Counters(flows=100)}
        assert made.workers.active_flows == 0


async def test_counts_of_ports_that_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter_totals, "KEPT", 0.1)
    wanted = {WEB}
    async with world(wanted=wanted.__contains__) as made:
        await made.workers.ready()
        made.processes[0].count(flows=1, active=1)
        await eventually(lambda: made.workers.counters())
        wanted.clear()
        await asyncio.sleep(0.2)
        assert WEB in made.workers.counters(), "it still has a flow"
        made.processes[0].count(flows=0, active=0)
        await eventually(lambda: not made.workers.counters())


async def test_what_a_worker_could_not_take_is_sent_again() -> None:
    async with world(routes=5) as made:
        await eventually(lambda: made.processes and len(opened(made.processes[0])) == 5)
        (process,) = made.processes
        process.channel.post(Unserved([route(2).frontend, route(4).frontend, route(9).frontend]))
        await eventually(lambda: len(opened(process)) == 7)
        assert opened(process)[5:] == [2, 4]
        assert process.descriptors == 7
        (problem,) = made.workers.problems
        assert "cannot serve 3 frontends" in problem
        assert "LimitNOFILE" in made.workers.status()[0].reason
        process.channel.post(Unserved([]))
        await eventually(lambda: not list(made.workers.problems))


class Refusing:
    """A socket by which nothing can be sent for now."""

    code = errno.ENOBUFS

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, *arguments: Any) -> int:
        return self._unless_refused(self._sock.send, *arguments)

    def sendmsg(self, *arguments: Any) -> int:
        return self._unless_refused(self._sock.sendmsg, *arguments)

    def _unless_refused(self, call: Any, *arguments: Any) -> int:
        if self.code:
            raise OSError(self.code, os.strerror(self.code))
        sent: int = call(*arguments)
        return sent


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ETOOMANYREFS])
async def test_what_the_kernel_has_no_memory_for_is_sent_later(code: int) -> None:
    sockets: list[Refusing] = []

    def wrap(sock: socket.socket) -> Any:
        sockets.append(Refusing(sock))
        sockets[-1].code = code
        return sockets[-1]

    async with world(routes=300) as made:
        made.wrap = wrap
        await eventually(lambda: sockets)
        await asyncio.sleep(0.1)
        assert made.processes[0].heard == []
        assert made.processes[0].alive
        sockets[0].code = 0
        await eventually(lambda: len(opened(made.processes[0])) == 300)
        assert made.workers.status()[0].restarts == 0


async def test_a_worker_that_does_not_listen_costs_no_memory_however_much_is_said() -> None:
    async with world(2, routes=100, plays=silent) as made:
        await eventually(lambda: len(made.processes) == 2)
        await asyncio.sleep(0)
        for number in range(1000):
            for port in range(1, 101):
                made.workers.send(0, Update(route(port, backend=number % 1000)))
        process = made.processes[0]
        process.listen()
        process.begin()
        made.workers.send(0, Drain())
        await eventually(lambda: told(process, Drain))
        assert len(process.heard) < 500, "not what has been overtaken"
        last = {
            each.route.frontend.port: each.route
            for each in process.heard
            if isinstance(each, Open | Update)
        }
        assert list(last.values()) == [route(port, backend=999) for port in range(1, 101)]


async def test_a_socket_may_be_closed_while_it_waits_to_be_sent() -> None:
    async with world(plays=silent, routes=2000) as made:
        await eventually(lambda: made.processes)
        await asyncio.sleep(0)
        for port in range(1, 2001):
            made.workers.send(0, Close(route(port).frontend, 0.0))
        made.sock.close()
        process = made.processes[0]
        process.listen()
        made.workers.send(0, Drain())
        await eventually(lambda: told(process, Drain))
        closed = [each for each in process.heard if isinstance(each, Close)]
        assert len(closed) == 2000
        assert process.alive


class TestDrain:
    async def test_it_is_over_when_each_worker_has_no_flow_left(self) -> None:
        async with world(2) as made:
            await made.workers.ready()
            made.workers.drain()
            await eventually(lambda: all(told(each, Drain) for each in made.processes))
            made.processes[0].channel.post(Drained())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await made.workers.drained()
            made.processes[1].channel.post(Drained())
            await made.workers.drained()

    async def test_a_worker_that_dies_meanwhile_has_no_flow_left_and_no_successor(self) -> None:
        async with world(2) as made:
            await made.workers.ready()
            made.workers.drain()
            made.processes[0].end(-signal.SIGKILL)
            made.processes[1].end(-signal.SIGKILL)
            await made.workers.drained()
            assert len(made.processes) == 2

    async def test_it_does_not_wait_for_one_that_cannot_be_started(self) -> None:
        async with world(1) as made:
            await made.workers.ready()
            made.broken = TOO_MANY
            made.processes[0].end(1)
            await eventually(lambda: made.workers.status()[0].restarts > 3)
            made.workers.drain()
            await made.workers.drained()

    async def test_one_that_is_just_starting_hears_of_it(self) -> None:
        async with world(1, plays=silent) as made:
            await eventually(lambda: made.processes)
            made.workers.drain()
            made.processes[0].listen()
            await eventually(lambda: told(made.processes[0], Drain))

    async def test_one_that_hangs_meanwhile_is_not_waited_for(self) -> None:
        async with world(1, timeouts=FAST, plays=mute) as made:
            await made.workers.ready()
            made.workers.drain()
            await made.workers.drained()
            assert len(made.processes) == 1


async def test_leaving_ends_processes_that_do_not_want_to() -> None:
    async with world(3) as made:
        await made.workers.ready()
        for process in made.processes:
            process.obedient = False
    assert not any(process.alive for process in made.processes)


async def test_everything_said_in_one_turn_goes_together_and_in_order() -> None:
    async with world() as made:
        await made.workers.ready()
        await eventually(lambda: len(made.processes[0].heard) == 2)
        said = [Close(route(1).frontend, 1.0), Update(route(2)), Drain()]
        for message in said:
            made.workers.send(0, message)  # type: ignore[arg-type]
        await eventually(lambda: len(made.processes[0].heard) == 5)
        assert made.processes[0].heard[2:] == said


async def test_new_settings_are_told_to_workers_that_run_and_those_that_start_later() -> None:
    async with world() as made:
        await eventually(lambda: made.processes and told(made.processes[0], LocalClients))
        (first,) = made.processes
        before = first.heard[0]
        assert isinstance(before, Settings)
        changed = replace(before, udp_timeout=7.0)
        made.workers.set_settings(lambda _: changed)
        made.workers.set_settings(lambda _: changed)
        made.workers.send(0, Drain())
        await eventually(lambda: told(first, Drain))
        assert [each for each in first.heard if isinstance(each, Settings)] == [before, changed]
        first.end(-signal.SIGKILL)
        await eventually(lambda: len(made.processes) == 2 and made.processes[1].heard)
        assert made.processes[1].heard[0] == changed
