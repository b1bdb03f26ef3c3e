"""The seccomp profile that allows io_uring: what is in it, and a uproxy that runs under it."""

from __future__ import annotations

import ctypes.util
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.seccomp import LIBRARY
from tests.e2e.engines import doctor_on_io_uring, engines_that_serve
from tests.io_uring import needs_io_uring

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "deploy" / "seccomp"
DEFAULT = PROFILES / "containerd.json"
OURS = PROFILES / "uproxy.json"
ADD = PROFILES / "add_io_uring.py"
INSTALL = PROFILES / "install.sh"


def rules(path: Path) -> set[tuple[str, str]]:
    """Each call, and what the profile says of it without its name."""
    profile = json.loads(path.read_text())
    rest = {key: value for key, value in profile.items() if key != "syscalls"}
    return {("", json.dumps(rest))} | {
        (name, json.dumps({key: value for key, value in rule.items() if key != "names"}))
        for rule in profile["syscalls"]
        for name in rule["names"]
    }


def under(profile: Path, *command: str) -> list[str]:
    return [sys.executable, "-m", "tests.deploy.seccomp", str(profile), *command]


def test_it_is_the_default_profile_with_three_more_calls() -> None:
    allowed = json.dumps({"action": "SCMP_ACT_ALLOW"})
    assert rules(OURS) - rules(DEFAULT) == {
        ("io_uring_setup", allowed),
        ("io_uring_enter", allowed),
        ("io_uring_register", allowed),
    }
    assert rules(DEFAULT) - rules(OURS) == set()


def test_it_is_what_the_script_makes_of_the_default_profile() -> None:
    done = subprocess.run([ADD], input=DEFAULT.read_text(), capture_output=True, text=True)
    assert done.stdout == OURS.read_text(), "deploy/seccomp/README.md says how to renew it"


