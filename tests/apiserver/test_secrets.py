"""Passwords, tokens and the output of plugins are in no message, whatever goes wrong."""

from __future__ import annotations

import logging
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fake_api.server import FakeApi
from tests.sources.kubernetes.cluster import followed
from uproxy.apiserver.access import Access, ExecPlugin
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.exec_plugin import (
    IssuedCredential,
    PluginError,
    obtain_credential,
    read_credential,
)
from uproxy.apiserver.kubeconfig import read_kubeconfig
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable, as_unreachable, describe
from uproxy.core.brief import brief
from uproxy.core.errors import SourceError

SECRET = "hunter2"
PLUGIN = ExecPlugin(api_version="client.authentication.k8s.io/v1", command="login")


def kubeconfig(path: Path, server: str, **user: Any) -> Path:
    path.write_bytes(
        msgspec.json.encode(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


@pytest.mark.parametrize(
    ("server", "clean", "password"),
    [
        ("https://me:hunter2@192.0.2.1:6443", "https://192.0.2.1:6443", "hunter2"),
        ("https://me:hunter%402@192.0.2.1/k8s/", "https://192.0.2.1/k8s", "hunter@2"),
        ("https://me:hunter2@x@[2001:db8::1]:6443", "https://[2001:db8::1]:6443", "hunter2@x"),
        ("https://me@192.0.2.1", "https://192.0.2.1", ""),
    ],
)
def test_a_password_in_the_servers_url_is_used_and_not_kept_there(
    tmp_path: Path, server: str, clean: str, password: str
) -> None:
    access = read_kubeconfig([kubeconfig(tmp_path / "k", server)])
    assert (access.server, access.username, access.password) == (clean, "me", password)
    assert SECRET not in repr(access)
    with_token = read_kubeconfig([kubeconfig(tmp_path / "k", server, token="t")])
    assert (with_token.server, with_token.password) == (clean, "")


@pytest.mark.parametrize(
    "server",
    [
        "me:hunter2@192.0.2.1",
        "ftp://me:hunter2@192.0.2.1",
        "https://me:hunter2@192.0.2.1:port",
        "https://me:hunter2/x@192.0.2.1",
        "https://me:1/hunter2@192.0.2.1",
        "https://me:1?hunter2@192.0.2.1",
        "https://me:1#hunter2@192.0.2.1",
        "https://me:hunter2@[::1",
        "https://me:hunter2@",
    ],
)
def test_a_password_in_a_url_that_cannot_be_used_is_not_shown(tmp_path: Path, server: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_kubeconfig([kubeconfig(tmp_path / "k", server)])
    assert "is not a URL" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "token: 2222222",
        "password: *2222222",
        "password: !2222222 x",
        "password: [2222222]",
        "token: {x: 2222222}",
        "client-key-data: 2222222",
        "tokenFile: 2222222",
        "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, args: [2222222]}",
        "exec: {apiVersion: v1, command: x, env: [{name: A, value: 2222222}]}",
        "auth-provider: 2222222",
    ],
)
def test_a_secret_without_quotes_is_not_shown(tmp_path: Path, line: str) -> None:
    path = kubeconfig(tmp_path / "k", "https://192.0.2.1")
    text = f"""
        current-context: c
        contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
        clusters: [{{name: c, cluster: {{server: https://192.0.2.1}}}}]
        users:
        - name: u
          user:
            {line}
    """
    path.write_text(textwrap.dedent(text))
    with pytest.raises(SourceError) as caught:
        read_kubeconfig([path])
    assert "2222222" not in str(caught.value)
    assert f"{path}:" in str(caught.value), "but the line is"


@pytest.mark.parametrize(
    "text",
    [
        "import sys; sys.exit('hunter2')",
        "import sys; print('hunter2'); sys.exit(1)",
        "print('hunter2')",
        """print('{"apiVersion": "hunter2", "status": {}}')""",
        """print('{"apiVersion": "client.authentication.k8s.io/v1", "status": "hunter2"}')""",
        """print('{"apiVersion": "client.authentication.k8s.io/v1", "status": {"token": 222}}')""",
        """print('{"apiVersion": "client.authentication.k8s.io/v1", "status":'
        '{"token": "hunter2", "expirationTimestamp": "hunter2"}}')""",
        "raise ValueError('hunter2')",
        "print('hunter2' * 1000000)",
        "import os; print('hunter2', flush=True); os.kill(os.getpid(), 9)",
    ],
)
async def test_the_output_of_a_plugin_is_not_shown(
    text: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    plugin = ExecPlugin(
        api_version=PLUGIN.api_version,
        command=sys.executable,
        args=("-c", text, "--password=hunter2"),
        env={"PASSWORD": SECRET},
    )
    with pytest.raises(PluginError) as caught:
        await obtain_credential(plugin)
    printed = capfd.readouterr()
    for place in (str(caught.value), caplog.text, printed.out, printed.err):
        assert SECRET not in place
        assert "222" not in place
    assert sys.executable in str(caught.value), "which plugin it is"


def test_the_repr_of_a_credential_has_no_secrets() -> None:
    output = msgspec.json.encode(
        {"apiVersion": PLUGIN.api_version, "status": {"token": SECRET, "clientKeyData": ""}}
    )
    issued = read_credential(PLUGIN, output)
    assert issued.token == SECRET
    assert SECRET not in repr(issued)
    assert SECRET not in repr(IssuedCredential(certificate=b"c", key=SECRET.encode()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lost https://me:hunter2@192.0.2.1/x: gone", "lost https://192.0.2.1/x: gone"),
        ("http://hunter2@x, http://a:hunter2@y", "http://x, http://y"),
        ("a\n b\t c", "a b c"),
        ("x" * 1000, "x" * 497 + "..."),
        ("mail me@example.com", "mail me@example.com"),
        ("http://me:hunter2" + "x" * 10_000 + "@host", None),
    ],
)
def test_brief(text: str, shown: str | None) -> None:
    found = brief(text)
    assert SECRET not in found
    assert shown is None or found == shown


async def test_errors_of_requests_reveal_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for error in (
        ValueError(f"https://me:{SECRET}@host is no URL"),
        UnicodeEncodeError("ascii", SECRET + "€", 7, 8, f"not {SECRET}"),
        ZeroDivisionError(SECRET),
    ):
        with pytest.raises(ApiUnreachable) as caught, as_unreachable((ValueError,)):
            raise error
        assert SECRET not in str(caught.value)
    assert SECRET not in describe(OSError(5, f"at http://{SECRET}@host"))
    assert SECRET not in caplog.text


async def test_a_token_that_fits_in_no_header_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeApi() as server:
        for token in (f"{SECRET}\n", f"{SECRET}\0", f"{SECRET}\ud800", f"{SECRET}€"):
            async with ApiClient(Access(origin="test", server=server.url, token=token)) as api:
                reason = ""
                try:
                    async with api.send(Request("GET", "/api")):
                        pass
                except ApiUnreachable as error:
                    reason = str(error)
                assert SECRET not in reason
    assert SECRET not in caplog.text


async def test_a_password_in_the_servers_url_is_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeApi() as server:
        server.tokens = {"Basic bWU6aHVudGVyMg=="}
        url = server.url.replace("://", f"://me:{SECRET}@")
        access = read_kubeconfig([kubeconfig(tmp_path / "k", url)])
        async with followed(server, access=access) as (sink, source):
            assert source.last_error == "", "it was used"
            await server.stop()
            await sink.until(lambda: "connection refused" in source.last_error)
            assert SECRET not in source.last_error
            assert SECRET not in " ".join(source.reachability.troubles.values())
    assert "127.0.0.1" in caplog.text
    assert SECRET not in caplog.text
