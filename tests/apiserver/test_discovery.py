"""The addresses of the API server that a Pod finds by itself, and what is said about the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.fake_api.kubeconfigs import kubeconfig, write_kubeconfig
from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import LEARNED
from uproxy.apiserver.discovery import KnownAddresses, find_addresses

POD = Access(origin="service account", in_cluster=True, server="https://10.96.0.1:443")
OUTSIDE = Access(origin="kubeconfig k", server="https://api.example:6443")
BASE = "https://10.96.0.1:443"


def servers(known: KnownAddresses, access: Access = POD) -> list[str]:
    found = find_addresses(access, known)
    return [each.server for each in found.all] if found is not None else []


def test_nothing_but_the_environment() -> None:
    assert servers(KnownAddresses()) == [BASE]


def test_in_the_order_of_preference(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "kubelet.conf", "https://192.0.2.2:6443")
    found = find_addresses(POD, KnownAddresses(("192.0.2.1:6443",), path))
    assert found is not None
    assert [(each.server, each.origin) for each in found.all] == [
        ("https://192.0.2.1:6443", "--apiserver-address"),
        ("https://192.0.2.2:6443", f"kubelet's kubeconfig {path}"),
        (BASE, "the environment of this Pod"),
    ]


def test_the_last_known_state_is_read_only_if_nothing_else_is_known(tmp_path: Path) -> None:
    def remembered() -> list[str]:
        return ["192.0.2.3:6443"]

    def too_much() -> list[str]:
        raise AssertionError("a large state takes a while to read")

    found = find_addresses(POD, KnownAddresses((), tmp_path / "absent", remembered))
    assert found is not None
    assert [(each.server, each.origin) for each in found.all] == [
        ("https://192.0.2.3:6443", LEARNED),
        (BASE, "the environment of this Pod"),
    ]
    assert servers(KnownAddresses(("192.0.2.1:6443",), None, too_much))[0] == (
        "https://192.0.2.1:6443"
    )


@pytest.mark.parametrize(
    ("url", "server"),
    [
        pytest.param("https://lb.example", "https://lb.example:443", id="default port"),
        pytest.param("https://[2001:db8::1]:6443", "https://[2001:db8::1]:6443", id="IPv6"),
        pytest.param("https://me:secret@lb.example:1/", "https://lb.example:1", id="password"),
        pytest.param("https://127.0.0.1:6444", "https://127.0.0.1:6444", id="k3s"),
    ],
)
def test_the_server_of_kubelet(tmp_path: Path, url: str, server: str) -> None:
    path = write_kubeconfig(tmp_path / "kubelet.conf", url)
    assert servers(KnownAddresses(kubelet_kubeconfig=path)) == [server, BASE]


def test_nothing_else_of_kubelets_kubeconfig_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its certificates are not in the Pod, and a credential in it is of no use here."""
    path = tmp_path / "kubelet.conf"
    user = {
        "client-certificate": "/var/lib/kubelet/pki/kubelet-client-current.pem",
        "client-key": "/var/lib/kubelet/pki/kubelet-client-current.pem",
        "token": "kubelets-token",
    }
    text = kubeconfig("https://192.0.2.2:6443", user=user, **{"certificate-authority": "/no/ca"})
    path.write_text(yaml.safe_dump(text))
    found = find_addresses(POD, KnownAddresses(kubelet_kubeconfig=path))
    assert found is not None
    assert found.all[0].server == "https://192.0.2.2:6443"
    assert "kubelets-token" not in repr(found.all)
    assert caplog.messages == []


def test_without_the_file_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert servers(KnownAddresses(kubelet_kubeconfig=tmp_path / "no" / "file")) == [BASE]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("clusters: [", "kubelet.conf:2: not YAML", id="not YAML"),
        pytest.param("", 'no context ""; there are: none', id="empty"),
        pytest.param(
            yaml.safe_dump(kubeconfig("http://192.0.2.2:8080")), "its server has no TLS", id="http"
        ),
        pytest.param(
            yaml.safe_dump(kubeconfig("192.0.2.2:6443")), "is not a URL such as", id="no URL"
        ),
        pytest.param(None, "is a directory", id="directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None, reason: str
) -> None:
    """A container runtime may have made a directory where it did not find the file to mount."""
    path = tmp_path / "kubelet.conf"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    assert servers(KnownAddresses(kubelet_kubeconfig=path)) == [BASE]
    (message,) = caplog.messages
    assert message.startswith("kubelet's address of the API server is not used: ")
    assert str(path) in message
    assert reason in message
    assert "\n" not in message


def test_a_kubeconfig_of_a_person_says_enough_unless_an_address_is_given(tmp_path: Path) -> None:
    kubelet = write_kubeconfig(tmp_path / "kubelet.conf", "https://192.0.2.2:6443")
    known = KnownAddresses((), kubelet, lambda: ["192.0.2.3:6443"])
    assert find_addresses(OUTSIDE, known) is None
    given = known._replace(given=("192.0.2.1:6443",))
    assert servers(given, OUTSIDE) == ["https://192.0.2.1:6443", "https://api.example:6443"]
    proxied = replace(OUTSIDE, proxy="http://proxy.example:3128")
    assert servers(given, proxied)[0] == "https://192.0.2.1:6443"
