"""The file with the last-known state: written whole, read whole, or not at all."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import endpoint, endpoint_slice, local, node, service
from uproxy.core.objects import Endpoints, EndpointSubset, Object, ObjectMeta
from uproxy.sources.snapshot import Snapshot, SnapshotError, load, save

ENDPOINTS = Endpoints(metadata=ObjectMeta(name="old"), subsets=(EndpointSubset(),))
OBJECTS: list[Object] = [
    node(zone="a", addresses=["192.0.2.1"], pod_cidrs=["10.1.0.0/16"]),
    ENDPOINTS,
    endpoint_slice("web", local("10.1.0.1"), endpoint("10.1.0.2", ready=False, zones=["b"])),
    service("web", created="2026-01-01T00:00:00Z", annotations={"a": "ü"}, ingress=["192.0.2.9"]),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "file"


def by_key(objects: object) -> set[str]:
    assert isinstance(objects, list)
    return {repr(each) for each in objects}


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param([], id="nothing"),
        pytest.param(OBJECTS, id="every kind"),
        pytest.param([service(f"s{n}") for n in range(1234)], id="more than a line holds"),
    ],
)
def test_what_was_saved_is_loaded(path: Path, objects: list[Object]) -> None:
    save(path, Snapshot("here", 1700000000.5, objects))
    loaded = load(path, node="here")
    assert loaded is not None
    assert (loaded.node, loaded.saved_at) == ("here", 1700000000.5)
    assert by_key(loaded.objects) == by_key(objects)
    assert len(loaded.objects) == len(objects)


def test_no_file_is_no_error(path: Path) -> None:
    assert load(path, node="here") is None


def test_only_the_owner_may_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        save(path, Snapshot("here", 1.0, OBJECTS))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_failed_write_leaves_the_file_and_nothing_else(path: Path) -> None:
    save(path, Snapshot("here", 1.0, OBJECTS))
    unwritable = service(labels={"a": "\ud800"})
    with pytest.raises(UnicodeEncodeError):
        save(path, Snapshot("here", 2.0, [unwritable]))
    loaded = load(path, node="here")
    assert loaded is not None
    assert loaded.saved_at == 1.0
    assert os.listdir(path.parent) == [path.name]


def test_a_link_in_place_of_the_temporary_file_is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    victim = path.parent / "victim"
    victim.write_text("precious")
    path.with_name(f".{path.name}.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        save(path, Snapshot("here", 1.0, OBJECTS))
    assert victim.read_text() == "precious"


def _edit(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return edit


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda _: b"", "not a file of this program", id="empty"),
        pytest.param(lambda _: b"\xff\n", "not a file of this program", id="binary"),
        pytest.param(lambda _: b'{"a": 1}\n', "not a file of this program", id="other JSON"),
        pytest.param(
            _edit(b"uproxy last", b"uproxy first"), "not a file of this program", id="other format"
        ),
        pytest.param(
            _edit(b'"version":1', b'"version":2'),
            "format 2, and this version reads 1 only",
            id="future version",
        ),
        pytest.param(
            _edit(b'"node":"here"', b'"node":"there"'),
            'of node "there", and this is "here"',
            id="another node's",
        ),
        pytest.param(lambda content: content[:-1], "truncated", id="last byte missing"),
        pytest.param(lambda content: content[:300], "truncated", id="cut in a line"),
        pytest.param(
            lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
            "damaged",
            id="cut between lines",
        ),
        pytest.param(
            lambda content: content.splitlines(keepends=True)[0], "truncated", id="header alone"
        ),
        pytest.param(
            _edit(b"10.1.0.1", b"10.1.0.7"), "damaged: its checksum does not fit", id="changed"
        ),
        pytest.param(_edit(b'"10.1.0.1"', b"10.1.0.1"), "damaged", id="no JSON any more"),
        pytest.param(_edit(b'"10.1.0.1"', b"1234567890"), "damaged", id="of a wrong type"),
        pytest.param(_edit(b"web", b"w\xffb"), "damaged", id="no UTF-8 any more"),
        pytest.param(
            lambda content: content + b"{}\n", "damaged", id="something behind the checksum"
        ),
    ],
)
def test_what_cannot_be_trusted_is_refused(
    path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    save(path, Snapshot("here", 1.0, OBJECTS))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SnapshotError, match=f"^{re.escape(f'{path}: {reason}')}$"):
        load(path, node="here")


def test_a_directory_in_its_place_is_told(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(SnapshotError, match="cannot be read: Is a directory"):
        load(path, node="here")
