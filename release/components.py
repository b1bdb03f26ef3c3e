"""What is installed besides uproxy: the bill of materials (CycloneDX), and its licences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from release.outcome import Outcome, judged, listed

ALLOWED: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MIT",
        "MPL-2.0",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "Zlib",
    }
)
"""SPDX identifiers of licences under which a library may be distributed together with a program
that has the Apache License. MPL-2.0 applies to single files: certifi is used without changes."""

_CLASSIFIERS: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""SPDX identifiers for packages whose metadata has a classifier, but no SPDX expression."""


def licences(component: Mapping[str, Any]) -> Iterator[str]:
    """The SPDX identifiers in the licences of a component of a bill of materials."""
    for each in component.get("licenses", ()):
        named = each.get("license", {})
        text = each.get("expression") or named.get("id") or named.get("name", "")
        yield from re.split(r" (?:AND|OR|WITH) ", _CLASSIFIERS.get(text, text).strip("()"))


def check_licences(bill: Mapping[str, Any]) -> Outcome:
    """Every licence of every component has to be allowed, even where a package offers a choice of
    them: people have to make that choice."""
    problems, known = [], set()
    for each in bill["components"]:
        found = set(licences(each))
        known |= found
        refused = sorted(found - ALLOWED) or ([] if found else ["no licence"])
        problems += [f"{each['name']} ({licence})" for licence in refused]
    problem = f"not in the list of release/components.py: {listed(problems)}" if problems else ""
    return judged("licences", problem, ", ".join(sorted(known)))


def check_bill(bill: Mapping[str, Any], version: str, pinned: Mapping[str, str]) -> Outcome:
    """Whether it is about this version, and all packages in it are those of requirements.txt,
    which also has some that only other versions of Python need."""
    about = bill["metadata"]["component"]
    found = {canonical(each["name"]): each["version"] for each in bill["components"]}
    odd = sorted(name for name, each in found.items() if pinned.get(name) != each)
    problem = f"differs from requirements.txt: {listed(odd)}" if odd else ""
    if (about["name"], about.get("version")) != ("uproxy", version):
        problem = f"is about {about['name']} {about.get('version')}"
    return judged("SBOM", problem, f"CycloneDX {bill['specVersion']}, {len(found)} components")


def canonical(name: str) -> str:
    """The name of a package as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
