"""Live commands on a real terminal: what keys do there, and that the terminal is as it was after
every way out."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.cli import views
from tests.cli.test_status_client import answering
from tests.nasty import NASTY
from tests.terminal import PATIENCE, Screen, terminal
from uproxy.core.printable import printable

RESTORED = "\x1b[?25h\x1b[?1049l"
"""The cursor is shown, and the screen is the one from before."""
FULL_SCREEN = "\x1b[?1049h"

SERVICES = [f"default/web-{number:02}" for number in range(40)]
STATUS = views.status(frontends=[views.frontend(name) for name in SERVICES])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that says the same of everything, whatever it is asked."""
    with answering(200, msgspec.json.encode(STATUS), []) as found:
        yield found


def command(*words: str, url: str) -> list[str]:
    return [sys.executable, "-m", "uproxy.cli", *words, "--url", url]


def check_restored(
    process: subprocess.Popen[bytes], screen: Screen, modes: object, code: int
) -> None:
    screen.wait_for(RESTORED)
    assert process.wait(PATIENCE) == code
    assert screen.modes() == modes
    screen.to_the_end()
    assert "Traceback" not in screen.text


def test_a_person_looks_around(url: str) -> None:
    with terminal(command("top", url=url)) as (process, screen):
        before = screen.modes()
        screen.wait_for("1/40")
        screen.type("\x1b[B\x1b[B")
        screen.wait_for("3/40")
        screen.type("\x1b[6~")
        screen.wait_for("23/40")
        screen.type("\x1b[F")
        screen.wait_for("default/web-39:http/TCP")
        screen.type("\r")
        screen.wait_for("default/web-39 is served on")
        screen.wait_for("esc back")
        screen.type("\x1b")
        screen.wait_for("40/40")
        screen.type("s")
        screen.wait_for("sort: active")
        screen.type("r")
        screen.wait_for("r reversed")
        screen.type("/web-0")
        screen.wait_for("/web-0_")
        screen.type("\r")
        screen.wait_for("1/10")
        screen.type("q")
        check_restored(process, screen, before, 0)


