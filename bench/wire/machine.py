"""The machine, the programs and the revision of a run."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.wire.processes import Unavailable, find_program
from bench.wire.results import Machine

_VERSIONS = {
    "haproxy": "-v",
    "nginx": "-v",
    "go": "version",
    "nft": "--version",
    "wrk": "-v",
    "iperf3": "--version",
    "dnsperf": "-d /nonexistent",  # It has no option for that, but begins by saying it.
    "dnsmasq": "--version",
}
_VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")


def machine() -> Machine:
    """Describe this machine."""
    return Machine(
        processor=processor_of(Path("/proc/cpuinfo").read_text()),
        processors=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=platform.release(),
        python=platform.python_version(),
        build=build_of(sysconfig.get_config_vars()),
    )


def line(where: Machine, *, nice: int, load: float) -> str:
    """Where something was measured, and under what conditions."""
    return (
        f"{where.processors} x {where.processor}, Linux {where.kernel}, "
        f"Python {where.python} ({where.build}), --nice {nice}, load {load:.1f}"
    )


def build_of(settings: Mapping[str, Any]) -> str:
    """How an interpreter was compiled, which decides what Python costs (sysconfig)."""
    if settings.get("prefix") == "/usr":
        # Debian builds with both, and removes that from what sysconfig tells.
        return "as the distribution builds it"
    options = settings.get("CONFIG_ARGS") or ""
    profiled = "--enable-optimizations" in options
    linked = "--with-lto" in options
    return f"{'with' if profiled else 'no'} PGO, {'with' if linked else 'no'} LTO"


def versions() -> dict[str, str]:
    """Versions of all installed programs."""
    found = {"uproxy": _of_uproxy()}
    for name, option in _VERSIONS.items():
        try:
            program = find_program(name, name)
        except Unavailable:
            continue
        found[name] = version_in(_first_output(program, option))
    return found


def revision() -> str:
    """Revision of the working tree of this file; "" outside of one, "+" at the end with changes."""
    root = Path(__file__).parents[2]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--", "uproxy") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def processor_of(cpuinfo: str) -> str:
    """The model's name; "unknown" where the kernel does not say, as on some ARM machines."""
    match = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else "unknown"


def version_in(text: str) -> str:
    """The first text that looks like a version."""
    match = _VERSION.search(text)
    return match[0] if match else "unknown"


def _of_uproxy() -> str:
    from uproxy import __version__

    return __version__


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def _first_output(program: str, options: str) -> str:
    # Some print it on stderr, and wrk and dnsperf return an error for it.
    done = subprocess.run(
        [program, *options.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout
