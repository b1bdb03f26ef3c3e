"""Authentication in every way that kubeconfigs and Pods have, with a server that checks it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fake_api.kubeconfigs import Authority
from tests.fake_api.server import FakeApi
from tests.fake_api.watching import Watching
from tests.sources.kubernetes.cluster import FAST, followed, service
from uproxy.apiserver import client_library
from uproxy.apiserver.access import Access, ExecPlugin
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.credentials import CredentialError, Credentials
from uproxy.apiserver.exec_plugin import PluginError, obtain_credential, read_credential
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable, describe
from uproxy.core.errors import SourceError

_API = "client.authentication.k8s.io/v1"

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl program makes the certificates"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def tls_server(authority: Authority, *, clients: bool = False, **settings: Any) -> FakeApi:
    """A server with a certificate, which wants one of its clients as well, if so asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    return FakeApi(tls=context, **settings)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def plugin_of(path: Path, **settings: Any) -> ExecPlugin:
    return ExecPlugin(api_version=_API, command=str(path), **settings)


async def status_of(access: Access, **settings: Any) -> int:
    async with (
        ApiClient(access, **settings) as api,
        api.send(Request("GET", "/api/v1/services")) as answer,
    ):
        return answer.status


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        pytest.param({"token": "good"}, 200, id="token"),
        pytest.param({"token": "bad"}, 401, id="wrong token"),
        pytest.param({}, 401, id="nothing"),
        pytest.param({"username": "me", "password": "x"}, 200, id="user and password"),
    ],
)
async def test_tokens(settings: dict[str, str], status: int) -> None:
    async with FakeApi() as server:
        server.tokens = {"good", "Basic bWU6eA=="}
        access = Access(origin="test", server=server.url, **settings)  # type: ignore[arg-type]
        assert await status_of(access) == status


async def test_token_that_is_replaced_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    async with FakeApi() as server:
        server.tokens = {"first"}
        access = Access(origin="test", server=server.url, token_file=path)
        async with followed(server, access=access) as (sink, source):
            server.tokens = {"second"}
            server.order(Watching.close)
            await sink.until(lambda: "401" in source.last_error)
            path.write_text("second\n")
            await sink.until(lambda: source.reachable)
            server.apply(service("after"))
            await sink.until(lambda: sink.names() == {"after"})
            path.unlink()
            server.order(Watching.close)
            await sink.until(lambda: f"{path}: no such file or directory" in source.last_error)
            path.write_text("second")
            await sink.until(lambda: source.reachable)


async def test_exec_plugin_is_run_again_when_its_token_is_refused(tmp_path: Path) -> None:
    tokens, runs = tmp_path / "token", tmp_path / "runs"
    tokens.write_text("first")
    plugin = script(
        tmp_path / "login",
        f"""
        import json, os
        request = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
        assert request["spec"] == {{"interactive": False}}, request
        open({str(runs)!r}, "a").write(".")
        token = open({str(tokens)!r}).read()
        print(json.dumps({{"apiVersion": {_API!r}, "kind": "ExecCredential",
                           "status": {{"token": token}}}}))
        """,
    )
    async with FakeApi() as server:
        server.tokens = {"first"}
        access = Access(origin="test", server=server.url, plugin=plugin_of(plugin))
        async with followed(server, access=access) as (_, source):
            assert runs.read_text() == ".", "once for all requests"
            tokens.write_text("second")
            server.tokens = {"second"}
            server.order(Watching.close)
            await server.until(lambda: len(runs.read_text()) == 2 and not source.last_error)
            await server.until(lambda: len(server.watches) == 3)
            assert source.last_error == "", "renewed before a request failed"
            assert runs.read_text() == ".."


