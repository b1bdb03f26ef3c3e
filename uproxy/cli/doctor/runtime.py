"""The interpreter, its libraries, and system calls of every worker."""

from __future__ import annotations

from itertools import takewhile
from typing import Final

from uproxy.cli.doctor.facts import Machine
from uproxy.cli.doctor.findings import Finding, Result

_PIPE_PAGES: Final = 2 * 32 * 256
"""For 32 spliced flows at a time with 1 MiB in each of two directions."""


def python(machine: Machine) -> Finding:
    version = ".".join(map(str, machine.python))
    if machine.python < (3, 11):
        return Finding("python", Result.FAIL, version, "uproxy needs Python 3.11 or newer")
    return Finding("python", Result.OK, f"{version} on {machine.system}")


def uvloop(machine: Machine) -> Finding:
    if not machine.uvloop:
        return Finding("uvloop", Result.FAIL, "missing", "pip install 'uvloop>=0.23'")
    if _version(machine.uvloop) < (0, 23):
        text = f"{machine.uvloop}, which may close file descriptors of other flows"
        return Finding("uvloop", Result.FAIL, text, "pip install 'uvloop>=0.23'")
    return Finding("uvloop", Result.OK, machine.uvloop)


def cluster_library(machine: Machine) -> Finding:
    name = "kubernetes_asyncio"
    if not machine.kubernetes_asyncio:
        text = "not installed: uproxy can serve manifests, but no cluster"
        return Finding(name, Result.WARN, text, "pip install 'uproxy[cluster]'")
    return Finding(name, Result.OK, machine.kubernetes_asyncio)


def epoll(machine: Machine) -> Finding:
    if not machine.epoll:
        return Finding("epoll", Result.FAIL, "missing", "uproxy runs on Linux only")
    return Finding("epoll", Result.OK, "works")


def reuse_port(machine: Machine) -> Finding:
    if machine.reuse_port:
        advice = "workers cannot share ports without SO_REUSEPORT; use another kernel or sandbox"
        return Finding("SO_REUSEPORT", Result.FAIL, machine.reuse_port, advice)
    return Finding("SO_REUSEPORT", Result.OK, "works")


def splice(machine: Machine) -> Finding:
    if machine.splice:
        text = f"{machine.splice}: bulk transfers cost more CPU"
        return Finding("splice", Result.WARN, text, "nothing to do: only speed is lost")
    return Finding("splice", Result.OK, "works")


def pipes(machine: Machine) -> Finding:
    pages = machine.number("fs.pipe-user-pages-soft")
    if not pages or pages >= _PIPE_PAGES or "SYS_RESOURCE" in machine.capabilities:
        return Finding("pipes", Result.OK, "enough for many bulk transfers at once")
    text = f"fs.pipe-user-pages-soft is {pages}: only a few bulk transfers at once can use splice"
    return Finding("pipes", Result.WARN, text, f"sysctl fs.pipe-user-pages-soft={_PIPE_PAGES}")


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers: "0.23.1.dev0" is (0, 23, 1)."""
    return tuple(map(int, takewhile(str.isdecimal, text.split("."))))
