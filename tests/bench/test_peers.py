"""Configurations that are generated, and the processes around them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.wire import manifests
from bench.wire.churn import SERVICES, churning, service_changed_by
from bench.wire.idle import reachable
from bench.wire.kernel import buffer_pages, slab_bytes
from bench.wire.machine import build_of, processor_of, version_in
from bench.wire.peers import Setup, haproxy_config, nftables_rules
from bench.wire.places import Place, Service, free_place
from bench.wire.processes import (
    Unavailable,
    cpu_nanoseconds,
    find_program,
    output_of,
    pin,
    running,
    stat_fields,
    tree,
)
from tests.e2e.program import wait_for
from uproxy.core.cluster.decode import from_data, kind_of
from uproxy.core.cluster.state import ClusterState
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable

SERVICES_HERE = (
    Service("http", "TCP", Place("127.0.0.1", 8000)),
    Service("udp", "UDP", Place("127.0.0.1", 8001)),
)
PLACES = {"http": Place("127.0.0.1", 9000), "udp": Place("127.0.0.1", 9001)}


@pytest.mark.parametrize(
    ("bulk", "wanted"),
    [
        pytest.param(False, {"nbthread 2", "maxconn 500", "mode tcp"}, id="default"),
        pytest.param(
            True,
            {"nbthread 2", "maxconn 333", "mode tcp", "option splice-auto", "tune.bufsize 262144"},
            id="bulk",
        ),
    ],
)
def test_haproxy_config(tmp_path: Path, bulk: bool, wanted: set[str]) -> None:
    setup = Setup(
        services=SERVICES_HERE, workers=2, directory=tmp_path, descriptors=1200, own_network=False
    )
    text = haproxy_config(setup, {"http": PLACES["http"]}, bulk=bulk)
    lines = [line.strip() for line in text.splitlines()]
    assert wanted - set(lines) == set()
    assert ("option splice-auto" in lines) == bulk
    assert lines[-3:] == ["listen http", "bind 127.0.0.1:9000", "server backend 127.0.0.1:8000"]


def test_nftables_rules() -> None:
    text = nftables_rules(SERVICES_HERE, PLACES)
    assert "ip daddr 127.0.0.1 tcp dport 9000 dnat to 127.0.0.1:8000" in text
    assert "ip daddr 127.0.0.1 udp dport 9001 dnat to 127.0.0.1:8001" in text
    assert text.count("{") == text.count("}")


def table_of(documents: Sequence[dict[str, object]]) -> RoutingTable:
    state = ClusterState(["bench"], node_name="bench")
    kinds = [kind_of(each) for each in documents]
    objects = [from_data(d, kind) for d, kind in zip(documents, kinds, strict=True) if kind]
    state.replace("bench", objects)
    return build(state, RoutingOptions(), RoutingTable(), state.take_dirty())


def test_manifests_make_the_routes_that_are_measured() -> None:
    table = table_of(manifests.measured(SERVICES_HERE, PLACES))
    routes = {str(frontend): route.backends for frontend, route in table.routes.items()}
    assert routes == {
        "127.0.0.1:9000/TCP": (("127.0.0.1", 8000),),
        "127.0.0.1:9001/UDP": (("127.0.0.1", 8001),),
    }


def test_each_bystander_has_a_route_of_its_own() -> None:
    documents = [each for pair in manifests.bystanders(300) for each in pair]
    assert len(table_of(documents).routes) == 300


def test_churn_goes_round_all_services() -> None:
    assert {service_changed_by(each) for each in range(SERVICES)} == set(range(SERVICES))


def test_churn_writes_until_it_is_left(tmp_path: Path) -> None:
    with churning(tmp_path, iter(range(1000))) as written:
        wait_for("three changes", lambda: len(written) >= 3)
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == sorted(f"slice-{service_changed_by(each)}.json" for each in written)


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [
        pytest.param(20000, 9900, id="two for each, and some to spare"),
        pytest.param(100, 1, id="hardly any"),
    ],
)
def test_reachable(descriptors: int, connections: int) -> None:
    assert reachable(descriptors) == connections


def test_kernel_memory_is_read() -> None:
    slabs = "slabinfo - version: 2.1\n# name ...\nTCP 10 12 2048 8 4 : x\nfilp 3 9 256 8 4 : x\n"
    assert slab_bytes(slabs) == 10 * 2048 + 3 * 256
    assert buffer_pages("sockets: used 24\nTCP: inuse 5 orphan 0 tw 1 alloc 5 mem 43\n") == 43
    assert buffer_pages("sockets: used 24\n") == 0


def test_stat_of_a_process_with_an_evil_name() -> None:
    assert stat_fields("12 (a) b (c) S 7 12") == ["S", "7", "12"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        pytest.param("HAProxy version 2.6.12-1+deb12u4 2026/10/17", "2.6.12-1+deb12u4", id="long"),
        pytest.param("go version go1.19.8 linux/amd64", "1.19.8", id="glued to a word"),
        pytest.param("usage: x", "unknown", id="none"),
    ],
)
def test_version_in(text: str, version: str) -> None:
    assert version_in(text) == version


def test_processor_of() -> None:
    assert processor_of("processor\t: 0\nmodel name\t: Z80 (4 MHz)\n") == "Z80 (4 MHz)"
    assert processor_of("processor\t: 0\n") == "unknown"


def test_places_are_free_and_differ() -> None:
    assert len({free_place() for _ in range(20)}) == 20


def test_missing_program_names_its_package() -> None:
    with pytest.raises(Unavailable, match=r"no-such-program is not installed .*some-package"):
        find_program("no-such-program", "some-package")


def test_failing_program_says_why() -> None:
    with pytest.raises(Unavailable, match="the reason"):
        output_of([sys.executable, "-c", "raise SystemExit('the reason')"])


CHILD = """
import os, sys, time
if os.fork() == 0:
    while True:
        sum(range(10000))