async def test_exec_plugin_is_run_again_when_its_token_expires(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    plugin = script(
        tmp_path / "login",
        f"""
        import json
        open({str(runs)!r}, "a").write(".")
        print(json.dumps({{"apiVersion": {_API!r}, "kind": "ExecCredential", "status":
            {{"token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z"}}}}))
        """,
    )
    access = Access(origin="test", server="http://192.0.2.1", plugin=plugin_of(plugin))
    now = 0.0
    credentials = Credentials(access, clock=lambda: now)
    for count in (1, 2, 3):
        for _ in range(3):
            assert await credentials.header() == "Bearer t"
            assert len(runs.read_text()) == count, "not for each request, though it is due"
        now += 6.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("print('hello')", "printed no ExecCredential", id="not JSON"),
        pytest.param(
            "import sys; sys.stderr.write('one\\nlog in first\\n'); sys.exit(3)",
            "exited with code 3; run it by hand to see why",
            id="fails",
        ),
        pytest.param("import time; time.sleep(60)", "has not ended after 0.2 s", id="hangs"),
        pytest.param(
            f'print(\'{{"apiVersion": "{_API}", "status": {{}}}}\')',
            "issued neither a token nor a certificate",
            id="nothing in it",
        ),
        pytest.param(
            'print(\'{"apiVersion": "v0", "status": {}}\')',
            f"uses another API version than {_API}",
            id="another version",
        ),
    ],
)
async def test_exec_plugins_that_fail(tmp_path: Path, text: str, message: str) -> None:
    plugin = plugin_of(script(tmp_path / "login", text))
    patience = 0.2 if "sleep" in text else 20.0
    with pytest.raises(PluginError) as caught:
        await obtain_credential(plugin, patience=patience)
    assert message in str(caught.value)


def counting(path: Path, runs: Path, then: str) -> Path:
    return script(
        path, f"import os, sys, time\nopen({str(runs)!r}, 'a').write('.')\n" + textwrap.dedent(then)
    )


def printing(**status: str) -> str:
    text = msgspec.json.encode({"apiVersion": _API, "status": status}).decode()
    return f"print({text!r})"


async def headers(credentials: Credentials, count: int) -> list[str]:
    """What so many requests at once would send, or why they cannot."""

    async def header() -> str:
        try:
            return await credentials.header()
        except CredentialError as error:
            return str(error)

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(header()) for _ in range(count)]
    return [each.result() for each in asked]


async def test_a_plugin_may_take_longer_than_an_answer(tmp_path: Path) -> None:
    plugin = script(tmp_path / "login", f"import time\ntime.sleep(1)\n{printing(token='t')}")
    async with FakeApi() as server:
        server.tokens = {"t"}
        access = Access(origin="test", server=server.url, plugin=plugin_of(plugin))
        async with followed(server, replace(FAST, response_start=0.5), access) as (_, source):
            assert source.last_error == ""


