"""docs/install: each command that needs no real cluster is run as it stands, with a fake one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.deploy.rendering import ROOT, pod_of, rendered
from tests.fake_api.kinds import CONFIG_MAPS, DAEMON_SETS, ROLES
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.store import Backup
from tests.fake_api.threads import ThreadedApi, in_thread

PAGES: Final = [
    ROOT / "docs" / "install" / f"{name}.md"
    for name in ("kubernetes", "kind", "k3s", "rootless-k3s", "kubeadm", "gvisor", "managed")
]
ENTRY: Final = ROOT / "deploy" / "README.md"
RUN: Final = re.compile(r"(kubectl (kustomize|apply|diff|delete -k|label service)|helm|sed) ")
NOT_RUN: Final = re.compile(
    # These need a cluster in which Pods run, ...
    r"(kubectl (.* )?(rollout status|exec|create (deployment|-f)|get|drain|uncordon|delete) "
    # ... or a program or machine that is not here.
    r"|(aws|az|curl|docker|k3d|kind|kube-proxy|ssh|sudo|systemctl) |export |ExecStart=)"
)


def files(page: Path) -> Iterator[tuple[str, str]]:
    """The files that a page has: each begins with a comment that names it."""
    for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        found = re.match(r"# (\S+)\n", text)
        assert found, f"{page.name} has a file without a name"
        yield found[1], text


def commands(page: Path) -> list[str]:
    """The commands of a page, without prompts and comments, in their order."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r" \\\n +", " ", text)
    blocks = re.findall(r"(?<=\n\n)(?:    .+\n)+", text)
    lines = [line.strip() for block in blocks if "$ " not in block for line in block.splitlines()]
    return [found for each in lines if (found := re.sub(r"(^|\s+)# .*", "", each))]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ThreadedApi]:
    with in_thread(FakeApi()) as running:
        running.call(lambda server: setattr(server, "strict", True))
        write_kubeconfig(tmp_path / "kubeconfig", running.url)
        service = yaml.safe_load((ROOT / "examples" / "load-balancer" / "web.yaml").read_text())
        service["metadata"]["namespace"] = "default"
        running.call(lambda server: server.apply(service))
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a clone of the repository has, as far as the pages need it."""
    for each in ("deploy", "examples"):
        shutil.copytree(ROOT / each, tmp_path / each, symlinks=True)
    return tmp_path


@pytest.mark.parametrize("page", [*PAGES, ENTRY], ids=lambda each: str(each.stem))
def test_its_commands_work(page: Path, folder: Path, api: ThreadedApi) -> None:
    for name, text in files(page):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    empty = api.call(lambda server: server.store.backup())
    for command in commands(page):
        if command.startswith("helm install"):
            # Instead of kustomize, not after it.
            used = go_back(api, empty)
            run(command, folder)
            run("helm uninstall uproxy --namespace kube-system", folder)
            go_back(api, used)
        elif RUN.match(command):
            run(command, folder)
        else:
            assert NOT_RUN.match(command), f"{page.name}: {command}"


def go_back(api: ThreadedApi, backup: Backup) -> Backup:
    """Return to what the cluster was; gives what it is."""
    now = api.call(lambda server: server.store.backup())
    api.call(lambda server: server.store.restore(backup))
    return now


def run(command: str, folder: Path) -> None:
    program = "kubectl" if "kubectl" in command else shlex.split(command)[0]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if shutil.which(program, path=path) is None:
        pytest.skip(f"{program} is not installed")
    environ = {**os.environ, "PATH": path, "KUBECONFIG": str(folder / "kubeconfig")}
    done = subprocess.run(
        ["sh", "-ec", command], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )
    # kubectl diff exits with 1 if there are differences.
    accepted = (0, 1) if command.startswith("kubectl diff") else (0,)
    assert done.returncode in accepted, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("page", "kustomization", "path"),
    [
        ("kind", "my-cluster", "/etc/kubernetes/kubelet.conf"),
        ("k3s", "my-cluster", "/var/lib/rancher/k3s/agent/kubelet.kubeconfig"),
        ("rootless-k3s", "my-cluster", "/home/me/.rancher/k3s/agent/kubelet.kubeconfig"),
        ("managed", "eks", "/var/lib/kubelet/kubeconfig"),
    ],
)
def test_kubelets_kubeconfig_is_where_the_page_says(
    page: str, kustomization: str, path: str, folder: Path
) -> None:
    text = dict(files(ROOT / "docs" / "install" / f"{page}.md"))[
        f"{kustomization}/kustomization.yaml"
    ]
    (folder / kustomization).mkdir()
    (folder / kustomization / "kustomization.yaml").write_text(text)
    volumes = {each["name"]: each for each in pod_of(rendered(folder / kustomization))["volumes"]}
    assert volumes["kubelet-kubeconfig"]["hostPath"] == {"path": path, "type": "File"}


def test_a_pool_of_addresses_as_the_page_on_load_balancers_has_it(
    folder: Path, api: ThreadedApi
) -> None:
    text = (ROOT / "docs" / "load-balancer.md").read_text()
    (block,) = re.findall(r"(?<=\n\n)    cd deploy/kustomize\n(?:    .+\n)+", text)
    script, _, _ = block.partition("    kubectl -n kube-system rollout")
    run(script, folder)
    (settings,) = api.call(lambda server: server.store.items(CONFIG_MAPS).values())
    assert settings.data["data"]["UPROXY_LB_POOL"] == "192.168.1.240-192.168.1.250"
    assert api.call(lambda server: server.store.items(ROLES))


def test_the_first_page_leads_to_the_others() -> None:
    linked = set(re.findall(r"\]\(([\w-]+)\.md\)", PAGES[0].read_text()))
    assert linked == {each.stem for each in PAGES[1:]}


def test_a_command_that_fails_is_noticed(folder: Path, api: ThreadedApi) -> None:
    with pytest.raises(AssertionError, match="no such file"):
        run("kubectl apply -k nowhere", folder)
    assert not api.call(lambda server: server.store.items(DAEMON_SETS))
