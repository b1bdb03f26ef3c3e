"""The flow log is written, and nothing that becomes of it stops the program."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from tests.control.workers.world import eventually
from tests.flow_records import record
from tests.nasty import NASTY
from uproxy.control import flow_log
from uproxy.control.ended_flows import EndedFlows
from uproxy.control.flow_log import FlowLog, line_of
from uproxy.core.cluster.pod_history import NOWHERE, Place
from uproxy.core.cluster.state import ClusterState
from uproxy.core.errors import SourceError
from uproxy.core.report.flow_format import Ended
from uproxy.core.report.flow_log import Missing
from uproxy.core.route import ServicePortName
from uproxy.net.messages import Records


def lines(*numbers: int, **parts: Any) -> list[tuple[Ended, Place]]:
    return [(Ended(record(each, **parts), 1), Place("web-0", "node-a")) for each in numbers]


def numbers(path: Path) -> list[int]:
    return [json.loads(each)["number"] for each in path.read_text().splitlines()]


async def test_a_line_for_each_flow(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    async with FlowLog(str(path)) as log:
        log.put(lines(1, 2))
        log.put(lines(3))
    assert numbers(path) == [1, 2, 3], "all of them are written before it closes"
    assert json.loads(path.read_text().splitlines()[0])["pod"] == "web-0"
    assert (log.counts.written, sum(log.counts.dropped.values())) == (3, 0)


@pytest.mark.parametrize("text", [each for name, each in NASTY.items() if name != "surrogate"])
def test_nothing_breaks_a_line(text: str) -> None:
    odd = record(owner=ServicePortName(text, text, text, "TCP"), reason=text, client=text)
    line = line_of(Ended(odd, 0), Place(text, text)).decode()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert json.loads(line)["pod"] == text


async def test_records_of_workers_are_logged_with_their_pods(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    flows = EndedFlows(ClusterState(["source"]), None, str(path))  # type: ignore[arg-type]
    assert flows.log is not None
    async with flows.log:
        flows.recorded(1, Records([record(7)], left_out=3))
        flows.recorded(1, Records([record(8)], request=5))
    assert numbers(path) == [7], "what was asked for is not for the log"
    assert flows.log.counts.dropped[Missing.TOO_MANY] == 3


async def test_without_a_log_nothing_is_written() -> None:
    flows = EndedFlows(ClusterState(["source"]), None)  # type: ignore[arg-type]
    flows.recorded(1, Records([record(7)]))
    flows.reopen_log()
    assert flows.log is None


async def test_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    async with FlowLog(str(path)) as log:
        path.rename(tmp_path / "flows.log.1")
        log.reopen()
        await eventually(path.exists)
    assert path.read_text() == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing/flows.log", "no such file or directory"), (".", "is a directory")],
)
async def test_a_file_that_cannot_be_opened_is_an_error(
    tmp_path: Path, name: str, says: str
) -> None:
    path = tmp_path / name
    with pytest.raises(SourceError, match=rf"--flow-log: {path}: {says}"):
        async with FlowLog(str(path)):
            pass


async def test_a_reader_that_does_not_read(caplog: pytest.LogCaptureFixture) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)  # Less than ten lines.
    try:
        log = FlowLog("-", stdout=write, room=100, patience=0.05)
        with caplog.at_level(logging.WARNING):
            async with log:
                for number in range(40):
                    log.put(lines(*range(number * 10, number * 10 + 10)))
        assert log.counts.dropped[Missing.QUEUE_FULL] == 300
        assert caplog.text.count("takes lines too slowly") == 1
        assert "100 lines were not written to standard output" in caplog.text
    finally:
        # The thread is stuck in a write, which ends without a reader.
        os.close(read)
        log._thread.join(20)
        os.close(write)


async def test_a_reader_that_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    read, write = os.pipe()
    os.close(read)
    async with FlowLog("-", stdout=write) as log:
        for number in range(5):
            log.put(lines(number))
        await eventually(lambda: log.counts.dropped[Missing.WRITE_FAILED] == 5)
    os.close(write)
    assert caplog.text.count("cannot write to standard output: broken pipe") == 1


async def test_a_directory_that_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "flows.log"
    path.parent.mkdir()
    async with FlowLog(str(path)) as log:
        path.parent.rename(tmp_path / "gone")
        log.put(lines(1, 2))
        await eventually(lambda: log.counts.dropped[Missing.WRITE_FAILED] == 2)
        path.parent.mkdir()
        log.put(lines(3))
        await eventually(lambda: log.counts.written == 1)
    assert numbers(path) == [3]


async def test_an_unexpected_error_drops_lines_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flows.log"

    def odd(ended: Ended, place: Place) -> bytes:
        if ended.record.number == 1:
            raise RuntimeError("odd")
        return line_of(ended, place)

    monkeypatch.setattr(flow_log, "line_of", odd)
    async with FlowLog(str(path)) as log:
        log.put(lines(1))
        log.put([(Ended(record(2), 0), NOWHERE)])
    assert numbers(path) == [2]
    assert log.counts.dropped[Missing.WRITE_FAILED] == 1