async def test_requests_that_are_refused_at_once_share_one_run_of_the_plugin(
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    plugin = counting(tmp_path / "login", runs, printing(token="always the same"))
    credentials = Credentials(
        Access(origin="test", server="http://192.0.2.1", plugin=plugin_of(plugin))
    )
    assert set(await headers(credentials, 10)) == {"Bearer always the same"}
    assert runs.read_text() == "."
    generation = credentials.generation
    for _ in range(5):  # Their answers come one after the other, some after the renewal.
        credentials.refused(generation)
        await headers(credentials, 2)
    assert runs.read_text() == "..", "one run, though what it issued is no other token"
    credentials.refused(credentials.generation)
    await headers(credentials, 10)
    assert runs.read_text() == "...", "what is new may be refused too"


async def test_requests_at_once_share_a_failure_of_the_plugin(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    plugin = counting(tmp_path / "login", runs, "time.sleep(0.2)\nsys.exit(7)")
    credentials = Credentials(
        Access(origin="test", server="http://192.0.2.1", plugin=plugin_of(plugin))
    )
    (reason,) = set(await headers(credentials, 10))
    assert reason.endswith("exited with code 7; run it by hand to see why")
    assert runs.read_text() == "."


async def test_exec_plugin_that_is_not_installed() -> None:
    plugin = ExecPlugin(api_version=_API, command="no-such-plugin", install_hint="get it at x\n")
    with pytest.raises(
        PluginError, match=r"cannot run no-such-plugin: No such file.*; get it at x"
    ):
        await obtain_credential(plugin)


def test_certificate_without_a_key_is_refused() -> None:
    status = {"clientCertificateData": "x"}
    output = msgspec.json.encode({"apiVersion": _API, "kind": "ExecCredential", "status": status})
    with pytest.raises(PluginError, match="certificate without a key"):
        read_credential(ExecPlugin(api_version=_API, command="x"), output)


async def test_openid_connect_token_of_a_provider() -> None:
    payload = "eyJzdWIiOiAibWUifQ"  # {"sub": "me"}: never expires
    token = f"e30.{payload}.sig"
    async with FakeApi() as server:
        server.tokens = {token}
        provider = {"name": "oidc", "config": {"id-token": token}}
        access = Access(origin="test", server=server.url, auth_provider=provider)
        assert await status_of(access) == 200
        with pytest.raises(ApiUnreachable, match="auth-provider oidc: "):
            await status_of(replace(access, auth_provider={"name": "oidc"}))


@needs_openssl
async def test_client_certificate(authority: Authority) -> None:
    certificate, key = authority.issue("client")
    async with tls_server(authority, clients=True) as server:
        access = Access(origin="test", server=server.url, authority=authority.certificate)
        with pytest.raises(ApiUnreachable):
            await status_of(access)
        assert await status_of(replace(access, certificate=certificate, key=key)) == 200
        pems = {"certificate": certificate.read_bytes(), "key": key.read_bytes()}
        assert await status_of(replace(access, **pems)) == 200  # type: ignore[arg-type]


@needs_openssl
async def test_watches_are_resumed_at_once_when_the_certificate_is_replaced(
    authority: Authority, tmp_path: Path
) -> None:
    """The old one may have been revoked. A watch that noticed nothing would be silent until its
    time-out, although the cluster changes."""
    certificate, key = (tmp_path / name for name in ("crt", "key"))

    def put(name: str) -> None:
        for path, issued in zip((certificate, key), authority.issue(name), strict=True):
            path.write_bytes(issued.read_bytes())

    put("first")
    async with tls_server(authority, clients=True) as server:
        access = Access(
            origin="test",
            server=server.url,
            authority=authority.certificate,
            certificate=certificate,
            key=key,
        )
        async with followed(server, access=access) as (sink, source):
            before = list(server.watches)
            put("second")
            server.order(Watching.close, on="nodes")
            await server.until(
                lambda: len(server.watches) == 3 and not set(before) & set(server.watches)
            )
            server.apply(service("after"))
            await sink.until(lambda: sink.names() == {"after"})
            assert (source.reachable, source.last_error) == (True, ""), "nothing was lost"


@needs_openssl
async def test_client_certificate_from_an_exec_plugin(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("plugged")
    plugin = script(
        tmp_path / "login",
        f"""
        import json
        print(json.dumps({{"apiVersion": {_API!r}, "kind": "ExecCredential", "status": {{
            "clientCertificateData": open({str(certificate)!r}).read(),
            "clientKeyData": open({str(key)!r}).read()}}}}))
        """,
    )
    async with tls_server(authority, clients=True) as server:
        access = Access(
            origin="test",
            server=server.url,
            authority=authority.certificate,
            plugin=plugin_of(plugin),
        )
        assert await status_of(access) == 200


@needs_openssl
async def test_authority_that_is_replaced_in_its_file(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    path = tmp_path / "ca.crt"
    path.write_bytes(old.certificate.read_bytes())
    async with tls_server(new) as server:
        access = Access(origin="test", server=server.url, authority=path)
        async with followed(server, access=access, synced=False) as (sink, source):
            await sink.until(lambda: "certificate is refused" in source.last_error)
            path.write_bytes(new.certificate.read_bytes())
            await sink.until(lambda: source.reachable)


@needs_openssl
@pytest.mark.parametrize(
    ("settings", "good"),
    [
        pytest.param({}, False, id="unknown authority"),
        pytest.param({"verify": False}, True, id="insecure-skip-tls-verify"),
        pytest.param({"tls_server_name": "localhost"}, True, id="tls-server-name"),
        pytest.param({"tls_server_name": "elsewhere"}, False, id="wrong tls-server-name"),
    ],
)
async def test_certificate_of_the_server(
    authority: Authority, settings: dict[str, Any], good: bool
) -> None:
    async with tls_server(authority) as server:
        access = Access(origin="test", server=server.url, **settings)
        if access.tls_server_name:
            access = replace(access, authority=authority.certificate)
        if good:
            assert await status_of(access) == 200
        else:
            with pytest.raises(ApiUnreachable, match="the server's certificate is refused"):
                await status_of(access)


def old_authority(directory: Path) -> Authority:
    """One whose certificates lack what RFC 5280 wants, as kubeadm's once did."""
    authority = Authority(directory)
    issue_certificate = authority.issue

    def issue_without_extensions(name: str, _: str = "") -> tuple[Path, Path]:
        certificate, key = issue_certificate(name)
        extensions = directory / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=none\n")
        subprocess.run(
            [
                *("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt"),
                *("-CAkey", "ca.key", "-CAcreateserial", "-days", "2"),
                *("-extfile", extensions.name, "-out", certificate.name),
            ],
            cwd=directory,
            check=True,
            capture_output=True,
        )
        return certificate, key

    authority.issue = issue_without_extensions  # type: ignore[method-assign,assignment]
    return authority


@needs_openssl
async def test_hint_for_an_old_cluster(tmp_path: Path) -> None:
    authority = old_authority(tmp_path)
    async with tls_server(authority) as server:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # As Python 3.13 does by itself.
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        told = describe(caught.value)
        assert told.startswith("the server's certificate is refused: ")
        assert told.endswith("try --tls-relaxed-x509")
        access = Access(origin="test", server=server.url, authority=authority.certificate)
        assert await status_of(access, relaxed_x509=True) == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"authority": b"nonsense"}, "certificate-authority: not usable PEM", id="authority"
        ),
        pytest.param(
            {"certificate": b"x", "key": b"y"},
            "client-certificate and client-key: not usable PEM",
            id="certificate",
        ),
    ],
)
def test_certificates_that_can_never_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        ApiClient(Access(origin="here", server="https://192.0.2.1", **settings))


