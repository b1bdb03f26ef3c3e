"""Builds the image without a daemon and without a registry.

buildah works in a directory of its own. It isolates by chroot, so it needs no namespaces. The
Debian that the image begins with comes from the mirror of this machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.isolation import network_of_the_machine

ROOT: Final = Path(__file__).parents[2]
BASE: Final = "localhost/uproxy-base"
NETWORK: Final = (
    *("Could not find a version", "No matching distribution", "Connection", "Timeout"),
    *("Could not resolve", "Could not connect", "Failed to fetch", "Temporary failure"),
)
"""What pip and apt say when they cannot get packages."""

_INDEX: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")


def why_not() -> str:
    """Why images cannot be built here; "" if they can."""
    missing = [each for each in ("buildah", "mmdebstrap") if shutil.which(each) is None]
    if missing:
        return f"needs {' and '.join(missing)} (Debian packages of the same names)"
    if os.geteuid():
        return "needs root, to look into images; `make image ENGINE=buildah` builds one without"
    return ""


def run(*command: str | Path, may_lack_network: bool = False) -> str:
    with network_of_the_machine():
        done = subprocess.run(
            [*map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    said = (done.stdout + done.stderr)[-3000:]
    if done.returncode and may_lack_network and any(word in said for word in NETWORK):
        pytest.skip(f"packages cannot be had here: {said[-300:]}")
    assert not done.returncode, said
    return done.stdout


def mirror() -> str:
    """Where this machine gets packages of Debian from."""
    found = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    ours = [each for each in found.splitlines() if each.rstrip("/").endswith("/debian")]
    if not ours:
        pytest.skip("apt of this machine has no source of Debian's packages")
    return ours[0]


class Builder:
    """Images and containers in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._options = ["--root", str(directory / "root"), "--runroot", str(directory / "run")]
        # Layers are copied with vfs, which works everywhere, and takes thrice as long.
        self._options += ["--storage-driver", "overlay" if self._has_overlay() else "vfs"]

    def command(self, *words: str) -> list[str]:
        return ["env", "BUILDAH_ISOLATION=chroot", "buildah", *self._options, *words]

    def __call__(self, *words: str, may_lack_network: bool = False) -> str:
        return run(*self.command(*words), may_lack_network=may_lack_network).strip()

    def _has_overlay(self) -> bool:
        command = ["buildah", *self._options, "--storage-driver", "overlay", "info"]
        return not subprocess.run(command, capture_output=True, check=False).returncode

    def make_base(self, suite: str) -> None:
        """What debian:SUITE-slim has: no documents or translations, and a dpkg that never waits for
        the disk."""
        container = self("from", "scratch")
        place = self("mount", container)
        without = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
        options = [f"--dpkgopt=path-exclude={each}" for each in without]
        options += [
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            "--dpkgopt=force-unsafe-io",
        ]
        words = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=directory"]
        run(*words, *options, suite, place, mirror(), may_lack_network=True)
        self("umount", container)
        self("commit", "--quiet", "--rm", container, BASE)

    def build(self, tag: str, *options: str) -> None:
        """The Dockerfile, on the base that was made here. Its lines get no images of their own."""
        words = ("bud", "--layers=false", "--pull-never", "--from", BASE, "--tag", tag, *options)
        self(*words, str(ROOT), may_lack_network=True)

    def build_on(self, image: str, stages: str, tag: str) -> None:
        """The first of these stages of a Dockerfile; `image` is what they call "image"."""
        path = self._directory / "Dockerfile"
        path.write_text(f"FROM {image} AS image\n{stages}")
        (self._directory / "empty").mkdir()
        target = stages.split()[3]
        words = ("bud", "--layers=false", "--pull-never", "--file", str(path), "--tag", tag)
        self(*words, "--target", target, str(self._directory / "empty"))

    def configuration(self, image: str) -> dict[str, Any]:
        return dict(json.loads(self("inspect", "--type", "image", image)))

    def size(self, image: str) -> int:
        """Bytes of its layers, uncompressed."""
        found = json.loads(self("images", "--json", "--filter", f"reference={image}"))
        return sum(int(float(number) * factor) for number, factor in map(_size, found))

    @contextmanager
    def container(self, image: str, *options: str) -> Iterator[str]:
        name = self("from", "--pull-never", *options, image)
        try:
            yield name
        finally:
            self("rm", name)


def _size(entry: dict[str, Any]) -> tuple[str, float]:
    number, unit = entry["size"].split()
    return number, {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def _told_to_pip() -> dict[str, str]:
    """What pip of this machine is configured to do."""
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    return dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", shown, re.MULTILINE))


def index_addresses() -> set[str]:
    """The addresses of this machine's package index, without scheme, user and password, which no
    image may name."""
    told = _told_to_pip()
    urls = " ".join(told.get(each, "") for each in ("index-url", "extra-index-url", "proxy"))
    return set(re.findall(r"https?://(?:[^@/\s]*@)?(\S+?)/*(?=\s|$)", urls))


def pip_secrets(directory: Path, mark: str) -> list[str]:
    """The configuration of the index, for pip in the build, with a mark by which it would be
    recognised in an image."""
    found = _told_to_pip()
    parser = RawConfigParser()
    # Only what works within the build, too: no path of this machine.
    told = {each: found[each] for each in _INDEX if "file:" not in found.get(each, "file:")}
    parser["global"] = {**told, "cert": "/run/secrets/ca.crt"}
    path = directory / "pip.conf"
    with path.open("w") as file:
        file.write(f"# {mark}\n")
        parser.write(file)
    bundle = found.get("cert") or "/etc/ssl/certs/ca-certificates.crt"
    return [f"id=pip.conf,src={path}", f"id=ca.crt,src={bundle}"]
