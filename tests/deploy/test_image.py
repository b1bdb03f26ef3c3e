"""The container image, built from the Dockerfile and run, by buildah."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import uproxy
from tests.deploy.builder import ROOT, Builder, index_addresses, pip_secrets, why_not
from tests.e2e.program import PATIENCE, wait_for
from tests.e2e.test_demo import free_offset
from tests.io_uring import needs_io_uring

IMAGE = "localhost/uproxy"
NONROOT = "localhost/uproxy-nonroot"
MARK = "this-came-from-a-secret"
SECCOMP = ROOT / "deploy" / "seccomp"
PROGRAM = "/opt/uproxy/uproxy"

# Building takes long, and it is charged to the test that comes first.
pytestmark = pytest.mark.timeout(600)
both = pytest.mark.parametrize("image", [IMAGE, NONROOT])


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """With both images."""
    if reason := why_not():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("images")
    builder = Builder(directory)
    dockerfile = (ROOT / "Dockerfile").read_text()
    (suite,) = re.findall(r"^FROM \S+/debian:(\w+)-slim@sha256:", dockerfile, re.MULTILINE)
    builder.make_base(suite)
    arguments = {"VERSION": uproxy.__version__, "REVISION": "0123abc", "CREATED": "2026-01-02"}
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    options += [f"--secret={each}" for each in pip_secrets(directory, MARK)]
    builder.build(IMAGE, *options)
    # All that is above its stage would be built once more.
    builder.build_on(IMAGE, dockerfile[dockerfile.index("FROM image AS nonroot") :], NONROOT)
    yield builder
    builder("rm", "--all")
    builder("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def container(buildah: Builder) -> Iterator[str]:
    with buildah.container(IMAGE) as name:
        yield name


@pytest.fixture(scope="module")
def files(buildah: Builder, container: str) -> Iterator[Path]:
    """The root of the image."""
    yield Path(buildah("mount", container))
    buildah("umount", container)


@contextmanager
def demo(buildah: Builder, container: str, directory: Path) -> Iterator[int]:
    """The offset of its ports."""
    offset = free_offset(directory)
    command = buildah.command("run", container, "--", PROGRAM, "demo", "--port-offset", str(offset))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield offset
        finally:
            for pid in programs(process.pid):
                os.kill(pid, signal.SIGTERM)
            process.wait(PATIENCE)


def programs(session: int) -> list[int]:
    """The demo's own process, which ends the others."""
    shown = subprocess.run(
        ["ps", "-s", str(session), "-o", "pid=,args="], capture_output=True, text=True, check=False
    ).stdout
    found = re.findall(r"^ *(\d+) python3 -m uproxy\.cli demo", shown, re.MULTILINE)
    return [int(each) for each in found]


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@both
def test_the_demo_serves(buildah: Builder, tmp_path: Path, image: str) -> None:
    with buildah.container(image) as name, demo(buildah, name, tmp_path) as offset:
        url = f"http://127.0.0.1:{30123 + offset}/"
        wait_for("the demo answers", lambda: get(url).startswith("You've hit kubia-"))


@both
def test_its_labels(buildah: Builder, image: str) -> None:
    config = buildah.configuration(image)["OCIv1"]["config"]
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in config["Labels"].items()
    }
    assert labels["title"] == "uproxy"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == uproxy.__version__
    assert labels["revision"] == "0123abc"
    assert labels["created"] == "2026-01-02"
    assert config["Entrypoint"] == [PROGRAM]
    assert config["Cmd"] == ["run"]
    assert config["User"] == {IMAGE: "0:0", NONROOT: "65532:65532"}[image]


def test_it_is_small(buildah: Builder) -> None:
    """docs/install/image.md has the sizes."""
    assert 20e6 < buildah.size(IMAGE) < 90e6


def test_it_says_its_version(buildah: Builder, container: str) -> None:
    shown = buildah("run", container, "--", PROGRAM, "--version")
    assert uproxy.__version__ in shown