async def test_no_server_listens() -> None:
    async with FakeApi() as server:
        url = server.url
    with pytest.raises(ApiUnreachable, match=r"^connection refused$"):
        await status_of(Access(origin="test", server=url))


def run_python(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_the_library_is_loaded_without_its_models() -> None:
    output = run_python(
        """
        import sys
        from uproxy.apiserver import client_library
        library = client_library.load()
        assert library is not None and client_library.load().ApiClient is library.ApiClient
        print(len([name for name in sys.modules if ".client." in name]), library.ApiClient)
        """
    )
    count, name = output.split(maxsplit=1)
    assert int(count) < 20
    assert "kubernetes_asyncio.client.api_client.ApiClient" in name


def test_the_library_is_loaded_as_a_whole_where_that_fails() -> None:
    output = run_python(
        """
        import sys
        from uproxy.apiserver import client_library
        names = ["", ".client", ".client.models", ".client.rest"]
        library = client_library.load(hollow=["kubernetes_asyncio" + name for name in names])
        print(len([name for name in sys.modules if ".client." in name]), library.ApiClient)
        """
    )
    count, name = output.split(maxsplit=1)
    assert int(count) > 500
    assert "kubernetes_asyncio.client.api_client.ApiClient" in name


def test_the_library_is_not_loaded_before_it_is_needed() -> None:
    output = run_python(
        """
        import sys
        import uproxy.control.startup
        print([name for name in sys.modules if name.startswith("kubernetes_asyncio")])
        """
    )
    assert output.strip() == "[]"


def test_the_library_has_what_is_used() -> None:
    library = client_library.load()
    wanted: list[tuple[Any, Callable[[Any], object]]] = [
        (library.Configuration(), lambda each: each.disable_strict_ssl_verification is False),
        (library.ApiClient, lambda each: callable(each.call_api)),
        (library.KubeConfigLoader, lambda each: callable(each.load_and_set)),
    ]
    assert all(check(each) for each, check in wanted)


def test_the_election_is_loaded_without_the_models() -> None:
    output = run_python(
        """
        import sys
        from uproxy.apiserver import client_library
        library = client_library.load_election()
        print(len([name for name in sys.modules if ".client." in name]), library.LeaderElection)
        """
    )
    count, name = output.split(maxsplit=1)
    assert int(count) < 20
    assert "leaderelection.LeaderElection" in name
