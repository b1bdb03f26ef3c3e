"""Small files, and the devices, pipes and links that may be in their place."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from uproxy.text.files import read_any, read_small

Read = Callable[..., bytes]
BOTH = pytest.mark.parametrize("read", [read_small, read_any])


@BOTH
def test_a_file_is_read(tmp_path: Path, read: Read) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "link").symlink_to("x")
    assert read(tmp_path / "link", 7) == b"content"
    with pytest.raises(OSError, match="File too large"):
        read(tmp_path / "x", 6)


@BOTH
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("nothing", "No such file", id="nothing"),
        pytest.param("a\0b", "Not a valid file name", id="NUL"),
        pytest.param("x" * 5000, "File name too long", id="too long"),
        pytest.param(".", "irectory|Not a regular file", id="directory"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_the_system(
    tmp_path: Path, read: Read, name: str, reason: str
) -> None:
    with pytest.raises(OSError, match=reason):
        read(tmp_path / name)


def test_small_files_are_regular(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="Not a regular file"):
            read_small(path)


def test_a_device_without_end_is_too_large() -> None:
    with pytest.raises(OSError, match="File too large"):
        read_any(Path("/dev/zero"))


def test_what_a_program_prints_is_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(b"x" * 200_000,))
    writer.start()
    try:
        assert read_any(fifo) == b"x" * 200_000
    finally:
        writer.join()


def test_a_fifo_without_a_writer_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="Timed out before the end"):
        read_any(tmp_path / "fifo", patience=0.05)
