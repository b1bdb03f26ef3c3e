"""The file with the last-known state: written whole, read whole, or not at all."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import endpoint, endpoint_slice, local, node, service
from uproxy.core.cluster.objects import Endpoints, EndpointSubset, Object, ObjectMeta
from uproxy.sources.last_known.private_file import replace_private
from uproxy.sources.last_known.snapshot import (
    FILE_NAME,
    Snapshot,
    SnapshotError,
    load,
    remembered_api_servers,
    save,
)

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


def test_where_the_api_servers_were(path: Path) -> None:
    of_kubernetes = endpoint_slice("kubernetes", "192.0.2.1", ports={"https": 6443})
    place = path.with_name(FILE_NAME)
    save(place, Snapshot("here", 0.0, [service("web"), of_kubernetes]))
    assert remembered_api_servers(place.parent, "here") == ("192.0.2.1:6443",)
    assert remembered_api_servers(place.parent, "there") == ()
    place.write_text("nonsense")
    assert remembered_api_servers(place.parent, "here") == ()
    assert remembered_api_servers(place.parent / "absent", "here") == ()


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


def link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def hard_link(place: Path, victim: Path) -> None:
    place.hardlink_to(victim)


def fifo(place: Path, victim: Path) -> None:
    os.mkfifo(place)


def directory(place: Path, victim: Path) -> None:
    place.mkdir()


IN_THE_WAY = pytest.mark.parametrize("put", [link, hard_link, fifo, directory])


@IN_THE_WAY
def test_what_is_in_place_of_the_temporary_file_is_neither_written_nor_removed(
    path: Path, put: Callable[[Path, Path], None]
) -> None:
    path.parent.mkdir()
    victim = path.parent / "victim"
    victim.write_text("precious")
    place = path.with_name(f".{path.name}.guessed.new")
    put(place, victim)
    with pytest.raises(FileExistsError), replace_private(path, unique=lambda: "guessed"):
        pytest.fail("it was opened")
    assert victim.read_text() == "precious"
    assert os.path.lexists(place)
    assert not path.exists()


def test_the_name_of_the_temporary_file_cannot_be_guessed(path: Path) -> None:
    names = set()
    for _ in range(5):
        with replace_private(path):
            names |= set(os.listdir(path.parent)) - {path.name}
    assert len(names) == 5
    assert all(len(each) >= len(path.name) + 32 for each in names)


@IN_THE_WAY
def test_what_is_in_place_of_the_file_is_replaced_and_not_written_to(
    path: Path, put: Callable[[Path, Path], None]
) -> None:
    path.parent.mkdir()
    victim = path.parent / "victim"
    victim.write_text("precious")
    put(path, victim)
    if put is directory:
        with pytest.raises(IsADirectoryError):
            save(path, Snapshot("here", 1.0, OBJECTS))
    else:
        save(path, Snapshot("here", 1.0, OBJECTS))
        assert load(path, node="here") is not None
    assert victim.read_text() == "precious"
    assert len(os.listdir(path.parent)) == 2, "no temporary file is left"


def test_what_a_killed_process_left_behind_is_removed_later(path: Path) -> None:
    path.parent.mkdir()
    left = [path.with_name(f".{path.name}.abc.new"), path.with_name(f".{path.name}.new")]
    other = path.with_name(".other.abc.new")
    for each in (*left, other):
        each.touch()
    for seconds, there in ((599.0, True), (601.0, False)):
        with replace_private(path, wall=lambda later=seconds: left[0].stat().st_mtime + later):  # type: ignore[misc]
            pass
        assert [each.exists() for each in left] == [there, there]
    assert other.exists()


def test_a_symbolic_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    save(tmp_path / "other", Snapshot("here", 1.0, OBJECTS))
    path.parent.mkdir()
    path.symlink_to(tmp_path / "other")
    with pytest.raises(SnapshotError, match="cannot be read: a symbolic link"):
        load(path, node="here")


def test_a_file_with_another_name_is_refused(path: Path) -> None:
    save(path, Snapshot("here", 1.0, OBJECTS))
    path.with_name("other").hardlink_to(path)
    with pytest.raises(SnapshotError, match="a hard link"):
        load(path, node="here")


@pytest.mark.parametrize("writer", [False, True], ids=["no writer", "writer"])
def test_a_fifo_in_its_place_is_not_waited_for(path: Path, writer: bool) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR) if writer else -1
    try:
        with pytest.raises(SnapshotError, match="not a regular file"):
            load(path, node="here")
    finally:
        if writer:
            os.close(descriptor)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    save(path, Snapshot("here", 1.0, OBJECTS))
    path.chmod(mode)
    with pytest.raises(SnapshotError, match="other users may write to it"):
        load(path, node="here")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_another_owner_is_refused(path: Path) -> None:
    save(path, Snapshot("here", 1.0, OBJECTS))
    os.chown(path, 12345, 12345)
    with pytest.raises(SnapshotError, match=r"it belongs to another user \(12345\)"):
        load(path, node="here")


def test_a_file_that_is_too_large_is_not_read(path: Path) -> None:
    save(path, Snapshot("here", 1.0, OBJECTS))
    os.truncate(path, 2 * 1024**3)  # A hole.
    with pytest.raises(SnapshotError, match="larger than 1024 MiB"):
        load(path, node="here")


def _edit(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return edit


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda _: b"", "not a state file of uproxy", id="empty"),
        pytest.param(lambda _: b"\xff\n", "not a state file of uproxy", id="binary"),
        pytest.param(lambda _: b'{"a": 1}\n', "not a state file of uproxy", id="other JSON"),
        pytest.param(
            _edit(b"uproxy last", b"uproxy first"), "not a state file of uproxy", id="other format"
        ),
        pytest.param(
            _edit(b'"version":1', b'"version":2'),
            "its format is 2; this version of uproxy reads 1",
            id="future version",
        ),
        pytest.param(
            _edit(b'"node":"here"', b'"node":"there"'),
            'it is of node "there", but this node is "here"',
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
            _edit(b"10.1.0.1", b"10.1.0.7"), "damaged: its checksum does not match", id="changed"
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


def test_a_name_that_no_file_can_have_is_reported() -> None:
    with pytest.raises(SnapshotError, match="not a valid file name"):
        load(Path("a\0b"), node="here")


def test_a_directory_in_its_place_is_reported(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(SnapshotError, match="cannot be read: it is not a regular file"):
        load(path, node="here")
