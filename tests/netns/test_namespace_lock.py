"""The lock of a network namespace: one uproxy has it, and no other process can hold or fake it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.program import service, wait_for, write
from tests.netns import kit
from tests.netns.kit import Namespace, World, namespace
from tests.netns.node import program
from tests.netns.test_claims import claimed
from uproxy.host import claim_routes, our_routes
from uproxy.host.namespace_lock import CLAIMS, CLIENT_ADDRESSES, Locked, take_lock
from uproxy.host.our_routes import CLAIM

pytestmark = kit.needs("setpriv=util-linux")

ADDRESS = "203.0.113.10"
WEB = service("web", type="ClusterIP", clusterIP=ADDRESS, ports=[{"port": 80}])
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")
NAMES = ("uproxy-claims", "uproxy-client-addresses")

_EXHAUST = f"""
import socket
held = []
for name in {NAMES!r}:
    for _ in range(5000):
        each = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        each.setblocking(False)
        try:
            each.connect(chr(0) + name)
        except OSError:
            break
        held.append(each)
print("done", flush=True)
input()
"""
"""Fills the queue of every process that listens at a name."""

_SQUAT = f"""
import socket
held = []
for name in {NAMES!r}:
    each = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    each.bind(chr(0) + name)
    each.listen()
    held.append(each)
for kind in {(CLAIMS, CLIENT_ADDRESSES)!r}:
    for number in range(kind, kind + 300):
        each = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        each.bind((number, 0))
        held.append(each)
print("done", flush=True)
input()
"""
"""Takes every name, and many of the numbers."""


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespace("lock") as made:
        yield made


@pytest.fixture(scope="module")
def python_for_all_users() -> None:
    """An interpreter in the home directory of a user cannot be used by other users."""
    words = [*NOBODY, sys.executable, "-c", ""]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"other users cannot run {sys.executable}: {done.stderr.strip()}")


@contextmanager
def unprivileged(space: Namespace, script: str) -> Iterator[None]:
    """A process without privileges, which runs a script for as long as the context is open."""
    words = space.command(*NOBODY, sys.executable, "-c", script)
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "done\n"
            yield
        finally:
            process.kill()


def cleanup(space: Namespace) -> str:
    words = space.command(sys.executable, "-m", "uproxy.cli", "cleanup")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.usefixtures("python_for_all_users")
def test_a_running_one_is_recognised_whatever_local_users_do(
    space: Namespace, manifests: Path
) -> None:
    """Neither `uproxy cleanup` nor a second one takes away what it has claimed."""
    write(manifests, "web.yaml", WEB)
    with (
        program(space, manifests) as uproxy,
        unprivileged(space, _EXHAUST),
        ExitStack() as stack,
    ):
        assert claimed(space) == {ADDRESS}
        assert "another uproxy claims the addresses of this node" in cleanup(space)
        assert claimed(space) == {ADDRESS}
        empty = manifests.parent / "empty"
        empty.mkdir()
        ports = ("--healthz-bind-address=127.0.0.1:1", "--metrics-bind-address=127.0.0.1:2")
        second = stack.enter_context(program(space, empty, *ports, ready=False))
        wait_for("the second one", lambda: "NodePorts are served" in second.log)
        assert second.stop() == 0
        assert claimed(space) == {ADDRESS}, "the claim of a uproxy that runs"
        assert uproxy.stop() == 0
        assert claimed(space) == set()


@pytest.mark.usefixtures("python_for_all_users")
def test_a_process_without_privileges_cannot_prevent_claims(
    space: Namespace, manifests: Path
) -> None:
    write(manifests, "web.yaml", WEB)
    with unprivileged(space, _SQUAT):
        with program(space, manifests) as uproxy:
            assert claimed(space) == {ADDRESS}
            assert "another uproxy claims" in cleanup(space), "not the squatter"
            uproxy.kill()
        assert "claimed addresses: 1 removed" in cleanup(space)
        assert claimed(space) == set()


class TestLock:
    def test_it_is_held_until_it_is_closed(self, space: Namespace) -> None:
        with space.inside():
            with take_lock(), pytest.raises(Locked):
                take_lock()
            take_lock().close()

    def test_each_kind_and_each_namespace_has_its_own(self, space: Namespace, net: World) -> None:
        with space.inside(), take_lock(), take_lock(CLIENT_ADDRESSES):
            for kind in (CLAIMS, CLIENT_ADDRESSES):
                with pytest.raises(Locked):
                    take_lock(kind, attempts=1)
            with net.client.space.inside():
                take_lock().close()

    def test_other_readers_of_multicast_routes_do_not_matter(self, space: Namespace) -> None:
        group = 1 << 29
        with space.inside():
            import socket

            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as daemon:
                daemon.bind((0, group))
                with take_lock(), pytest.raises(Locked):
                    take_lock(attempts=1)

    @pytest.mark.usefixtures("python_for_all_users")
    def test_a_process_that_may_not_claim_cannot_hold_it(self, space: Namespace) -> None:
        script = "from uproxy.host.namespace_lock import take_lock; take_lock()"
        words = space.command(*NOBODY, sys.executable, "-c", script)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert "PermissionError" in done.stderr

    def test_a_process_that_cannot_see_the_others_gives_way(self, space: Namespace) -> None:
        blind = partial(take_lock, listing=Path("/nowhere/netlink"))
        with space.inside():
            assert claim_routes.add_claims([ADDRESS]) == {}
            with pytest.raises(OSError, match="/nowhere/netlink: No such file"):
                our_routes.remove_all_routes(CLAIM, blind)
            assert claim_routes.held_claims() == {ADDRESS}
