"""The time and memory that reading a text takes are in proportion to its length, whatever it
says."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from uproxy.core.errors import SourceError
from uproxy.core.report.unusable_objects import MOST
from uproxy.sources.kubernetes.watch_format import LineBuffer
from uproxy.sources.manifests import file
from uproxy.sources.manifests.catalog import Catalog
from uproxy.sources.manifests.file import FileContent, read_manifest
from uproxy.sources.manifests.source import rest_after
from uproxy.text import json_text, yaml_text
from uproxy.text.advice import advise
from uproxy.text.yaml_text import yaml_documents

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
def test_only_errors_that_are_shown_are_formulated(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    advised: list[object] = []

    def counting(*arguments: Any) -> Any:
        advised.append(arguments)
        return advise(*arguments)

    monkeypatch.setattr(file, "advise", counting)
    separator = "---\n" if path == "x.yaml" else ""
    text = separator.join(OBJECT % (number, '{"port":"x"}') for number in range(300))
    found = read_manifest(path, text.encode())
    assert len(found.errors) == 101
    assert found.errors[-1].reason == "200 more errors in this file"
    assert len(advised) == 100


@pytest.fixture
def few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (json_text, yaml_text):
        monkeypatch.setattr(module, "MAX_VALUES", 1000)


@pytest.mark.usefixtures("few_values")
@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("x.yaml", "[" + "1," * 1001 + "]", id="YAML"),
        pytest.param("x.json", "[" + "1," * 2001 + "1]", id="JSON"),
        pytest.param("x.json", "[" + '{"":1},' * 701 + "1]", id="JSON mappings"),
    ],
)
def test_a_document_of_too_many_values_is_refused(path: str, text: str) -> None:
    found = read_manifest(path, text.encode())
    assert len(found.errors) == 1
    assert "more than 1,000 values; split it" in found.errors[0].reason


@pytest.mark.usefixtures("few_values")
def test_documents_of_many_values_together_are_read() -> None:
    text = "---\n".join(f"kind: X\napiVersion: v1\nspec: [{'1,' * 600}]\n" for _ in range(4))
    found = read_manifest("x.yaml", text.encode())
    assert (found.ignored, found.errors) == (4, ())
    text = f'{{"kind":"X","apiVersion":"v1","spec":[{"1," * 600}1]}}'
    assert read_manifest("x.json", text.encode()).ignored == 1


def test_errors_of_many_files_are_shown_in_part() -> None:
    catalog = Catalog()
    bad = read_manifest("x.yaml", b"]")
    catalog.update({f"{number:06}.yaml": bad for number in range(20_000)})
    contested = read_manifest("x.yaml", (OBJECT % (1, "")).encode())
    catalog.update({f"a{number:06}.yaml": contested for number in range(2_000)})
    found = catalog.errors()
    assert len(found) == MOST + 1
    assert found[-1].reason == f"{20_000 + 1_999 - MOST:,} more cannot be used"


def test_reading_takes_half_a_processor_at_most() -> None:
    assert rest_after(0.1) == 0.0
    assert rest_after(30.0) == 30.0


def aliased(count: int, length: int) -> bytes:
    """A list of one object, many times over, with a name that is not valid."""
    name = "x" * length
    return (
        "kind: List\napiVersion: v1\nitems:\n"
        f"- &a {{apiVersion: v1, kind: Service, metadata: {{name: {name}}}}}\n"
    ).encode() + b"- *a\n" * count


def test_what_aliases_stand_for_is_bounded_in_bytes() -> None:
    text = aliased(10_000, 50_000)
    assert len(text) < 110_000

    def read() -> None:
        found: FileContent = read_manifest("x.yaml", text)
        assert found.errors
        assert sum(len(each.reason) for each in found.errors) < 100_000

    assert peak(read) < 30 * 1024 * 1024, "it was 500 MB"


def test_text_that_aliases_stand_for_is_counted_through_collections() -> None:
    text = f"a: &a [{'x' * 1_000_000}, y]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n"
    (found,) = yaml_documents(text)
    assert "aliases expand to more than 16 MiB of text" in str(found)
    (fine,) = yaml_documents(text.replace("*b, *b, *b, *b", "*b"))
    assert not isinstance(fine, ValueError)
    within = f"a: &a {'x' * 1_000_000}\nb: [{'*a,' * 16}]\n"
    for each in yaml_documents(f"{within}---\n{within}"):
        assert not isinstance(each, ValueError), "each document has room of its own"


def test_a_source_that_cannot_work_says_why_in_one_short_line() -> None:
    error = SourceError("kubeconfig a: tokenFile: " + "9" * 5000 + "\nfile name too long")
    assert len(str(error)) == 1500
    assert "\n" not in str(error)


def test_empty_lines_of_a_watch_cost_what_their_bytes_cost() -> None:
    lines, chunk = LineBuffer(), b"{}\n" + b"\n" * 1_000_000 + b"[]"
    assert list(lines.feed(chunk)) == [b"{}"]
    assert list(lines.feed(b"\n\n\n")) == [b"[]"]
    assert peak(lambda: lines.feed(chunk)) < 2 * len(chunk)