def test_the_user_without_privileges(buildah: Builder, tmp_path: Path) -> None:
    """It has no capability, and can keep its state."""
    with buildah.container(NONROOT) as name:
        status = buildah("run", name, "--", "cat", "/proc/self/status")
        assert re.search(r"^Uid:\s+65532\s+65532\s", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        buildah("run", name, "--", "mkdir", "/var/lib/uproxy/state")


def test_the_profile_can_be_put_on_the_node(
    buildah: Builder, container: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    words = ("run", f"--volume={tmp_path}:/host/seccomp", container, "--")
    shown = buildah(*words, "/opt/uproxy/seccomp/install.sh", "/host/seccomp")
    assert "uproxy.json is there" in shown
    assert (tmp_path / "uproxy.json").read_text() == (SECCOMP / "uproxy.json").read_text()


@pytest.mark.parametrize(
    ("profile", "result"),
    [
        ("containerd.json", "warn"),
        pytest.param("uproxy.json", "ok", marks=needs_io_uring),
    ],
)
def test_io_uring_under_a_profile(buildah: Builder, profile: str, result: str) -> None:
    option = f"--security-opt=seccomp={SECCOMP / profile}"
    with buildah.container(IMAGE, option) as name:
        shown = buildah("run", name, "--", PROGRAM, "doctor", "-o", "json")
    (found,) = [each for each in json.loads(shown) if each["check"] == "io_uring"]
    assert found["result"] == result


class TestFiles:
    def test_nothing_gives_privileges(self, files: Path) -> None:
        modes = {each: each.lstat().st_mode for each in files.rglob("*") if not each.is_symlink()}
        assert len(modes) > 1000
        assert [each for each, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID)] == []
        writable = [each.name for each, mode in modes.items() if mode & stat.S_IWOTH]
        assert writable == ["tmp"]

    def test_there_is_no_way_to_install_or_to_build(self, files: Path) -> None:
        programs = {
            each.name for place in ("bin", "sbin") for each in (files / "usr" / place).iterdir()
        }
        assert {"python3", "ip", "nft", "sh"} <= programs
        assert not programs & {"apt-get", "dpkg", "pip", "pip3", "cc", "gcc", "ld", "strip", "perl"}
        assert {each.name for each in files.rglob("pip")} == set()
        assert not (files / "etc" / "apt").exists()
        assert not (files / "etc" / "pip.conf").exists()

    def test_nothing_of_a_secret_is_left(self, buildah: Builder, files: Path) -> None:
        secrets = [MARK, *index_addresses()]
        read = [each for each in files.rglob("*") if each.is_file() and not each.is_symlink()]
        texts = ((each, each.read_bytes()) for each in read)
        assert [each for each, text in texts for word in secrets if word.encode() in text] == []
        configuration = json.dumps(buildah.configuration(IMAGE))
        assert [word for word in (*secrets, "pip.conf") if word in configuration] == []

    def test_scanners_find_the_packages(self, files: Path) -> None:
        status = files / "var" / "lib" / "dpkg" / "status.d"
        names = {each.name for each in status.iterdir()}
        assert {"libc6", "libssl3t64", "nftables", "iproute2", "zlib1g"} <= names
        for each in status.iterdir():
            assert re.search(r"^Version: \S", each.read_text(), re.MULTILINE), each
            assert (files / "usr" / "share" / "doc" / each.name / "copyright").exists(), each

    def test_everything_is_compiled(self, files: Path) -> None:
        """The root is read-only at run time, so nothing could be compiled then."""
        modules = [
            each
            for place in (files / "opt" / "uproxy" / "lib", files / "usr" / "lib")
            for each in place.rglob("*.py")
        ]
        missing = [
            each
            for each in modules
            if not list((each.parent / "__pycache__").glob(f"{each.stem}.cpython-*.pyc"))
        ]
        assert len(modules) > 500
        assert missing == []

    def test_every_library_is_there(self, buildah: Builder, container: str) -> None:
        """And those that libraries of libraries need."""
        script = (
            "import ctypes, pathlib\n"
            "places = [pathlib.Path('/opt/uproxy/lib'), pathlib.Path('/usr/lib')]\n"
            "found = [each for place in places for each in place.rglob('*.so*')]\n"
            "for each in found: ctypes.CDLL(str(each))\n"
            "print(len(found))"
        )
        assert int(buildah("run", container, "--", "python3", "-c", script)) > 80

    def test_the_commands_that_uproxy_runs(self, buildah: Builder, container: str) -> None:
        assert "nftables" in buildah("run", container, "--", "nft", "--version")
        assert "iproute2" in buildah("run", container, "--", "ip", "-Version")
