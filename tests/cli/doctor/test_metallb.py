"""What the doctor says about MetalLB's objects, which no webhook checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_api.kinds import ADVERTISEMENTS, POOLS
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread
from uproxy.cli.doctor.findings import Finding, Result
from uproxy.cli.doctor.metallb import MetalLBObjects, ask_metallb, check_metallb
from uproxy.core.errors import SourceError

NAMESPACE = "metallb-system"


def metallb(kind: str, name: str, namespace: str = NAMESPACE, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "metallb.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def pool(name: str, *addresses: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    return metallb("IPAddressPool", name, namespace, addresses=list(addresses))


EVERY = metallb("L2Advertisement", "every")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedApi]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with in_thread(FakeApi()) as running:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "k", running.url)))
        yield running


def finding(api: ThreadedApi, *objects: dict[str, Any]) -> Finding:
    api.call(lambda server: server.apply(*objects))
    return check_metallb(ask_metallb(NAMESPACE), NAMESPACE)


@pytest.mark.parametrize(
    ("objects", "text"),
    [
        pytest.param(
            [pool("a", "192.0.2.0/28", namespace="default"), EVERY],
            "IPAddressPool default/a: only those in metallb-system count",
            id="a pool in another namespace",
        ),
        pytest.param(
            [metallb("L2Advertisement", "ad", "default")],
            "L2Advertisement default/ad: only those in metallb-system count",
            id="an advertisement in another namespace",
        ),
        pytest.param(
            [pool("a", "192.0.2.0/28"), pool("b", "192.0.2.15-192.0.2.20"), EVERY],
            "IPAddressPool metallb-system/b: 192.0.2.15-192.0.2.20 overlaps "
            '192.0.2.0-192.0.2.15 of pool "a"; leave one out',
            id="overlap",
        ),
        pytest.param(
            [pool("a", "nonsense"), EVERY],
            "IPAddressPool metallb-system/a: spec.addresses",
            id="range",
        ),
        pytest.param(
            [metallb("L2Advertisement", "ad", ipAddressPools=["b"]), pool("a", "192.0.2.1/32")],
            "IPAddressPool metallb-system/a: no L2Advertisement is for it",
            id="not announced",
        ),
    ],
)
def test_what_takes_no_effect(api: ThreadedApi, objects: list[dict[str, Any]], text: str) -> None:
    found = finding(api, *objects)
    assert found.result is Result.WARN
    assert text in found.text


def test_objects_that_take_effect(api: ThreadedApi) -> None:
    found = finding(api, pool("a", "192.0.2.0/28"), EVERY)
    assert (found.result, found.text) == (
        Result.OK,
        "pools in metallb-system: 1; all take effect and are announced",
    )


def test_a_cluster_without_the_kinds(api: ThreadedApi) -> None:
    api.call(lambda server: server.uninstall(POOLS, ADVERTISEMENTS))
    found = finding(api)
    assert "CRDs are not installed" in found.text


def test_that_other_namespaces_may_not_be_listed_is_said() -> None:
    found = check_metallb(MetalLBObjects(everywhere=False), NAMESPACE)
    assert found.text.endswith(
        "other namespaces were not looked at, as listing them is not allowed"
    )


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = write_kubeconfig(tmp_path / "k", "http://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(SourceError, match="refused"):
        ask_metallb(NAMESPACE)


def test_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SourceError, match="name a kubeconfig"):
        ask_metallb(NAMESPACE)
