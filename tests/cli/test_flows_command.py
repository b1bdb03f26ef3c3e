"""`uproxy flows`, with a server that the test plays."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.cli import views
from tests.flow_records import record
from tests.nasty import NASTY, is_fit_to_print
from uproxy.cli.commands.flows import command
from uproxy.core.cluster.pod_history import Place
from uproxy.core.report.flow_format import Ended, FlowsView, FlowView, flow_view


class Server:
    """Answers /api/v1/flows with one view after the other, and then ends the command."""

    def __init__(self, *answers: FlowsView | int) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []

    def answer(self, path: str) -> tuple[int, bytes]:
        parts = urlsplit(path)
        if parts.path != "/api/v1/flows":
            asked = parse_qs(parts.query)
            known = asked.get("service", ["web"]) == ["web"]
            known = known and asked.get("namespace", ["default"]) == ["default"]
            web = [views.frontend()] if known else []
            return 200, msgspec.json.encode(views.status(frontends=web))
        self.asked.append({name: each[0] for name, each in parse_qs(parts.query).items()})
        answer = self.answers.pop(0)
        return (answer, b"") if isinstance(answer, int) else (200, msgspec.json.encode(answer))


@contextmanager
def running(server: Server) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = server.answer(self.path)
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def flow(number: int, **parts: Any) -> FlowView:
    return flow_view(Ended(record(number, **parts), 0), Place("web-0", "node-a"))


def answer(*flows: FlowView, cursor: str = "0-1-1", **parts: Any) -> FlowsView:
    return FlowsView(list(flows), cursor, parts.get("left_out", 0), parts.get("missing", []))


def run(server: Server, *words: str) -> Result:
    with running(server) as url:
        return CliRunner().invoke(command, [*words, "--url", url])


def follow(monkeypatch: pytest.MonkeyPatch, server: Server, *words: str) -> Result:
    """Until the server has no further answer, when Ctrl-C is pressed."""

    def rest(_: float) -> None:
        if not server.answers:
            raise KeyboardInterrupt

    monkeypatch.setattr("uproxy.cli.commands.flows.time.sleep", rest)
    return run(server, "-f", *words)


def test_a_table() -> None:
    found = run(Server(answer(flow(1), flow(2, code="SC", reason="ECONNREFUSED"))))
    assert found.exit_code == 0
    head, good, bad = found.stdout.splitlines()
    assert head.split()[:5] == ["START", "LASTED", "CLIENT", "SERVICE", "POD"]
    assert "web-0" in good
    assert bad.endswith("SC    ECONNREFUSED")


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ((), {"limit": "100"}),
        (("web",), {"service": "web", "limit": "100"}),
        (("default/web",), {"namespace": "default", "service": "web", "limit": "100"}),
        (("--service", "svc/web"), {"service": "web", "limit": "100"}),
        (
            ("-n", "default", "--bad", "--limit", "5"),
            {"namespace": "default", "bad": "True", "limit": "5"},
        ),
    ],
)
def test_what_is_asked_for(words: tuple[str, ...], asked: dict[str, str]) -> None:
    server = Server(answer(flow(1)))
    assert run(server, *words).exit_code == 0
    assert server.asked == [asked]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("web", "--service", "web"), "the Service is given twice"),
        (("a/b/c",), "is not the name of a Service"),
        (("default/web", "-n", "prod"), "name different namespaces"),
        (("-n", "prod", "-A"), "contradict each other"),
        (("--limit", "0"), "1<=x<=10000"),
        (("-o", "yaml"), "'table', 'wide', 'json'"),
    ],
)
def test_what_cannot_be_asked_for(words: tuple[str, ...], says: str) -> None:
    found = run(Server(), *words)
    assert found.exit_code == 2
    assert says in found.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "No flow has ended yet.\n"),
        (("default/web",), "No flow of default/web has ended yet.\n"),
        (("--bad", "web"), "No bad flow of web has ended yet.\n"),
    ],
)
def test_no_flow(words: tuple[str, ...], says: str) -> None:
    found = run(Server(answer()), *words)
    assert (found.exit_code, found.stdout) == (0, says)


@pytest.mark.parametrize("words", [("wbe",), ("-n", "prod"), ("-f", "wbe")])
def test_what_does_not_exist(words: tuple[str, ...]) -> None:
    found = run(Server(answer()), *words)
    assert found.exit_code == 1
    assert found.stdout == ""


def test_a_server_without_flows_is_another_version() -> None:
    found = run(Server(404))
    assert found.exit_code == 2
    assert "another version" in found.stderr


def test_a_document() -> None:
    view = answer(flow(1), flow(2), left_out=3)
    found = run(Server(view), "-o", "json")
    assert json.loads(found.stdout) == msgspec.to_builtins(view)


def test_following_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(
        answer(flow(1), cursor="0-9-1"),
        answer(cursor="0-9-1"),
        answer(flow(2), flow(3), cursor="0-9-3"),
        answer(),
    )
    found = follow(monkeypatch, server, "--bad")
    assert found.exit_code == 0
    assert len(found.stdout.splitlines()) == 4, "one head, and a line for each"
    assert [each.get("after") for each in server.asked] == [None, "0-9-1", "0-9-1", "0-9-3"]
    assert [each["limit"] for each in server.asked] == ["100", "1000", "1000", "1000"]
    assert all(each["bad"] == "True" for each in server.asked)


def test_following_as_json_has_a_document_on_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(answer(flow(1)), answer(flow(2), flow(3)))
    found = follow(monkeypatch, server, "-o", "json")
    assert [json.loads(each)["number"] for each in found.stdout.splitlines()] == [1, 2, 3]


def test_what_is_missing_is_said_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = ["worker 1 has not answered within 2 s"]
    server = Server(
        answer(flow(1), left_out=50),
        answer(flow(2), left_out=1234, missing=hangs),
        answer(missing=hangs),
        answer(),
    )
    found = follow(monkeypatch, server)
    assert found.stderr.splitlines() == [
        "uproxy: worker 1 has not answered within 2 s, so its flows are missing",
        "uproxy: 1,234 more flows ended meanwhile, too many to show",
    ]


def test_following_survives_a_uproxy_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(answer(flow(1)), 503, 503, answer(flow(2)))
    found = follow(monkeypatch, server, "-o", "json")
    assert len(found.stdout.splitlines()) == 2
    assert found.stderr.count("trying again") == 1, "said once"


@pytest.mark.parametrize("text", [each for name, each in NASTY.items() if name != "surrogate"])
@pytest.mark.parametrize("output", ["table", "wide", "json"])
def test_hostile_names(text: str, output: str) -> None:
    server = Server(answer(msgspec.structs.replace(flow(1), pod=text, service=text, reason=text)))
    found = run(server, "-o", output)
    assert found.exit_code == 0
    assert all(is_fit_to_print(line) for line in found.stdout.splitlines())
    if output != "json":
        assert len(found.stdout.splitlines()) == 2


def test_help_explains_every_letter() -> None:
    text = CliRunner().invoke(command, ["--help"]).stdout
    for letter in "CSPRKI-DL":
        assert f"\n    {letter}  " in text
