"""What the doctor asks a cluster, and what the answers mean."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.test_credentials import needs_openssl
from tests.fake_api.kubeconfigs import server_context, write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread
from tests.nasty import NASTY, is_fit_to_print
from uproxy.cli.doctor.cluster import check_cluster, clock_of_certificates
from uproxy.cli.doctor.cluster_facts import Cluster, ahead, ask_cluster
from uproxy.cli.doctor.findings import Finding, Result
from uproxy.core.allocation.node_addresses import EXCLUDED
from uproxy.core.errors import SourceError

NOWHERE = Path("/nonexistent")
LATE = datetime(1999, 12, 31, 23, 59, tzinfo=UTC).timestamp()


def findings(facts: Cluster, *, assigns: bool = True) -> dict[str, Finding]:
    found = list(check_cluster(facts, assigns=assigns))
    return {each.check: each for each in found}


@pytest.mark.parametrize(
    ("facts", "assigns", "name", "result", "text", "advice"),
    [
        pytest.param(
            Cluster(ahead=0.7),
            True,
            "clock",
            "ok",
            "agrees with that of the API server",
            "",
            id="clock",
        ),
        pytest.param(Cluster(ahead=-5.0), True, "clock", "ok", "agrees", "", id="5 s"),
        pytest.param(
            Cluster(ahead=-5.1),
            True,
            "clock",
            "warn",
            "is 5 s behind that of the API server: certificates and tokens may be refused",
            "timedatectl set-ntp true",
            id="a clock that is late",
        ),
        pytest.param(
            Cluster(ahead=7200.0),
            True,
            "clock",
            "warn",
            "is 7,200 s ahead of that of the API server",
            "chronyc makestep",
            id="a clock that is early",
        ),
        pytest.param(Cluster(), True, "clock", "ok", "does not say", "", id="no date"),
        pytest.param(
            Cluster(nodes=3, all_excluded=True),
            True,
            "label of nodes",
            "warn",
            f"all 3 nodes have the label {EXCLUDED}: no address is announced",
            f"kubectl label nodes NAME {EXCLUDED}-",
            id="all nodes are excluded",
        ),
        pytest.param(
            Cluster(nodes=1, all_excluded=True),
            True,
            "label of nodes",
            "warn",
            "the only node has the label",
            "kubectl label",
            id="the only node is excluded",
        ),
        pytest.param(
            Cluster(nodes=3, all_excluded=True),
            False,
            "label of nodes",
            "ok",
            "which matters only with --lb and --lb-pool",
            "",
            id="all nodes are excluded, and uproxy assigns nothing",
        ),
        pytest.param(
            Cluster(nodes=1), True, "label of nodes", "ok", "there are nodes", "", id="a node"
        ),
        pytest.param(
            Cluster(nodes=None), True, "label of nodes", "ok", "is not allowed", "", id="no nodes"
        ),
        pytest.param(
            Cluster(controllers=("k3s ServiceLB", "MetalLB")),
            True,
            "other controllers",
            "warn",
            "k3s ServiceLB, MetalLB may hand out addresses too",
            "spec.loadBalancerClass",
            id="other controllers",
        ),
        pytest.param(
            Cluster(controllers=("MetalLB",)),
            False,
            "other controllers",
            "ok",
            "uproxy serves the addresses that MetalLB may hand out",
            "",
            id="another controller, and uproxy assigns nothing",
        ),
        pytest.param(
            Cluster(), True, "other controllers", "ok", "no other program", "", id="no controller"
        ),
        pytest.param(
            Cluster(controllers=None),
            True,
            "other controllers",
            "ok",
            "listing DaemonSets and Deployments is not allowed",
            "",
            id="no permission",
        ),
    ],
)
def test_findings(
    facts: Cluster, assigns: bool, name: str, result: str, text: str, advice: str
) -> None:
    found = findings(facts, assigns=assigns)[name]
    assert found.result == result
    assert text in found.text
    assert advice in found.advice
    assert bool(found.advice) == (result != "ok")


@pytest.mark.parametrize(
    ("date", "before", "after", "found"),
    [
        pytest.param("Fri, 31 Dec 1999 23:59:00 GMT", LATE, LATE + 1, 0.0, id="the same"),
        pytest.param("Fri, 31 Dec 1999 23:59:00 GMT", LATE + 60, LATE + 61, 60.0, id="early"),
        pytest.param("Sat, 01 Jan 2000 00:00:00 GMT", LATE, LATE + 1, -60.0, id="late"),
        pytest.param("yesterday", LATE, LATE, None, id="no date"),
    ],
)
def test_by_how_much_a_clock_is_ahead(
    date: str, before: float, after: float, found: float | None
) -> None:
    assert ahead({"Date": date}, before, after) == found


def test_a_server_that_does_not_say_when() -> None:
    assert ahead({}, 0, 0) is None


@pytest.mark.parametrize(
    ("reason", "texts"),
    [
        pytest.param(
            "the server's certificate is refused: certificate is not yet valid",
            [
                "the certificate of the API server is not valid yet by this machine's clock, "
                "1999-12-31 23:59 UTC"
            ],
            id="too late",
        ),
        pytest.param(
            "the server's certificate is refused: certificate has expired",
            [
                "the certificate of the API server has expired by this machine's clock, "
                "1999-12-31 23:59 UTC"
            ],
            id="too early",
        ),
        pytest.param("connection refused", [], id="another cause"),
    ],
)
def test_certificates_and_the_clock(reason: str, texts: list[str]) -> None:
    found = list(clock_of_certificates(reason, LATE))
    assert [each.text for each in found] == texts
    assert {each.result for each in found} <= {Result.FAIL}
    assert all("timedatectl" in each.advice for each in found)


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_names_that_harm_terminals(text: str) -> None:
    for each in check_cluster(Cluster(controllers=(text,)), assigns=True):
        assert is_fit_to_print(each.text + each.advice)


# Asking


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedApi]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with in_thread(FakeApi()) as running:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "k", running.url)))
        yield running


def node(name: str, *labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": dict.fromkeys(labels, "")}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


def workload(kind: str, name: str, **labels: str) -> dict[str, Any]:
    labels = {each.replace("__", "/").replace("_", "."): value for each, value in labels.items()}
    metadata = {"name": name, "namespace": "kube-system", "labels": labels}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata}


@pytest.mark.parametrize(
    ("objects", "count", "excluded"),
    [
        pytest.param([], 0, False, id="none"),
        pytest.param([node("a", EXCLUDED), node("b")], 1, False, id="one of two"),
        pytest.param([node("a", EXCLUDED), node("b", EXCLUDED)], 2, True, id="all"),
    ],
)
def test_nodes(api: ThreadedApi, objects: list[dict[str, Any]], count: int, excluded: bool) -> None:
    api.call(lambda server: server.apply(*objects))
    found = ask_cluster((), NOWHERE)
    assert (found.nodes, found.all_excluded) == (count, excluded)


@pytest.mark.parametrize(
    ("one", "found"),
    [
        pytest.param(
            workload("DaemonSet", "svclb-web-1a2b", svccontroller_k3s_cattle_io__svcname="web"),
            "k3s ServiceLB",
            id="k3s ServiceLB",
        ),
        pytest.param(
            workload("Deployment", "controller", app="metallb"), "MetalLB", id="MetalLB's manifests"
        ),
        pytest.param(
            workload("DaemonSet", "m-speaker", app_kubernetes_io__name="metallb"),
            "MetalLB",
            id="MetalLB's chart",
        ),
        pytest.param(workload("Deployment", "kube-vip-cloud-provider"), "kube-vip", id="kube-vip"),
        pytest.param(workload("Deployment", "allocator", app="purelb"), "PureLB", id="PureLB"),
        pytest.param(
            workload("DaemonSet", "openstack-cloud-controller-manager"),
            "openstack-cloud-controller-manager",
            id="of a cloud",
        ),
    ],
)
def test_other_controllers(api: ThreadedApi, one: dict[str, Any], found: str) -> None:
    other = workload("Deployment", "coredns", k8s_app="kube-dns")
    api.call(lambda server: server.apply(other, one))
    assert ask_cluster((), NOWHERE).controllers == (found,)


def test_all_pages_are_looked_at(api: ThreadedApi) -> None:
    many = [workload("Deployment", f"web-{number}") for number in range(600)]
    last = workload("Deployment", "zz", app="metallb")
    api.call(lambda server: server.apply(*many, last))
    assert ask_cluster((), NOWHERE).controllers == ("MetalLB",)


def test_the_clock_of_a_server(api: ThreadedApi) -> None:
    found = ask_cluster((), NOWHERE, clock=lambda: time.time() - 3600)
    assert found.ahead == pytest.approx(-3600, abs=20)
    assert findings(found)["clock"].result is Result.WARN


def test_what_may_not_be_listed_is_left_out(api: ThreadedApi) -> None:
    api.call(lambda server: setattr(server, "forbids", True))
    found = ask_cluster((), NOWHERE)
    assert (found.nodes, found.controllers) == (None, None)
    assert found.ahead is not None
    assert {each.result for each in findings(found).values()} == {Result.OK}


def test_a_server_that_fails(api: ThreadedApi) -> None:
    api.call(lambda server: server.answer(500, on="daemonsets"))
    with pytest.raises(SourceError, match="daemonsets: HTTP 500"):
        ask_cluster((), NOWHERE)


def doctor(*options: str) -> dict[str, dict[str, str]]:
    """What the real command finds, by check."""
    command = [sys.executable, "-m", "uproxy.cli", "doctor", "-o", "json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {each["check"]: each for each in json.loads(done.stdout)}


def test_the_command_asks_the_cluster_of_a_kubeconfig(api: ThreadedApi) -> None:
    api.call(lambda server: server.apply(node("a", EXCLUDED)))
    assert doctor()["label of nodes"]["result"] == "ok"
    found = doctor("--lb-pool", "192.0.2.1")
    assert found["label of nodes"]["result"] == "warn"
    assert found["clock"]["result"] == "ok"


def test_a_cluster_that_is_away_does_not_stop_uproxy_from_working(api: ThreadedApi) -> None:
    api.stop()
    found = doctor()
    assert found["cluster"]["result"] == "warn"
    assert "connection refused" in found["cluster"]["text"]
    assert "clock" not in found


def test_without_a_cluster_none_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: ThreadedApi
) -> None:
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not doctor().keys() & {"cluster", "clock", "label of nodes", "other controllers"}


CONFIG = """\
[ca]
default_ca = authority
[authority]
database = {directory}/index
new_certs_dir = {directory}
serial = {directory}/serial
default_md = sha256
policy = any
x509_extensions = extensions
[any]
commonName = supplied
[extensions]
subjectAltName = IP:127.0.0.1
basicConstraints = critical,CA:TRUE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
keyUsage = critical,keyCertSign,digitalSignature
"""


@needs_openssl
@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        pytest.param("20980101000000Z", "20990101000000Z", "is not valid yet", id="a late clock"),
        pytest.param("20200101000000Z", "20210101000000Z", "has expired", id="an early clock"),
    ],
)
def test_a_certificate_for_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, end: str, text: str
) -> None:
    (tmp_path / "index").touch()
    (tmp_path / "serial").write_text("01\n")
    (tmp_path / "config").write_text(CONFIG.format(directory=tmp_path))
    for words in (
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out request "
        "-subj /CN=server",
        "ca -batch -config config -selfsign -keyfile key -in request -out crt -notext "
        f"-startdate {start} -enddate {end}",
    ):
        subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    context = server_context((tmp_path / "crt", tmp_path / "key"))
    with in_thread(FakeApi(tls=context)) as api:
        settings = {"certificate-authority": str(tmp_path / "crt")}
        path = write_kubeconfig(tmp_path / "k", api.url, **settings)
        monkeypatch.setenv("KUBECONFIG", str(path))
        with pytest.raises(SourceError) as caught:
            ask_cluster((), NOWHERE)
    (found,) = clock_of_certificates(str(caught.value), time.time())
    assert text in found.text