@pytest.mark.parametrize(
    ("profile", "complaint"),
    [
        ("", "Expecting value"),
        ("{}", "this is no seccomp profile"),
        ('{"defaultAction": "", "archMap": [], "syscalls": []}', "this is Docker's format"),
        ('{"defaultAction": "", "syscalls": [{"names": ["bpf"], "includes": {}}]}', "Docker's"),
        ('{"defaultAction": "", "syscalls": [{"names": ["io_uring_enter"]}]}', "already"),
    ],
)
def test_the_script_says_what_it_cannot_extend(profile: str, complaint: str) -> None:
    done = subprocess.run([ADD], input=profile, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("standard input: ")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


class TestLoaded:
    @pytest.fixture(autouse=True)
    def needs_libseccomp(self) -> None:
        if ctypes.util.find_library("seccomp") is None:
            pytest.skip(f"needs {LIBRARY} (Debian: libseccomp2)")

    def test_under_the_default_profile_workers_use_epoll(self, tmp_path: Path) -> None:
        assert engines_that_serve(under(DEFAULT), tmp_path) == {"epoll"}
        found = doctor_on_io_uring(under(DEFAULT))
        assert found["result"] == "warn"
        assert found["text"].startswith("refused by a seccomp filter (Operation not permitted)")

    @needs_io_uring
    def test_under_ours_they_use_io_uring(self, tmp_path: Path) -> None:
        assert engines_that_serve(under(OURS), tmp_path) == {"io_uring"}
        assert doctor_on_io_uring(under(OURS))["result"] == "ok"

    @pytest.mark.parametrize(
        "attempt",
        [
            "socket.socket(38, socket.SOCK_SEQPACKET)",  # AF_ALG: CVE-2026-31431
            "socket.socket(socket.AF_VSOCK)",
            "check(libc.unshare(0x10000000))",  # CLONE_NEWUSER
            "check(libc.mount(b'none', b'/', None, 1 << 18, None))",  # MS_PRIVATE
            "check(libc.syscall(321, 0, None, 0))",  # bpf on x86-64; on arm64 no call at all
        ],
    )
    def test_ours_refuses_what_the_default_profile_refuses(self, attempt: str) -> None:
        script = f"""
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
try:
    {attempt}
except OSError as error:
    print(error.errno)
"""
        for profile in (DEFAULT, OURS):
            done = subprocess.run(
                under(profile, sys.executable, "-c", script),
                capture_output=True,
                text=True,
                cwd=ROOT,
            )
            assert done.stdout == "1\n", done.stdout + done.stderr


@pytest.fixture
def pod_spec(tmp_path: Path) -> dict[str, Any]:
    """Of the DaemonSet, with the component."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    container = {"name": "uproxy", "image": "uproxy", "securityContext": {"runAsUser": 0}}
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "uproxy"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    component = os.path.relpath(PROFILES, tmp_path.resolve())
    kustomization = {"resources": ["daemon-set.yaml"], "components": [component]}
    (tmp_path / "daemon-set.yaml").write_text(yaml.safe_dump(daemon_set))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    rendered = subprocess.run(
        ["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=True
    )
    return dict(yaml.safe_load(rendered.stdout)["spec"]["template"]["spec"])


class TestComponent:
    def test_the_profile_is_there_before_a_container_uses_it(
        self, pod_spec: dict[str, Any]
    ) -> None:
        """The Pod must not name it: its sandbox and its init containers are created before."""
        (first,) = pod_spec["initContainers"]
        (uproxy,) = pod_spec["containers"]
        profile = {"type": "Localhost", "localhostProfile": "uproxy.json"}
        assert uproxy["securityContext"] == {"runAsUser": 0, "seccompProfile": profile}
        assert "seccompProfile" not in pod_spec.get("securityContext", {})
        assert "seccompProfile" not in first["securityContext"]

    def test_it_is_put_where_kubelet_looks(self, pod_spec: dict[str, Any]) -> None:
        (first,) = pod_spec["initContainers"]
        (mount,) = first["volumeMounts"]
        assert first["command"] == ["/opt/uproxy/seccomp/install.sh", mount["mountPath"]]
        (volume,) = pod_spec["volumes"]
        assert volume["name"] == mount["name"]
        assert volume["hostPath"] == {
            "path": "/var/lib/kubelet/seccomp",
            "type": "DirectoryOrCreate",
        }


class TestInstalled:
    def install(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([INSTALL, *arguments], capture_output=True, text=True)

    def test_kubelet_finds_it(self, tmp_path: Path) -> None:
        directory = tmp_path / "kubelet" / "seccomp"
        done = self.install(directory)
        assert done.returncode == 0, done.stderr
        assert "localhostProfile: uproxy.json" in done.stdout
        assert os.listdir(directory) == ["uproxy.json"]
        assert (directory / "uproxy.json").read_text() == OURS.read_text()
        assert (directory / "uproxy.json").stat().st_mode & 0o777 == 0o644

    def test_an_older_one_is_replaced_and_others_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "uproxy.json").write_text("older")
        (tmp_path / "other.json").write_text("{}")
        assert self.install(tmp_path).returncode == 0
        assert (tmp_path / "uproxy.json").read_text() == OURS.read_text()
        assert (tmp_path / "other.json").read_text() == "{}"

    def test_it_needs_no_program_that_the_image_lacks(self, tmp_path: Path) -> None:
        programs = runpy.run_path(str(PROFILES.parent / "build-system.py"))["COMMANDS"]
        (tmp_path / "bin").mkdir()
        for each in programs:
            if found := shutil.which(each):
                (tmp_path / "bin" / each).symlink_to(found)
        done = subprocess.run(
            ["sh", INSTALL, tmp_path / "seccomp"],
            env={"PATH": str(tmp_path / "bin")},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "seccomp" / "uproxy.json").exists()

    def test_a_directory_in_its_place_is_a_failure(self, tmp_path: Path) -> None:
        """A container runtime makes one where a hostPath without a type names the file."""
        (tmp_path / "uproxy.json").mkdir()
        done = self.install(tmp_path)
        assert done.returncode != 0
        assert "directory" in done.stderr
        assert "is there" not in done.stdout
        assert [each.name for each in tmp_path.rglob("*")] == ["uproxy.json"]
