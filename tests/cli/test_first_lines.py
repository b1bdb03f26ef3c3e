"""What `uproxy run` says first."""

from __future__ import annotations

from pathlib import Path

import pytest

import uproxy
from uproxy.apiserver.access import Access
from uproxy.cli.first_lines import first_lines
from uproxy.config.settings import Address, Config

VERSION = f"uproxy {uproxy.__version__}"
PAGE = "the status page is at http://127.0.0.1:10249/"


def config(*manifests: str, **settings: object) -> Config:
    paths = tuple(map(Path, manifests))
    return Config(node_name="n1", manifests=paths, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "access", "line"),
    [
        pytest.param(
            config("examples"),
            None,
            f"{VERSION} serves the Services of the manifests in examples on node n1",
            id="one-path",
        ),
        pytest.param(
            config("a", "b", "c"),
            None,
            f"{VERSION} serves the Services of the manifests in a, b and c on node n1",
            id="three-paths",
        ),
        pytest.param(
            config(*"abcd"),
            None,
            f"{VERSION} serves the Services of 4 paths with manifests on node n1",
            id="many-paths",
        ),
        pytest.param(
            config(),
            Access(origin="kubeconfig /k, context c", server="https://192.0.2.1:6443"),
            f"{VERSION} serves the Services of the cluster at https://192.0.2.1:6443 (kubeconfig "
            "/k, context c) on node n1",
            id="cluster",
        ),
        pytest.param(
            config(service_proxy_name="mine"),
            Access(origin="service account", in_cluster=True, server="https://10.96.0.1"),
            f"{VERSION} serves the Services for mine of the cluster that this Pod runs in "
            "(https://10.96.0.1) on node n1",
            id="pod",
        ),
    ],
)
def test_what_is_served(made: Config, access: Access | None, line: str) -> None:
    assert list(first_lines(made, access, listening=True)) == [line, PAGE]


@pytest.mark.parametrize(
    ("address", "listening", "line"),
    [
        pytest.param(Address("127.0.0.1", 10249), True, PAGE, id="loopback"),
        pytest.param(Address("0.0.0.0", 10249), True, PAGE, id="wildcard"),
        pytest.param(Address("::", 1), True, "the status page is at http://[::1]:1/", id="ipv6"),
        pytest.param(
            Address("127.0.0.1", 10249),
            False,
            "the status page will be at http://127.0.0.1:10249/ when its port is free",
            id="taken",
        ),
        pytest.param(
            None, False, "the status page, the API and the metrics are switched off", id="off"
        ),
    ],
)
def test_where_the_page_is(address: Address | None, listening: bool, line: str) -> None:
    made = config("x", metrics_address=address)
    assert list(first_lines(made, None, listening=listening))[1] == line
