"""The guide about health checks, followed while a client sends one request after the other.

HAProxy is the load balancer of a cloud: it asks the health check node port of two nodes.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.guides.following import follow, prepared
from tests.guides.page import GUIDES, Command, page
from tests.guides.shell import shell

GUIDE: Final = GUIDES / "health-checks.md"
STARTED: Final = "http://127.0.0.1:8080/"
NAMESPACES: Final = ("web-node-a", "web-node-b")
BOTH: Final = {"pod on node a", "pod on node b"}


class SteadyClient:
    """Sends requests, each over a connection of its own, and counts what becomes of each."""

    def __init__(self) -> None:
        self._answers: list[str] = []
        """In order: the pod that has answered, or the error."""
        self._ended = threading.Event()
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> SteadyClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def answers(self, *, more: int = 20) -> list[str]:
        """Those since the last call, after so many further ones."""
        with self._more:
            wanted = len(self._answers) + more
            assert self._more.wait_for(lambda: len(self._answers) >= wanted, timeout=20)
            found, self._answers = self._answers, []
            return found

    def _run(self) -> None:
        while not self._ended.is_set():
            answer = _request()
            with self._more:
                self._answers.append(answer)
                self._more.notify()


def _request() -> str:
    try:
        with urllib.request.urlopen(STARTED, timeout=20) as answer:
            return str(answer.read().decode().strip())
    except OSError as error:
        return repr(error)


@contextlib.contextmanager
def namespaces_removed() -> Iterator[None]:
    """The page says how to delete them, after it has been followed."""
    try:
        yield
    finally:
        for name in NAMESPACES:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def sections(text: str) -> dict[str, list[Command]]:
    """The commands below each heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {
        title: page(body).commands for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


@pytest.mark.needs_root
def test_no_request_is_lost(tmp_path: Path) -> None:
    text = GUIDE.read_text()
    prepared(tmp_path, text)
    part = sections(text)
    with namespaces_removed(), shell(tmp_path) as typed:
        follow(typed, part["Two nodes and a load balancer"])
        with SteadyClient() as client:
            assert set(client.answers()) == BOTH
            follow(typed, part["The last pod of a node goes"])
            before = client.answers()
            follow(typed, part["A pod comes back"])
            after = client.answers()
            # None of them is an error.
            assert set(before) == BOTH
            assert before[-1] == "pod on node b"
            assert set(after) == BOTH
            follow(typed, part["Without the wait"])
            lost = [each for each in client.answers() if each not in BOTH]
            assert lost, "a pod that ends at once should be missed"


def test_how_long_the_pod_waits() -> None:
    """preStop is what the table adds up from the settings of HAProxy, rounded up."""
    text = GUIDE.read_text()
    files = page(text).files

    def setting(name: str) -> float:
        found = re.search(rf"\b{name} (\d+)(ms|s)?", files["haproxy.cfg"])
        assert found is not None, name
        return int(found[1]) / (1000 if found[2] == "ms" else 1)

    fall = setting("fall")
    told = 1.0  # The cluster tells uproxy.
    checks = setting("inter") + (fall - 1) * setting("fastinter") + fall * setting("timeout check")
    total = told + checks + setting("timeout connect")
    assert f"**{total:g} s** |" in text
    spec = yaml.safe_load(files["pod-template.yaml"])["spec"]
    (container,) = spec["containers"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert total <= wait < total + 1
    assert f"go on serving for {wait} s " in text
    assert spec["terminationGracePeriodSeconds"] == wait + 30
