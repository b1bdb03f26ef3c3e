"""Known vulnerabilities of what is installed, as pip-audit finds them."""

from __future__ import annotations

import json
from typing import Any

from release.outcome import Outcome, Result, listed

_CHECK = "pip-audit"


def check_audit(output: str, errors: str) -> Outcome:
    """From the JSON that pip-audit prints, and what it says on stderr."""
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = errors.strip().splitlines()[-1:] or ["it printed nothing"]
        return Outcome(_CHECK, Result.SKIPPED, f"no database can be reached here: {last[0]}")
    found = [
        f"{each['name']} {each['version']} ({vulnerability['id']})"
        for each in packages
        for vulnerability in each.get("vulns", ())
    ]
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    if found:
        return Outcome(_CHECK, Result.FAIL, f"known vulnerabilities: {listed(found)}")
    if len(unknown) == len(packages):
        return Outcome(_CHECK, Result.SKIPPED, "no database can be reached here")
    if unknown:
        return Outcome(_CHECK, Result.FAIL, f"not known to the database: {listed(unknown)}")
    return Outcome(_CHECK, Result.OK, f"{len(packages)} packages, no known vulnerability")
