#!/usr/bin/env python3
"""Writes the rest of the container image into a directory: what uproxy needs of Debian.

    deploy/build-rootfs.sh DIR && deploy/build-system.py DIR

That is Python, nft and ip, a shell with a few commands, the shared libraries of all of these and of
the packages in /opt/uproxy, and certificates. Everything else of the system that this runs on stays
behind: the package manager, pip, set-user-ID programs, and about a hundred megabytes.

It reads the Debian that it runs on, so it is called within the Dockerfile.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

COMMANDS = ("python3", "ip", "nft", "sh", "cat", "cp", "dirname", "env", "ls", "mkdir", "mv")
COMMANDS += ("readlink", "sleep")
"""uproxy calls ip and nft, and it is started by a shell script, as is what installs the profile."""

LIBRARIES = ("libgcc_s.so.1",)
"""Libraries that no file names: glibc loads this one when a thread ends."""

FILES = (
    "/etc/debian_version",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/openssl.cnf",
    "/usr/lib/os-release",
    "/usr/lib/ssl/cert.pem",
    "/usr/lib/ssl/certs",
    "/usr/lib/ssl/openssl.cnf",
)
USERS = "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/nonexistent:/bin/sh\n"
GROUPS = "root:x:0:\nnonroot:x:65532:\n"

STDLIB = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = (
    *("_pyrepl", "ensurepip", "idlelib", "pydoc_data", "test", "unittest", "venv"),
    *("curses", "_curses*", "readline.*", "tkinter", "turtle*"),
    *("dbm", "_dbm.*", "sqlite3", "_sqlite3.*", "xmlrpc"),
    *("config-*", "EXTERNALLY-MANAGED"),
)
"""Parts of the standard library for development, user interfaces and databases."""


def copy(path: Path, root: Path) -> None:
    """Copy a file under its own name; a symbolic link stays one, and its target is copied, too."""
    target = root / path.relative_to("/")
    if target.is_symlink() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(os.readlink(path))
        goal = path.parent / os.readlink(path)
        if not goal.is_dir():
            copy(Path(os.path.normpath(goal)), root)
    else:
        shutil.copy2(path, target)


def canonical(path: str | Path) -> Path:
    """With /lib as /usr/lib, and so on, but with the file's own name: libraries are looked for by
    theirs, which often is that of a link."""
    path = Path(path)
    return path.parent.resolve() / path.name


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(programs: Iterable[Path]) -> Iterator[Path]:
    """The shared libraries that programs and other libraries need, and the dynamic linker."""
    shown = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    missing = re.findall(r"^\s*(\S+) => not found", shown, re.MULTILINE)
    if missing:
        sys.exit(f"these libraries are missing here: {', '.join(sorted(set(missing)))}")
    found = set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", shown, re.MULTILINE))
    return (canonical(each) for each in sorted(found))


def packages(root: Path) -> set[str]:
    """The Debian packages that the files come from."""
    files = {"/" + str(each.relative_to(root)) for each in root.rglob("*") if each.is_file()}
    owned = sorted(each for each in files if not each.startswith("/opt/"))
    shown = subprocess.run(
        ["dpkg-query", "--search", *owned], capture_output=True, text=True, check=False
    ).stdout
    return {line.split(":")[0] for line in shown.splitlines() if not line.startswith("diversion")}


def note_packages(root: Path) -> None:
    """Write the versions to where scanners look, as in distroless images; copy the licences."""
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package in sorted(packages(root)):
        text = subprocess.run(
            ["dpkg-query", "--status", package], capture_output=True, text=True, check=True
        ).stdout
        (status / package).write_text(text)
        copy(Path(f"/usr/share/doc/{package}/copyright"), root)


def main(root: Path) -> None:
    for each in ("bin", "lib", "lib64", "sbin"):
        link = Path("/", each)
        if link.is_symlink():
            (root / each).symlink_to(os.readlink(link))
    programs = []
    for name in COMMANDS:
        path = canonical(shutil.which(name) or sys.exit(f"{name} is not installed here"))
        copy(path, root)
        programs.append(path)
    shutil.copytree(
        STDLIB,
        root / STDLIB.relative_to("/"),
        symlinks=True,
        ignore=shutil.ignore_patterns(*LEFT_OUT),
    )
    for name in FILES:
        if Path(name).exists():
            copy(Path(name), root)
    extensions = [each for each in root.rglob("*.so") if is_elf(each)]
    for path in libraries([*programs, *extensions]):
        copy(path, root)
    for name in LIBRARIES:
        (path,) = Path("/usr/lib").glob(f"*/{name}")
        copy(path, root)
    (root / "etc/passwd").write_text(USERS)
    (root / "etc/group").write_text(GROUPS)
    note_packages(root)
    for name, mode in (("root", 0o700), ("run", 0o755), ("tmp", 0o1777), ("var/lib/uproxy", 0o755)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
    os.chown(root / "var/lib/uproxy", 65532, 65532)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIR")
    main(Path(sys.argv[1]).resolve())
