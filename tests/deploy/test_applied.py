"""An API server that checks fields accepts the manifests, from kubectl and from helm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.rendering import CHART, Object, called, components, kustomized, only, pod_of
from tests.fake_api.kinds import (
    CONFIG_MAPS,
    DAEMON_SETS,
    PROMETHEUS_RULES,
    ROLES,
    SECRETS,
)
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread

EVERYTHING = [
    "--set=loadBalancer.enabled=true,loadBalancer.metallbObjects=true",
    "--set=monitoring.enabled=true,ioUring.enabled=true",
]
MODES = [
    pytest.param(("replace-kube-proxy",), id="replace"),
    pytest.param(("alongside-kube-proxy", "unprivileged"), id="unprivileged"),
]
REST = [
    each
    for each in components()
    if each not in ("replace-kube-proxy", "alongside-kube-proxy", "unprivileged")
]


@pytest.fixture(scope="module")
def api() -> Iterator[ThreadedApi]:
    with in_thread(FakeApi()) as running:
        running.call(lambda server: setattr(server, "strict", True))
        yield running


@pytest.fixture
def kubeconfig(api: ThreadedApi, tmp_path: Path) -> Path:
    return write_kubeconfig(tmp_path / "kubeconfig", api.url)


def kept(api: ThreadedApi) -> set[str]:
    """The kinds of which the server has objects."""
    return api.call(
        lambda server: {
            kind.kind
            for kind in (DAEMON_SETS, CONFIG_MAPS, SECRETS, ROLES, PROMETHEUS_RULES)
            if server.store.items(kind)
        }
    )


def kubectl(kubeconfig: Path, *arguments: str) -> tuple[int, str]:
    # By default, kubectl remembers for ten minutes what the server of an address can do, in the
    # user's home: an earlier test may have had a server there that does not check fields.
    options = (f"--kubeconfig={kubeconfig}", f"--cache-dir={kubeconfig.parent / 'cache'}")
    done = called("kubectl", *options, *arguments)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_kubectl_applies_all_components(
    mode: tuple[str, ...], api: ThreadedApi, kubeconfig: Path, tmp_path: Path
) -> None:
    objects = kustomized(tmp_path, *mode, *REST)
    folder = str(tmp_path / "deploy" / "kustomize")
    code, said = kubectl(kubeconfig, "apply", "--dry-run=server", "--validate=strict", "-k", folder)
    assert code == 0, said
    assert said.count("created (server dry run)") == len(objects)
    assert not kept(api)
    code, said = kubectl(kubeconfig, "apply", "--validate=strict", "-k", folder)
    assert code == 0, said
    assert said.count(" created") == len(objects)
    code, said = kubectl(kubeconfig, "delete", "-k", folder)
    assert code == 0, said
    assert not kept(api)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        pytest.param(
            "hostNetwork:",
            "hostNetwrk:",
            'unknown field "spec.template.spec.hostNetwrk"',
            id="name",
        ),
        pytest.param(
            "containerPort: 10256", "containerPort: x", "containerPort: expected int", id="type"
        ),
        pytest.param(
            "- name: state\n          mount", "- mount", "name: Required value", id="none"
        ),
    ],
)
def test_the_server_notices(
    before: str, after: str, complaint: str, api: ThreadedApi, kubeconfig: Path, tmp_path: Path
) -> None:
    kustomized(tmp_path, "replace-kube-proxy")
    folder = tmp_path / "deploy" / "kustomize"
    daemon_set = folder / "base" / "daemon-set.yaml"
    text = daemon_set.read_text()
    assert before in text
    daemon_set.write_text(text.replace(before, after))
    command = ("apply", "--dry-run=server", "--validate=strict", "-k", str(folder))
    code, said = kubectl(kubeconfig, *command)
    assert code == 1
    assert complaint in said


def test_helm_installs_updates_and_removes_it(api: ThreadedApi, kubeconfig: Path) -> None:
    common = [f"--kubeconfig={kubeconfig}", "--namespace=kube-system"]
    done = called("helm", "install", "uproxy", str(CHART), *common, *EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert "rollout status daemonset/uproxy" in done.stdout
    installed = daemon_set(api)
    done = called(
        "helm", "upgrade", "uproxy", str(CHART), *common, "--set=settings.UPROXY_WORKERS=2"
    )
    assert done.returncode == 0, done.stderr
    updated = daemon_set(api)
    checksums = [
        each["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        for each in (installed, updated)
    ]
    assert checksums[0] != checksums[1]
    assert "PrometheusRule" not in kept(api)
    done = called("helm", "uninstall", "uproxy", *common)
    assert done.returncode == 0, done.stderr
    assert not kept(api)


def daemon_set(api: ThreadedApi) -> Object:
    (item,) = api.call(lambda server: server.store.items(DAEMON_SETS).values())
    return item.data


def test_names_within_the_pods_fit_together(tmp_path: Path) -> None:
    """What a server checks besides fields."""
    objects = kustomized(tmp_path, "replace-kube-proxy", *REST)
    pod = pod_of(objects)
    volumes = {each["name"] for each in pod["volumes"]}
    containers = [*pod["initContainers"], *pod["containers"]]
    mounts = {mount["name"] for each in containers for mount in each.get("volumeMounts", ())}
    assert mounts == volumes
    ports = [port for each in containers for port in each.get("ports", ())]
    assert len({each["name"] for each in ports}) == len(ports)
    update = only(objects, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    assert update["maxSurge"] == 0, "two Pods of a node cannot have the same ports"
