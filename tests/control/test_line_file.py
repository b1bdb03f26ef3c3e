"""Whole lines reach the file that has the name, and nothing is torn by an error."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from uproxy.control.line_file import LineFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flows.log"


def test_lines_are_appended(path: Path) -> None:
    path.write_bytes(b"earlier\n")
    file = LineFile(str(path))
    file.open()
    assert file.write(b"a\nb\n") == (0, None)
    assert file.write(b"c\n") == (0, None)
    assert path.read_bytes() == b"earlier\na\nb\nc\n"
    file.close()


def test_others_cannot_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        file = LineFile(str(path))
        file.open()
        file.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_was_moved(path: Path) -> None:
    """As by logrotate, which need not tell anybody."""
    file = LineFile(str(path))
    file.write(b"a\n")
    path.rename(path.with_suffix(".1"))
    file.write(b"b\n")
    assert path.with_suffix(".1").read_bytes() == b"a\n"
    assert path.read_bytes() == b"b\n"
    path.unlink()
    file.write(b"c\n")
    assert path.read_bytes() == b"c\n"
    file.close()


def test_a_file_that_was_truncated(path: Path) -> None:
    """By logrotate with copytruncate."""
    file = LineFile(str(path))
    file.write(b"a\n")
    os.truncate(path, 0)
    file.write(b"b\n")
    assert path.read_bytes() == b"b\n"
    file.close()


def test_a_file_that_cannot_be_opened_is_opened_later(tmp_path: Path) -> None:
    path = tmp_path / "later" / "flows.log"
    file = LineFile(str(path))
    with pytest.raises(FileNotFoundError):
        file.open()
    lost, error = file.write(b"a\nb\n")
    assert lost == 2
    assert error is not None
    assert error.errno == errno.ENOENT
    path.parent.mkdir()
    assert file.write(b"c\n") == (0, None)
    assert path.read_bytes() == b"c\n"
    file.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b"a\n"), (b"old\n", b"old\na\n"), (b"old\nhal", b"old\nhal\na\n")],
)
def test_a_line_of_a_process_that_was_killed_is_ended(
    path: Path, before: bytes, after: bytes
) -> None:
    """Or of one that ended while the disk was full."""
    path.write_bytes(before)
    file = LineFile(str(path))
    assert file.write(b"a\n") == (0, None)
    assert path.read_bytes() == after
    file.close()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be longer than eight bytes, which is like a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("small_files")
def test_a_line_that_has_begun_is_completed_when_there_is_room(path: Path) -> None:
    file = LineFile(str(path))
    assert file.write(b"1234\n") == (0, None)
    lost, error = file.write(b"abcdef\nsecond\nthird\n")
    assert (lost, error and error.errno) == (2, errno.EFBIG)
    assert path.read_bytes() == b"1234\nabc"
    lost, _ = file.write(b"fourth\n")
    assert lost == 1
    os.truncate(path, 0)
    assert file.write(b"ok\n") == (0, None)
    assert path.read_bytes() == b"def\nok\n", "what was before it was removed by the test"
    file.close()


@pytest.mark.usefixtures("small_files")
def test_a_line_that_has_begun_is_completed_after_reopening(path: Path) -> None:
    """SIGHUP comes while the disk is full."""
    file = LineFile(str(path))
    assert file.write(b"1234\n") == (0, None)
    assert file.write(b"abcdef\n")[0] == 0
    file.reopen()
    os.truncate(path, 0)
    assert file.write(b"ok\n") == (0, None)
    assert path.read_bytes() == b"def\nok\n"
    file.close()


@pytest.mark.usefixtures("small_files")
def test_the_rest_of_a_line_does_not_go_to_another_file(path: Path) -> None:
    file = LineFile(str(path))
    file.write(b"1234\nabcdef\n")
    path.rename(path.with_suffix(".1"))
    file.reopen()
    assert file.write(b"ok\n") == (0, None)
    assert path.read_bytes() == b"ok\n"
    file.close()


@pytest.mark.usefixtures("small_files")
def test_a_file_that_is_full_to_the_end_of_a_line(path: Path) -> None:
    file = LineFile(str(path))
    lost, _ = file.write(b"1234567\nabc\n")
    assert lost == 1
    os.truncate(path, 0)
    assert file.write(b"ok\n") == (0, None)
    assert path.read_bytes() == b"ok\n"
    file.close()


def test_standard_output_stays_open() -> None:
    read, write = os.pipe()
    file = LineFile("-", stdout=write)
    file.open()
    file.write(b"a\n")
    file.close()
    assert file.write(b"b\n") == (0, None)
    assert os.read(read, 9) == b"a\nb\n"
    os.close(read)
    lost, error = file.write(b"c\n")
    assert (lost, error and error.errno) == (1, errno.EPIPE)
    os.close(write)


def test_a_program_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be that of a socket."""
    monkeypatch.setattr("sys.__stdout__", None)
    file = LineFile("-")
    with pytest.raises(OSError, match="it is closed"):
        file.open()
    lost, _ = file.write(b"a\n")
    assert lost == 1


def test_standard_output_that_does_not_block() -> None:
    """A terminal that the reader has made so, for example."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    file = LineFile("-", stdout=write)
    lines = b"x" * 20_000 + b"\n"
    found = bytearray()

    def receive() -> None:
        while len(found) < len(lines):
            found.extend(os.read(read, 1000))

    reader = threading.Thread(target=receive)
    reader.start()
    assert file.write(lines) == (0, None)
    reader.join(20)
    assert found == lines
    os.close(read)
    os.close(write)


def test_a_pipe_needs_a_reader(path: Path) -> None:
    os.mkfifo(path)
    file = LineFile(str(path))
    lost, error = file.write(b"a\n")
    assert (lost, error and error.errno) == (1, errno.ENXIO)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert file.write(b"b\n") == (0, None)
    assert os.read(reader, 9) == b"b\n"
    os.close(reader)
    file.close()
