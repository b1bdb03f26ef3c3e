"""The cluster in which preserved client addresses are measured: it serves, and what backends see
decides whether there is a figure."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.wire import cluster
from bench.wire.cluster import CALLS, HTTP, Call, Cluster, check_seen
from bench.wire.peers import Setup, Subject
from bench.wire.processes import Running, Unavailable
from bench.wire.udp_load import Tally, UdpLoad
from tests.netns import kit

ALL_CALLS = [pytest.param(each, id=each.name) for each in CALLS]


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        pytest.param(Counter(node=7), "saw 7 from node", id="all from another"),
        pytest.param(Counter(pod=9, node=1), "saw 9 from pod, 1 from node", id="one from another"),
        pytest.param(Counter(), "saw nothing", id="none"),
    ],
)
def test_other_addresses_are_no_result(seen: Counter[str], reason: str) -> None:
    check_seen("pod", Counter(pod=3))
    with pytest.raises(Unavailable, match=reason):
        check_seen("pod", seen)


class Started(NamedTuple):
    cluster: Cluster
    uproxy: Running

    def subject(self, *, preserved: bool) -> Subject:
        return self.cluster.subject(self.uproxy, preserved=preserved)


@contextmanager
def started(mode: str, directory: Path) -> Iterator[Started]:
    setup = Setup(services=(), workers=1, directory=directory, descriptors=1000, own_network=False)
    with kit.world(local=2, remote=1) as net, ExitStack() as stack:
        made = Cluster(net)
        yield Started(made, made.start(setup, mode, stack))


@pytest.fixture(scope="module")
def preserving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with started("auto", tmp_path_factory.mktemp("auto")) as made:
        yield made


@pytest.fixture(scope="module")
def masquerading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with started("never", tmp_path_factory.mktemp("never")) as made:
        yield made


def measure(subject: Subject, call: Call) -> Tally:
    """What a measurement does, in short. Raises Unavailable if it is to give no figure."""
    with subject.calls[call.name]() as reached:
        connection = HTTPConnection(*reached.places["http"], timeout=15)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()
        load = UdpLoad(reached.places["udp"], reached.sources(8), 2000)
        try:
            return load.run(0.05)
        finally:
            load.close()


class TestCluster:
    pytestmark = kit.needs("nft=nftables", "nginx=nginx-light")

    @pytest.mark.parametrize("call", ALL_CALLS)
    def test_backends_see_the_node(self, masquerading: Started, call: Call) -> None:
        tally = measure(masquerading.subject(preserved=False), call)
        assert tally.received == tally.sent > 0

    @pytest.mark.parametrize("call", ALL_CALLS)
    def test_backends_see_the_caller(self, preserving: Started, call: Call) -> None:
        tally = measure(preserving.subject(preserved=True), call)
        assert tally.received == tally.sent > 0

    @pytest.mark.parametrize("call", ALL_CALLS)
    def test_no_figure_if_addresses_are_not_preserved(
        self, masquerading: Started, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "_PATIENCE", 0.0)
        with pytest.raises(Unavailable, match=f"must see addresses of {call.caller} only"):
            measure(masquerading.subject(preserved=True), call)

    def test_no_figure_if_one_connection_is_not_as_the_others(self, masquerading: Started) -> None:
        subject = masquerading.subject(preserved=False)
        backend = masquerading.cluster.net.remote[0]

        def measure_with_another() -> None:
            with subject.calls["remote"]() as reached:
                # Its answer shows that the proxy has reached the backend.
                with socket.create_connection(reached.places["http"], timeout=15) as client:
                    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert client.recv(1)
                # Past the Service, from the pod itself.
                socket.create_connection((backend.ipv4, HTTP), timeout=15).close()

        with pytest.raises(Unavailable, match="saw 1 from pod, 1 from node"):
            measure_with_another()
