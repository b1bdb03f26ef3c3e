"""The bill of materials, its licences, and the packages that are pinned by hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from release.audit import check_audit
from release.components import canonical, check_bill, check_licences, licences
from release.outcome import Result
from release.pinned import check_requirements, needed, versions, without_hash

ROOT = Path(__file__).parents[2]
APACHE = "License :: OSI Approved :: Apache Software License"
REQUIREMENTS = """# By hand.
a-b==1.0 \\
    --hash=sha256:00 \\
    --hash=sha256:01
c==2.0 ; python_full_version < '3.13' \\
    --hash=sha256:02
"""


def bill(*components: dict[str, Any], name: str = "uproxy", version: str = "1") -> dict[str, Any]:
    about = {"component": {"name": name, "version": version}}
    return {"specVersion": "1.6", "metadata": about, "components": list(components)}


def component(name: str, *found: dict[str, Any], version: str = "1.0") -> dict[str, Any]:
    return {"name": name, "version": version, "licenses": list(found)}


@pytest.mark.parametrize(
    ("found", "names"),
    [
        pytest.param({"license": {"id": "MIT"}}, ["MIT"], id="identifier"),
        pytest.param({"license": {"name": APACHE}}, ["Apache-2.0"], id="classifier"),
        pytest.param({"expression": "MIT AND PSF-2.0"}, ["MIT", "PSF-2.0"], id="both"),
        pytest.param({"expression": "(MIT OR GPL-3.0-only)"}, ["MIT", "GPL-3.0-only"], id="either"),
    ],
)
def test_licences(found: dict[str, Any], names: list[str]) -> None:
    assert list(licences(component("a", found))) == names


@pytest.mark.parametrize(
    ("components", "problem"),
    [
        pytest.param([component("a", {"license": {"id": "MIT"}})], "", id="allowed"),
        pytest.param(
            [component("a", {"license": {"id": "GPL-3.0-only"}})], "a (GPL-3.0-only)", id="refused"
        ),
        pytest.param([component("a")], "a (no licence)", id="none"),
    ],
)
def test_allowed_licences(components: list[dict[str, Any]], problem: str) -> None:
    found = check_licences(bill(*components))
    assert found.result is (Result.FAIL if problem else Result.OK)
    assert problem in found.text


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        pytest.param(bill(component("A_b")), "", id="good"),
        pytest.param(
            bill(component("d")), "requirements.txt: d", id="a package that is not pinned"
        ),
        pytest.param(bill(component("a-b", version="1.1")), "a-b", id="another version"),
        pytest.param(bill(version="0.9"), "is about uproxy 0.9", id="an old one"),
    ],
)
def test_bill(made: dict[str, Any], problem: str) -> None:
    found = check_bill(made, "1", versions(REQUIREMENTS))
    assert found.result is (Result.FAIL if problem else Result.OK)
    assert problem in found.text


def test_versions_and_hashes_are_read() -> None:
    assert versions(REQUIREMENTS) == {"a-b": "1.0", "c": "2.0"}
    assert without_hash(REQUIREMENTS) == []
    assert without_hash(f"{REQUIREMENTS}d==3.0\ne==4 \\\n    --hash=sha256:03\n") == ["d"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(REQUIREMENTS, "", id="good"),
        pytest.param(REQUIREMENTS.replace("1.0", "1.1"), "other versions than", id="other version"),
        pytest.param(f"{REQUIREMENTS}a-b==1.0\n", "no hashes: a-b", id="no hash"),
        pytest.param(REQUIREMENTS.partition("c==")[0], "lacks c", id="a package is missing"),
        pytest.param("", "it is empty", id="nothing"),
    ],
)
def test_requirements(text: str, problem: str) -> None:
    found = check_requirements(text, {"a-b": "1.0", "c": "2.0"}, ["a-b", "c"])
    assert found.result is (Result.FAIL if problem else Result.OK)
    assert problem in found.text
    assert ("make requirements" in found.text) == bool(problem)


def test_our_requirements_are_what_ci_tests_with() -> None:
    constraints = versions((ROOT / "constraints.txt").read_text())
    wanted = needed((ROOT / "pyproject.toml").read_text())
    assert {"aiohttp", "kubernetes-asyncio", "pyyaml"} <= wanted
    found = check_requirements((ROOT / "requirements.txt").read_text(), constraints, wanted)
    assert found.result is Result.OK, found.text
    pinned = versions((ROOT / "requirements.txt").read_text())
    assert {"aiohttp", "kubernetes-asyncio", "uvloop"} <= pinned.keys()
    assert "pytest" not in pinned


def test_no_file_of_versions_says_where_to_get_them() -> None:
    for name in ("requirements.txt", "constraints.txt", "release/tools.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text, name
        assert "index" not in text, name


@pytest.mark.parametrize(
    ("output", "errors", "result", "text"),
    [
        pytest.param(
            [{"name": "a", "version": "1", "vulns": []}], "", Result.OK, "1 pack", id="ok"
        ),
        pytest.param(
            [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]}],
            "",
            Result.FAIL,
            "a 1 (PYSEC-1)",
            id="vulnerable",
        ),
        pytest.param(
            [{"name": "a", "skip_reason": "?"}], "", Result.SKIPPED, "no data", id="mirror"
        ),
        pytest.param(
            [{"name": "a", "skip_reason": "?"}, {"name": "b", "version": "1", "vulns": []}],
            "",
            Result.FAIL,
            "not known to the database: a",
            id="one unknown",
        ),
        pytest.param(None, "a\nno network\n", Result.SKIPPED, "no network", id="no answer"),
    ],
)
def test_audit(output: object, errors: str, result: Result, text: str) -> None:
    printed = "" if output is None else json.dumps({"dependencies": output})
    found = check_audit(printed, errors)
    assert found.result is result
    assert text in found.text


def test_names_of_packages() -> None:
    assert canonical("Ruamel.YAML_x") == "ruamel-yaml-x"
