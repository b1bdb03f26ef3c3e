"""What each command prints if names, reasons and answers contain text that harms terminals."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import msgspec
import pytest

from tests.cli import views
from tests.cli.test_status_client import answering
from tests.nasty import MARKUP, NASTY, is_fit_to_print
from tests.ports import free_port
from uproxy import cli
from uproxy.cli.commands import doctor
from uproxy.cli.doctor.facts import examine, proxy_mode
from uproxy.core.printable import printable
from uproxy.core.report.load_balancer import AnnouncingCounts
from uproxy.core.report.load_balancer_format import (
    AddressView,
    CountsOfFamilyView,
    LoadBalancerView,
    PoolView,
    ServiceAddressesView,
)
from uproxy.core.report.status import ApiServerStatus, ObjectStatus, WorkerStatus
from uproxy.core.report.status_format import StatusView

TEXTS = {name: text for name, text in NASTY.items() if name != "surrogate"} | {"markup": MARKUP}
"""JSON cannot have unpaired surrogates."""


def nasty_status(text: str) -> StatusView:
    """A status with the same text in every place where a server could put one."""
    pool_counts = CountsOfFamilyView(total=9, used=1, reserved=1, drained=1, free=6)
    counts = views.counts(dropped={text: 7}, dial_failures=1, retries=1)
    frontends = [
        views.frontend(
            "default/web",
            frontend=f"{text}/{state}",
            address=text,
            kind=text,
            service_port=text,
            protocol=text,
            state=state,
            reason=text,
            backends=[text, f"{text}2"],
            local_backends=[text],
            balancer=text,
            client_address=text,
            proxy_protocol=version,
            session_affinity=views.affinity(7),
            counts=counts,
        )
        for state in ("serving", "paused", "failed", text)
        for version in (text, None)
    ]
    backend = views.backend(
        "10.0.0.1:80",
        address=text,
        pod=text,
        node=text,
        zone=text,
        state=text,
        reason=text,
        failures={text: 7, "EIO": 1},
        last_error=text,
        last_error_at=text,
        aside_workers=1,
    )
    aside = msgspec.structs.replace(backend, aside_until=text)
    return views.status(
        node=text,
        ports=[views.port(backend, aside, service_port=text, protocol=text)],
        frontends=[*frontends, views.frontend(f"{text}/wob")],
        services=[views.not_served("default/web", text), views.not_served(text, text)],
        objects=[ObjectStatus(where="Service default/web", field=text, reason=text)],
        health_checks=[views.health_check("default/web", 1, text), views.health_check(text, 0)],
        workers=[WorkerStatus(index=0, pid=1, restarts=1, active_flows=0, engine=text)],
        api_servers=[ApiServerStatus(address=text, origin=text, in_use=False, reason=text)],
        not_ready=[text],
        not_healthy=[text],
        notes=[text],
        client_address_reason=text,
        load_balancer=LoadBalancerView(
            mode=text,
            announce=text,
            allocating=False,
            allocator=text,
            trouble=text,
            notes=[text],
            pools=[PoolView(text, text, [text], {text: pool_counts}, False, text)],
            addresses=[
                AddressView(text, ["default/web", text], text, text, False, text, 1e9, text, text)
            ],
            services=[
                ServiceAddressesView("default/web", [], text, text, ""),
                ServiceAddressesView(text, [text], text, text, text),
            ],
            counts=AnnouncingCounts(),
        ),
    )


class Called(NamedTuple):
    code: int
    out: str
    err: str


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> Called:
    """Calls a command as a shell does, but within this process."""
    monkeypatch.setattr(sys, "argv", ["uproxy", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Called(ended.value.code, out, err)


Call = Callable[..., Called]


@pytest.fixture
def uproxy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.setenv("UPROXY_URL", f"http://127.0.0.1:{free_port()}")
    return lambda *words: call(monkeypatch, capsys, *words)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["status", "-o", "wide"],
        ["status", "--state", "serving"],
        ["explain", "default/web"],
        ["explain", "default/wob"],
        ["top", "--once"],
        ["top", "--backends", "--once"],
        ["status", "--no-headers"],
        ["status", "web"],
        ["status", "-o", "name"],
        ["status", "-o", "jsonpath={..reason}{..node}"],
        ["explain", "svc/wob"],
    ],
    ids=" ".join,
)
def test_commands_that_ask_a_server(
    uproxy: Call, monkeypatch: pytest.MonkeyPatch, words: list[str], text: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with answering(200, msgspec.json.encode(nasty_status(text)), []) as url:
        done = uproxy(*words, "--url", url)
    assert is_fit_to_print(done.out + done.err)
    assert printable(text) in done.out + done.err


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("words", [["status"], ["explain", "default/web"]], ids=" ".join)
def test_json_of_a_server(uproxy: Call, words: list[str], text: str) -> None:
    with answering(200, msgspec.json.encode(nasty_status(text)), []) as url:
        done = uproxy(*words, "-o", "json", "--url", url)
    assert done.code == 0
    assert is_fit_to_print(done.out)
    assert json.loads(done.out)["node"] == text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("code", [400, 500])
@pytest.mark.parametrize("words", [["status"], ["explain", "web"], ["top"]], ids=" ".join)
def test_refusals_of_a_server(uproxy: Call, words: list[str], code: int, text: str) -> None:
    with answering(code, text.encode(), []) as url:
        done = uproxy(*words, "--url", url)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert is_fit_to_print(done.err)


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize(
    "words",
    [
        ["run", "--manifests", "/no/{}"],
        ["run", "--config", "/no/{}"],
        ["run", "--kubeconfig", "/no/{}"],
        ["run", "--nodeport-addresses", "{}"],
        ["run", "--{}"],
        ["run", "{}"],
        ["status", "--url", "{}"],
        ["status", "--state", "{}"],
        ["status", "-n", "{}"],
        ["status", "{}", "-n", "x"],
        ["status", "-o", "{}"],
        ["status", "-o", "jsonpath={{}"],
        ["status", "-l", "{},"],
        ["get", "{}"],
        ["help", "{}"],
        ["explain", "{} {}"],
        ["explain", "{}", "-n", "{}"],
        ["{}"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_printable_line(uproxy: Call, words: list[str], text: str) -> None:
    if "\0" in text:
        pytest.skip("no argument has one")
    done = uproxy(*(word.replace("{}", text) for word in words))
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert is_fit_to_print(done.err)


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("output", ["table", "json"])
def test_doctor(uproxy: Call, monkeypatch: pytest.MonkeyPatch, output: str, text: str) -> None:
    machine = replace(
        examine(),
        taken_ports={10249: text},
        strict_interfaces=(text, text),
        transparent=text,
        splice=text,
        bridges=(text,),
        bridge_rules=text,
        has_pods=True,
    )
    monkeypatch.setattr(doctor, "examine", lambda: machine)
    done = uproxy("doctor", "-o", output)
    assert is_fit_to_print(done.out)
    assert "kube-proxy" in done.out


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(b"SSH-2.0-x\r\n", id="SSH"),
        pytest.param(b"HTTP/1.1 200 \r\nX: " + b"y" * 70_000, id="a long header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nipt", id="half an answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n\x1b[31mred", id="an escape sequence"),
        pytest.param(b"HTTP/1.1 301 x\r\nLocation: ftp://127.0.0.1/\r\n\r\n", id="elsewhere"),
    ],
)
def test_doctor_survives_any_answer_on_a_port(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        mode = proxy_mode(server.getsockname()[1])
        thread.join()
    assert mode in ("", "ipt")