def test_status_and_a_change_of_the_size(url: str) -> None:
    with terminal(command("status", "-w", url=url)) as (process, screen):
        before = screen.modes()
        screen.wait_for("default/web-00")
        screen.wait_for("sort: problems")
        screen.type("\x1b[B")
        screen.wait_for("2/40")
        screen.resize(120, 7)
        screen.wait_for("\x1b[7;1H")
        screen.wait_for("2/40")
        screen.resize(20, 3)
        screen.wait_for("2/40  q quit  enter\u2026")
        screen.type("\x03")
        check_restored(process, screen, before, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it(url: str, number: signal.Signals) -> None:
    with terminal(command("top", url=url)) as (process, screen):
        before = screen.modes()
        screen.wait_for("q quit")
        process.send_signal(number)
        check_restored(process, screen, before, -number)


def test_a_terminal_that_is_closed_ends_it(url: str) -> None:
    with terminal(command("top", url=url)) as (process, screen):
        screen.wait_for("q quit")
        screen.hang_up()
        assert process.wait(PATIENCE) == -signal.SIGHUP


def test_an_error_of_its_own(url: str) -> None:
    code = (
        "import sys; from uproxy.cli import main; from uproxy.cli.live import session\n"
        "def fail(*_): raise RuntimeError('this is a test')\n"
        "session.pressed = fail\n"
        f"sys.argv = ['uproxy', 'top', '--url', {url!r}]; main()\n"
    )
    with terminal([sys.executable, "-c", code]) as (process, screen):
        before = screen.modes()
        screen.wait_for("q quit")
        screen.type("s")
        screen.wait_for(RESTORED)
        screen.wait_for("RuntimeError: this is a test")
        assert process.wait(PATIENCE) == 1
        assert screen.modes() == before


def test_it_stops_and_goes_on(url: str, tmp_path: Path) -> None:
    """In a shell with job control, as a process without one is never stopped by Ctrl-Z."""
    shell = ["bash", "--norc", "--noprofile", "-i"]
    line = " ".join(command("top", url=url))
    variables = {"PS1": "READY> ", "HISTFILE": str(tmp_path / "history")}
    with terminal(shell, variables=variables) as (_, screen):
        screen.wait_for("READY> ")
        screen.type(f"{line}\r")
        screen.wait_for("1/40")
        screen.type("\x1a")
        screen.wait_for(RESTORED)
        screen.wait_for("Stopped")
        screen.wait_for("READY> ")
        screen.type("stty -a | grep -o -w icanon | sed s/^/is-/\r")
        screen.wait_for("is-icanon")
        screen.wait_for("READY> ")
        screen.type("fg\r")
        screen.wait_for(FULL_SCREEN)
        screen.wait_for("1/40")
        screen.type("\x1b[B")
        screen.wait_for("2/40")
        screen.type("q")
        screen.wait_for(RESTORED)
        screen.wait_for("READY> ")


def test_without_a_keyboard_it_only_refreshes(url: str) -> None:
    with terminal(command("top", url=url), keyboard=False) as (process, screen):
        screen.wait_for("default/web-00:http/TCP")
        screen.wait_for("default/web-00:http/TCP")
        assert "q quit" not in screen.text
        process.send_signal(signal.SIGINT)
        screen.to_the_end()
        assert process.wait(PATIENCE) == 0
        assert screen.text.endswith(RESTORED)


def test_without_stdin_it_only_refreshes(url: str) -> None:
    line = " ".join(command("top", url=url))
    with terminal(["sh", "-c", f"exec {line} <&-"]) as (process, screen):
        screen.wait_for("default/web-00:http/TCP")
        screen.type("\x03")
        screen.wait_for(RESTORED)
        assert process.wait(PATIENCE) == 0


def test_a_terminal_that_can_do_nothing(url: str) -> None:
    with terminal(command("top", url=url), variables={"TERM": "dumb"}) as (process, screen):
        screen.wait_for("default/web-00:http/TCP")
        screen.wait_for("default/web-00:http/TCP")
        assert "\x1b" not in screen.text
        screen.type("\x03")
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("text", [NASTY["title of the window"], "[red]x[/]", "\x1b[2J"])
def test_names_and_keys_cannot_harm_a_terminal(text: str) -> None:
    status = views.status(frontends=[views.frontend(f"default/{text}", reason=text)])
    with (
        answering(200, msgspec.json.encode(status), []) as url,
        terminal(command("status", "-w", url=url)) as (process, screen),
    ):
        screen.wait_for(printable(text)[:20])
        screen.type("\r")
        screen.wait_for("esc back")
        screen.type("\x1b")
        screen.wait_for("sort: problems")
        screen.type("/" + text.replace("\x1b", "\u202e\x9b") + "\r")
        screen.wait_for("esc show all")
        screen.type("q")
        screen.wait_for(RESTORED)
        assert process.wait(PATIENCE) == 0
    assert "\u202e" not in screen.text
    assert text == printable(text) or text not in screen.text


@contextmanager
def terminal_of_a_server_that_ends(
    asked: list[str],
) -> Iterator[tuple[subprocess.Popen[bytes], Screen]]:
    with ExitStack() as server:
        url = server.enter_context(answering(200, msgspec.json.encode(STATUS), asked))
        with terminal(command("top", url=url)) as (process, screen):
            screen.wait_for("1/40")
            server.close()
            yield process, screen


def test_what_is_asked_while_uproxy_is_away() -> None:
    asked: list[str] = []
    with terminal_of_a_server_that_ends(asked) as (process, screen):
        screen.wait_for("Trying again: no uproxy answers")
        screen.type("\x1b[B")
        screen.wait_for("2/40")
        screen.type("\r")
        screen.wait_for("Asking about default/web-01 ...")
        screen.type("q")
        screen.wait_for(RESTORED)
        assert process.wait(PATIENCE) == 0
    assert asked