print("up", flush=True)
time.sleep(60)
"""


def test_cpu_time_of_children_counts(tmp_path: Path) -> None:
    with running([sys.executable, "-c", CHILD], tmp_path / "log") as process:
        wait_for("two processes", lambda: len(tree(process.process.pid)) == 2)
        pids = tree(process.process.pid)
        wait_for("0.2 s of CPU", lambda: process.cpu_seconds() > 0.2)
        assert process.memory() > 100_000
        os.kill(pids[1], 9)
    assert process.process.returncode is not None


PRIORITY = """
import pathlib, sys
from bench.wire.kernel import priority
from bench.wire.processes import running
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
with priority(3), running(sleep, pathlib.Path(sys.argv[1])) as child:
    print(pathlib.Path(f"/proc/{child.process.pid}/autogroup").read_text())
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="needs sched_autogroup")
def test_priority_is_that_of_new_sessions_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRIORITY, str(tmp_path / "log")],
        start_new_session=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().endswith("nice 3")


def test_program_that_ends_is_noticed(tmp_path: Path) -> None:
    with running([sys.executable, "-c", "print('bye')"], tmp_path / "log") as process:
        process.process.wait()
        with pytest.raises(Unavailable, match="bye"):
            process.wait_until_accepting([free_place()])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"prefix": "/opt", "CONFIG_ARGS": ""}, "no PGO, no LTO", id="plain"),
        pytest.param({"prefix": "/opt"}, "no PGO, no LTO", id="nothing told"),
        pytest.param(
            {"prefix": "/opt", "CONFIG_ARGS": "'--enable-optimizations' '--with-lto=thin'"},
            "with PGO, with LTO",
            id="optimized",
        ),
        pytest.param(
            {"prefix": "/usr", "CONFIG_ARGS": ""}, "as the distribution builds it", id="Debian"
        ),
    ],
)
def test_build_of_the_interpreter(settings: dict[str, str], expected: str) -> None:
    assert build_of(settings) == expected


def test_cpu_time_is_that_of_a_process() -> None:
    before, own = cpu_nanoseconds(os.getpid()), time.process_time_ns()
    after = cpu_nanoseconds(os.getpid())
    assert before <= own <= after


def test_pinned_process_stays_on_its_processor() -> None:
    last = max(os.sched_getaffinity(0))
    held = subprocess.Popen(["sleep", "30"])
    try:
        pin(held.pid, [last])
        assert os.sched_getaffinity(held.pid) == {last}
    finally:
        held.kill()
        held.wait()


def test_process_that_has_ended_takes_no_cpu_time() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert cpu_nanoseconds(ended.pid) == 0
