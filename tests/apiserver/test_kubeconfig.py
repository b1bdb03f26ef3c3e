"""kubeconfig files: how several are merged, and the errors about those that cannot be used."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fake_api.kubeconfigs import kubeconfig, write_kubeconfig
from uproxy.apiserver.access import Access, ExecPlugin
from uproxy.apiserver.discovery import find_access
from uproxy.apiserver.kubeconfig import read_kubeconfig
from uproxy.core.errors import SourceError

URL = "https://192.0.2.1:6443"


def refusal(*paths: Path, context: str = "") -> str:
    with pytest.raises(SourceError) as caught:
        read_kubeconfig(paths, context)
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(path: Path, **sections: Any) -> Path:
    path.write_text(yaml.safe_dump({**kubeconfig(URL), **sections}))
    return path


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_token(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "k", f"{URL}/", user={"token": "secret"})
    access = read_kubeconfig([path])
    assert access == Access(origin=f'kubeconfig {path}: context "test"', server=URL, token="secret")


def test_paths_start_from_the_file_and_data_wins(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("-")
    (tmp_path / "token").write_text("t")
    path = write_kubeconfig(
        tmp_path / "k",
        URL,
        user={
            "tokenFile": "token",
            "client-certificate": "missing",
            "client-certificate-data": encoded("cert"),
            "client-key-data": encoded("key"),
        },
        **{"certificate-authority": "ca", "tls-server-name": "api", "proxy-url": "http://p:1"},
    )
    access = read_kubeconfig([path])
    assert access.authority == tmp_path / "ca"
    assert access.token_file == tmp_path / "token"
    assert (access.certificate, access.key) == (b"cert", b"key")
    assert (access.tls_server_name, access.proxy) == ("api", "http://p:1")


def test_what_is_null_or_unknown_is_passed_over(tmp_path: Path) -> None:
    path = changed(
        tmp_path / "k",
        users=[{"name": "test", "user": None}],
        preferences={},
        contexts=[
            {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": None}}
        ],
    )
    assert read_kubeconfig([path]).token == ""


def test_context_without_a_user_is_anonymous(tmp_path: Path) -> None:
    path = changed(tmp_path / "k", contexts=[{"name": "test", "context": {"cluster": "test"}}])
    assert read_kubeconfig([path]).server == URL


def test_of_several_files_the_first_is_right(tmp_path: Path) -> None:
    first = tmp_path / "a" / "k"
    first.parent.mkdir()
    first.write_text(
        yaml.safe_dump(
            {
                "users": [{"name": "test", "user": {"tokenFile": "t"}}],
                "current-context": "second",
            }
        )
    )
    (first.parent / "t").write_text("t")
    second = changed(
        tmp_path / "k",
        contexts=[{"name": "second", "context": {"cluster": "test", "user": "test"}}],
        users=[{"name": "test", "user": {"token": "later"}}],
    )
    access = read_kubeconfig([tmp_path / "missing", first, second])
    assert access.token_file == first.parent / "t"
    assert access.token == ""
    assert access.server == URL


def test_context_by_name(tmp_path: Path) -> None:
    path = changed(
        tmp_path / "k",
        clusters=[
            {"name": "test", "cluster": {"server": URL}},
            {"name": "other", "cluster": {"server": "http://192.0.2.2"}},
        ],
        contexts=[{"name": "other", "context": {"cluster": "other"}}],
    )
    assert read_kubeconfig([path], "other").server == "http://192.0.2.2"


def test_exec_plugin(tmp_path: Path) -> None:
    path = write_kubeconfig(
        tmp_path / "k",
        URL,
        user={
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "./bin/login",
                "args": ["-q"],
                "env": [{"name": "A", "value": "b"}],
                "provideClusterInfo": True,
                "interactiveMode": "IfAvailable",
            }
        },
        **{"certificate-authority-data": encoded("ca")},
    )
    assert read_kubeconfig([path]).plugin == ExecPlugin(
        api_version="client.authentication.k8s.io/v1",
        command=str(tmp_path / "bin/login"),
        args=("-q",),
        env={"A": "b"},
        cluster={"server": URL, "certificate-authority-data": encoded("ca")},
    )


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        pytest.param(
            {"current-context": ""},
            "kubeconfig {}: no current-context; choose one with --context NAME",
            id="no current context",
        ),
        pytest.param(
            {"current-context": "x"},
            'kubeconfig {}: no context "x"; there are: test',
            id="unknown context",
        ),
        pytest.param(
            {"clusters": []},
            'kubeconfig {}: context "test": no cluster "test"; there are: none',
            id="unknown cluster",
        ),
        pytest.param(
            {"users": [{"name": "a"}, {"name": "b"}]},
            'kubeconfig {}: context "test": no user "test"; there are: a, b',
            id="unknown user",
        ),
        pytest.param(
            {"clusters": [{"name": "test", "cluster": {}}]},
            'kubeconfig {}: context "test": server: "" is not a URL such as https://192.0.2.1:6443',
            id="no server",
        ),
        pytest.param(
            {"clusters": [{"name": "test", "cluster": {"server": "192.0.2.1:6443"}}]},
            'kubeconfig {}: context "test": server: "192.0.2.1:6443" is not a URL such as '
            "https://192.0.2.1:6443",
            id="server without a scheme",
        ),
        pytest.param(
            {"users": [{"name": "test", "user": {"tokenFile": "/nowhere/t"}}]},
            'kubeconfig {}: context "test": tokenFile: /nowhere/t: no such file or directory',
            id="missing token file",
        ),
        pytest.param(
            {"users": [{"name": "test", "user": {"client-key-data": "a2V5"}}]},
            'kubeconfig {}: context "test": client-key: a client certificate and its key are '
            "needed together",
            id="key without certificate",
        ),
        pytest.param(
            {"users": [{"name": "test", "user": {"client-key-data": "a"}}]},
            'kubeconfig {}: context "test": client-key-data: not base64',
            id="not base64",
        ),
        pytest.param(
            {"users": [{"name": "test", "user": {"as": "root"}}]},
            'kubeconfig {}: context "test": as: impersonation is not supported; give a user that '
            "has the permissions itself",
            id="impersonation",
        ),
        pytest.param(
            {"users": [{"name": "test", "user": {"token": 5}}]},
            "kubeconfig {}:16: users[0].user.token: expected text; put it in quotes",
            id="wrong type",
        ),
    ],
)
def test_what_does_not_fit(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    path = changed(tmp_path / "k", **sections)
    assert refusal(path) == message.format(path)


def test_missing_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a", tmp_path / "b") == (
        f"kubeconfig {tmp_path}/a:{tmp_path}/b: no such file; give one with --kubeconfig FILE"
    )


def test_directory(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"kubeconfig {tmp_path}: cannot be read: is a directory"


def test_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("a: [")
    assert refusal(tmp_path / "k").startswith(f"kubeconfig {tmp_path}/k:2: not YAML")


def test_in_cluster_before_kubeconfig_unless_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("-")
    path = write_kubeconfig(tmp_path / "k", URL)
    inside = {"KUBERNETES_SERVICE_HOST": "2001:db8::1", "KUBERNETES_SERVICE_PORT": "443"}
    environ = {**inside, "KUBECONFIG": str(path)}

    def server(*args: Any, environ: dict[str, str] = environ) -> str:
        access = find_access(*args, environ=environ, service_account=tmp_path)
        return access.server if access is not None else "none"

    assert server() == "https://[2001:db8::1]:443"
    assert server(path) == URL
    assert server(None, "test") == URL
    assert server(environ={"KUBECONFIG": str(path)}) == URL
    assert server(environ={"HOME": str(tmp_path)}) == "none"
    assert server(environ={}) == "none"
    (tmp_path / ".kube").mkdir()
    write_kubeconfig(tmp_path / ".kube" / "config", "http://192.0.2.9")
    assert server(environ={"HOME": str(tmp_path)}) == "http://192.0.2.9"
    with pytest.raises(SourceError):
        server(environ={"KUBECONFIG": "/nowhere/k"})
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(SourceError, match=r"ca\.crt: no such file"):
        server()
