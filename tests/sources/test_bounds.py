"""What a text costs to read, whoever wrote it: time in proportion to its length, and memory."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from uproxy.sources import json_text, reading
from uproxy.sources.advice import advise
from uproxy.sources.errors import SourceError
from uproxy.sources.reading import Reading, read_manifest
from uproxy.sources.yaml_text import yaml_documents

OBJECT = '{"apiVersion":"v1","kind":"Service","metadata":{"name":"web-%d"},"spec":{"ports":[%s]}}\n'


def peak(call: Callable[[], Any]) -> int:
    """Bytes that a call needs at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lines_of_json_are_found_once_for_all_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def finditer(pattern: str, text: str) -> Any:
        passes.append(len(text))
        return re.finditer(pattern, text)

    class Counting:
        compile = staticmethod(re.compile)

    monkeypatch.setattr(Counting, "finditer", staticmethod(finditer), raising=False)
    monkeypatch.setattr(json_text, "re", Counting)
    text = "".join(OBJECT % (number, '{"port":80}') for number in range(500))
    found = read_manifest("x.json", text.encode())
    assert len(found.objects) == 500
    assert [each.line for each in found.objects.values()] == list(range(1, 501))
    assert passes == [len(text)], "each further pass makes it quadratic: 2.1 MB took 35 s"


@pytest.mark.parametrize("path", ["x.json", "x.yaml"])
def test_only_complaints_that_are_told_are_worked_out(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    advised: list[object] = []

    def counting(*arguments: Any) -> Any:
        advised.append(arguments)
        return advise(*arguments)

    monkeypatch.setattr(reading, "advise", counting)
    separator = "---\n" if path == "x.yaml" else ""
    text = separator.join(OBJECT % (number, '{"port":"x"}') for number in range(300))
    found = read_manifest(path, text.encode())
    assert len(found.complaints) == 101
    assert found.complaints[-1].reason == "200 more complaints about this file"
    assert len(advised) == 100


def aliased(count: int, length: int) -> bytes:
    """A list of one object, many times over, whose name nobody can have."""
    name = "x" * length
    return (
        "kind: List\napiVersion: v1\nitems:\n"
        f"- &a {{apiVersion: v1, kind: Service, metadata: {{name: {name}}}}}\n"
    ).encode() + b"- *a\n" * count


def test_what_aliases_stand_for_is_bounded_in_bytes() -> None:
    text = aliased(10_000, 50_000)
    assert len(text) < 110_000

    def read() -> None:
        found: Reading = read_manifest("x.yaml", text)
        assert found.complaints
        assert sum(len(each.reason) for each in found.complaints) < 100_000

    assert peak(read) < 30 * 1024 * 1024, "it was 500 MB"


def test_text_that_aliases_stand_for_is_counted_through_collections() -> None:
    text = f"a: &a [{'x' * 1_000_000}, y]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n"
    (found,) = yaml_documents(text)
    assert "aliases stand for more than 16 MiB of text" in str(found)
    (fine,) = yaml_documents(text.replace("*b, *b, *b, *b", "*b"))
    assert not isinstance(fine, ValueError)
    within = f"a: &a {'x' * 1_000_000}\nb: [{'*a,' * 16}]\n"
    for each in yaml_documents(f"{within}---\n{within}"):
        assert not isinstance(each, ValueError), "each document has room of its own"


def test_a_source_that_cannot_work_says_why_in_one_short_line() -> None:
    error = SourceError("kubeconfig a: tokenFile: " + "9" * 5000 + "\nfile name too long")
    assert len(str(error)) == 1500
    assert "\n" not in str(error)
