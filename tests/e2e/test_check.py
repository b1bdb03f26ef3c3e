"""`uproxy check` as a process, and the same findings in the log of `uproxy run`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.program import endpoints, program, service, wait_for, write
from tests.ports import free_port

OPTIONS = ("--nodeport-addresses", "localhost", "--hostname-override", "here")


def checked(directory: Path) -> tuple[int, list[str]]:
    """The exit code, and the findings as the log has them."""
    command = [sys.executable, "-m", "uproxy.cli", "check", str(directory), "-o", "json", *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr
    found = []
    for each in json.loads(done.stdout)["findings"]:
        where = f"{each['file']}:{each['line']}" if each["line"] else each["file"]
        see = f" (see {each['see']})" if each["see"] else ""
        words = (where, each["object"], each["field"], each["reason"])
        found.append(": ".join(filter(None, words)) + see)
    return done.returncode, found


def without_lines(text: str) -> str:
    return re.sub(r"(\.yaml):[0-9]+", r"\1", text)


def test_run_logs_what_check_says_once_and_what_is_new(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    number = free_port()
    web, other = (
        service(name, ports=[{"name": "main", "port": 80, "nodePort": number}])
        for name in ("web", "another")
    )
    web["spec"]["nodeport"] = number
    web["metadata"]["annotations"] = {"uproxy.dev/balancr": "random"}
    plural = {"apiVersion": "v1", "kind": "Services", "metadata": {"name": "x"}}
    write(manifests, "web.yaml", web, *endpoints("web", []))
    write(manifests, "other.yaml", other)
    write(manifests, "plural.yaml", plural)
    (manifests / "empty.yaml").touch()
    code, expected = checked(manifests)
    assert code == 1
    for word in ("nodeport", "balancr", "Services", "is served for", "no endpoints", "no object"):
        assert len([line for line in expected if word in line]) == 1, expected
    with program(manifests, *OPTIONS[:2]) as uproxy:
        for line in expected:
            wait_for(line, lambda line=line: line in uproxy.log)  # type: ignore[misc]
        path = manifests / "web.yaml"
        path.write_text("# moved down\n" + path.read_text())
        (manifests / "new.yaml").write_text("# nothing")
        new = f"{manifests}/new.yaml: there is no object in it"
        wait_for("what is new", lambda: new in uproxy.log)
        write(
            manifests, "late.yaml", service("late", ports=[{"port": 80, "nodePort": free_port()}])
        )
        wait_for("the Service", lambda: "Service default/late: spec.ports[0]: no" in uproxy.log)
        _, now = checked(manifests)
        logged = without_lines(uproxy.log)
        for line in {without_lines(each) for each in (*expected, *now)}:
            assert logged.count(f" {line}\n") == 1, line
