"""What the doctor says about the addresses of the API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import in_thread
from tests.ports import free_port
from uproxy.apiserver.candidates import ServerAddress
from uproxy.cli.doctor.api_servers import ask_api_servers
from uproxy.cli.doctor.checks import api_servers
from uproxy.cli.doctor.findings import Result
from uproxy.core.errors import SourceError

READY = ServerAddress("https://192.0.2.1:6443", "kubelet's kubeconfig k")
DEAD = ServerAddress("https://10.96.0.1:443", "the environment", reason="connection refused")


@pytest.mark.parametrize(
    ("addresses", "result", "text"),
    [
        pytest.param(
            [READY],
            Result.OK,
            "answers at https://192.0.2.1:6443, from kubelet's kubeconfig k",
            id="one",
        ),
        pytest.param(
            [READY, DEAD],
            Result.OK,
            "answers at https://192.0.2.1:6443, from kubelet's kubeconfig k; not at "
            "https://10.96.0.1:443 (the environment): connection refused",
            id="the first one",
        ),
        pytest.param(
            [DEAD, READY],
            Result.WARN,
            "answers at https://192.0.2.1:6443, from kubelet's kubeconfig k; not at "
            "https://10.96.0.1:443 (the environment): connection refused",
            id="not the first one",
        ),
        pytest.param(
            [DEAD],
            Result.FAIL,
            "does not answer: https://10.96.0.1:443 (the environment): connection refused",
            id="none",
        ),
    ],
)
def test_findings(addresses: list[ServerAddress], result: Result, text: str) -> None:
    (finding,) = api_servers(addresses)
    assert (finding.result, finding.text) == (result, text)
    assert bool(finding.advice) == (result is Result.FAIL)


def test_no_finding_outside_of_a_pod() -> None:
    assert list(api_servers([])) == []


def test_whom_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = f"127.0.0.1:{free_port()}"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with in_thread(FakeApi()) as api:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "k", api.url)))
        assert ask_api_servers((), tmp_path / "absent") == (), "kubectl tells as much"
        assert [
            (each.server, each.reason) for each in ask_api_servers((dead,), tmp_path / "absent")
        ] == [(f"http://{dead}", "connection refused"), (api.url, "")]


def test_that_there_is_no_access_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SourceError, match="name a kubeconfig in KUBECONFIG"):
        ask_api_servers(("127.0.0.1:1",), tmp_path / "absent")


def test_without_credentials_no_address_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such"}}
    path = write_kubeconfig(tmp_path / "k", "http://127.0.0.1:1", user=user)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SourceError, match="cannot run /no/such: No such file"):
        ask_api_servers(("127.0.0.1:1",), tmp_path / "absent")
