"""What is in /opt/uproxy of the image, made and run with this machine's Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import uproxy
from tests.deploy.builder import NETWORK
from tests.e2e.test_demo import free_offset
from tests.isolation import network_of_the_machine

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "build-rootfs.sh"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("image") / "rootfs"
    with network_of_the_machine():  # To get packages from an index.
        done = subprocess.run(
            [SCRIPT, root],
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode and any(word in done.stderr for word in NETWORK):
        pytest.skip(f"packages cannot be had here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return root / "opt" / "uproxy"


def run(home: Path, *arguments: str, name: str = "uproxy") -> str:
    done = subprocess.run(
        [home / name, *arguments],
        # Nothing of this environment, whose Python has uproxy installed.
        env={"PATH": os.defpath, "UPROXY_PYTHON": sys.executable},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_the_result_runs(home: Path) -> None:
    assert run(home, "version").startswith(f"uproxy {uproxy.__version__}\n")


@pytest.mark.timeout(300)
def test_it_runs_through_a_link(home: Path) -> None:
    (home / "linked").symlink_to(home / "uproxy")
    assert "uproxy" in run(home, "version", name="linked")


@pytest.mark.timeout(300)
def test_everything_is_compiled_and_nothing_is_left_over(home: Path) -> None:
    library = home / "lib"
    modules = [each for each in library.rglob("*.py") if "__pycache__" not in each.parts]
    compiled = {each.parent.parent / each.name.split(".")[0] for each in library.rglob("*.pyc")}
    assert [each for each in modules if each.with_suffix("") not in compiled] == []
    assert not (library / "bin").exists()
    assert (library / "uproxy" / "py.typed").exists(), "type checkers look for it (PEP 561)"
    assert {"pip", "setuptools", "pytest", "mypy"} & set(os.listdir(library)) == set()


@pytest.fixture(scope="module")
def bundle(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is unpacked on a machine without pip."""
    target = tmp_path_factory.mktemp("bundle")
    root = home.parents[1]
    words = [ROOT / "deploy" / "build-bundle.sh", target, root]
    environ = {**os.environ, "PYTHON": sys.executable}
    # As by an administrator whose files are private.
    done = subprocess.run(
        words, env=environ, capture_output=True, text=True, check=True, umask=0o077
    )
    archive = Path(done.stdout.strip())
    version = "py{}{}".format(*sys.version_info)
    assert archive.name.startswith(f"uproxy-{uproxy.__version__}-linux-")
    assert archive.name.endswith(f"-{version}.tar.gz")
    (unpacked := target / "uproxy").mkdir()
    unpack = ["tar", "--extract", "--preserve-permissions", "--file", str(archive)]
    unpack += ["--strip-components=1", "--directory", str(unpacked)]
    subprocess.run(unpack, check=True)
    return unpacked


@pytest.mark.timeout(300)
def test_other_users_may_read_all_of_a_bundle(bundle: Path) -> None:
    modes = {each: each.stat().st_mode & 0o777 for each in (bundle, *bundle.rglob("*"))}
    assert {each: oct(mode) for each, mode in modes.items() if mode not in (0o644, 0o755)} == {}
    assert modes[bundle / "bin" / "uproxy"] == 0o755


@pytest.mark.timeout(300)
def test_a_bundle_serves_the_examples_with_nothing_but_python(bundle: Path, tmp_path: Path) -> None:
    assert run(bundle / "bin", "version").startswith(f"uproxy {uproxy.__version__}\n")
    offset = str(free_offset(tmp_path))
    words = ["demo", "--backends", str(bundle / "examples"), "--exit-after", "1s"]
    output = run(bundle / "bin", *words, "--port-offset", offset)
    assert "http://127.0.0.1:30080" in output
    assert "Traceback" not in output
    assert (bundle / "uproxy.service").read_text().startswith("# uproxy as a service")


@pytest.mark.timeout(300)
def test_a_bundle_without_its_python_says_so_in_one_line(bundle: Path) -> None:
    done = subprocess.run(
        [bundle / "bin" / "uproxy", "version"],
        env={"PATH": os.defpath, "UPROXY_PYTHON": "python3.99"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "there is no python3.99" in done.stderr


@pytest.mark.timeout(300)
def test_a_bundle_with_another_python_says_so_in_one_line(bundle: Path, tmp_path: Path) -> None:
    (other := tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    done = subprocess.run(
        [bundle / "bin" / "uproxy", "version"],
        env={"PATH": os.defpath, "UPROXY_PYTHON": str(other)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    minor = "{}.{}".format(*sys.version_info)
    assert done.stderr == f"uproxy: {other} is not Python {minor}, for which this bundle is\n"


def test_a_directory_that_has_one_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "opt" / "uproxy").mkdir(parents=True)
    done = subprocess.run([SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is there already" in done.stderr
