"""Listeners on a kernel whose calls fail, one after the other."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import count, takewhile

import pytest

from tests.faults.clock import Clock
from tests.faults.injection import ERRORS, FaultInjector
from tests.faults.kernel import Kernel
from tests.faults.recording_workers import RecordingWorkers
from tests.faults.sockets import socket_calls
from uproxy.control.listeners import Listeners
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.core.routing.plan import plan
from uproxy.net.listening import ListenError

STEERING = (socket.SOL_SOCKET, 51)
"""SO_ATTACH_REUSEPORT_CBPF"""


class Nth(FaultInjector):
    """One call fails: the one that has this number."""

    def __init__(self) -> None:
        super().__init__(random.Random(0))
        self.calls = 0
        self.number = 0
        self.choice = 0
        self.failed = ""

    def arm(self, number: int, choice: int) -> None:
        """`choice`: which of the errors that such a call may have."""
        self.calls, self.number, self.choice, self.failed = 0, number, choice, ""

    def error(self, kind: str) -> OSError | None:
        self.calls += 1
        if self.calls != self.number:
            return None
        self.failed = kind
        number = ERRORS[kind][self.choice % len(ERRORS[kind])]
        return OSError(number, os.strerror(number))


def route(protocol: str, *, usable: bool = True, affinity: int = 0, pod: int = 1) -> Route:
    return Route(
        frontend=Frontend(protocol, "192.0.2.1", 80),
        owner=ServicePortName("default", "web", "", protocol),
        kind=FrontendKind.CLUSTER_IP,
        backends=(Backend("198.51.100.1", pod),) if usable else (),
        affinity_timeout=affinity,
    )


class World:
    def __init__(self) -> None:
        self.faults = Nth()
        self.kernel = Kernel(Clock(), self.faults, lambda line: None)
        self.workers = RecordingWorkers()
        self.listeners = Listeners(self.workers, grace=0.0, calls=socket_calls(self.kernel))

    def carry_out(self, step: Step) -> None:
        """As the reconciler does: what is wanted, from what there is."""
        have = self.listeners.actual([step.route.frontend]).get(step.route.frontend)
        if step.closing:
            if have is not None:
                self.listeners.close(step.route.frontend)
        elif have is None:
            self.listeners.open(step.route)
        else:
            self.listeners.update(step.route)

    def retry(self, step: Step) -> None:
        """If it takes another attempt, as the plan sees it."""
        frontend = step.route.frontend
        desired = {} if step.closing else {frontend: step.route}
        if plan(desired, self.listeners.actual([frontend]), frontends=[frontend], synced=True):
            self.carry_out(step)

    def check(self, step: Step) -> None:
        """All is as the step wants it, and nothing is left of what failed."""
        wanted, frontend = step.route, step.route.frontend
        kind = socket.SOCK_STREAM if frontend.protocol == "TCP" else socket.SOCK_DGRAM
        bound = self.kernel.listeners(kind, frontend.port)
        open_sockets = (
            0 if step.closing or (frontend.protocol == "UDP" and not wanted.usable) else 2
        )
        assert len(self.kernel.control.files) == len(bound) == open_sockets
        if frontend.protocol == "TCP":
            assert all(file.listening is wanted.usable for file in bound)
        for index, serving in enumerate(self.workers.serving):
            if not open_sockets:
                assert frontend not in serving
            else:
                assert serving[frontend].route == wanted
                assert serving[frontend].file is bound[index]
                if wanted.usable and wanted.affinity_timeout:
                    assert serving[frontend].steered is (STEERING in bound[0].options)


@dataclass(frozen=True)
class Step:
    route: Route
    closing: bool = False


OPEN, PAUSED = Step(route("TCP")), Step(route("TCP", usable=False))
UDP, UDP_PAUSED = Step(route("UDP")), Step(route("UDP", usable=False))
CASES = [
    pytest.param([], OPEN, id="open"),
    pytest.param([], PAUSED, id="open paused"),
    pytest.param([], Step(route("TCP", affinity=60)), id="open with affinity"),
    pytest.param([OPEN], PAUSED, id="pause"),
    pytest.param([PAUSED], OPEN, id="resume"),
    pytest.param([PAUSED], Step(route("TCP", affinity=60)), id="resume with affinity"),
    pytest.param([OPEN], Step(route("TCP", affinity=60, pod=2)), id="begin affinity"),
    pytest.param([Step(route("TCP", affinity=60))], Step(route("TCP", pod=2)), id="end affinity"),
    pytest.param([OPEN], Step(route("TCP"), closing=True), id="close"),
    pytest.param([], UDP, id="open UDP"),
    pytest.param([], UDP_PAUSED, id="open UDP paused"),
    pytest.param([UDP_PAUSED], UDP, id="resume UDP"),
]


MOST = len(max(ERRORS.values(), key=len))


@pytest.mark.parametrize("choice", range(MOST))
@pytest.mark.parametrize(("before", "step"), CASES)
def test_whatever_call_fails_another_attempt_succeeds(
    before: Sequence[Step], step: Step, choice: int
) -> None:
    """A failure is a ListenError, the only one that there is, and leaves nothing behind."""
    check_each_failure(before, step, choice, then=step)


@pytest.mark.parametrize("choice", range(MOST))
@pytest.mark.parametrize(("before", "step"), [each for each in CASES if each.values[0]])
def test_whatever_call_fails_the_way_back_is_open(
    before: Sequence[Step], step: Step, choice: int
) -> None:
    """When what was wanted before is wanted again."""
    check_each_failure(before, step, choice, then=before[-1])


def check_each_failure(before: Sequence[Step], step: Step, choice: int, *, then: Step) -> None:
    """Let the first call fail, then the second, and so on until there is none that could."""
    failed = sum(
        1
        for _ in takewhile(
            bool, (attempted(before, step, number, choice, then=then) for number in count(1))
        )
    )
    assert failed or step.closing, "no call failed, so nothing was tried"


def attempted(before: Sequence[Step], step: Step, number: int, choice: int, *, then: Step) -> bool:
    """Whether there was such a call, which failed."""
    world = World()
    for each in before:
        world.carry_out(each)
    world.faults.arm(number, choice)
    with nullcontext() if step.closing else suppress(ListenError):
        world.carry_out(step)
    failed = world.faults.failed
    world.faults.arm(0, 0)
    world.retry(then)
    world.check(then)
    if not then.closing:
        world.listeners.close_all(0.0)
    assert not world.kernel.control.files, "descriptors are left"
    return bool(failed)
