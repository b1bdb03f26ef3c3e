"""What `kubectl kustomize` and `helm template` make of the files in deploy/."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
KUSTOMIZE: Final = DEPLOY / "kustomize"
CHART: Final = DEPLOY / "helm" / "uproxy"
ENTRY: Final = KUSTOMIZE / "kustomization.yaml"

Object = dict[str, Any]


def components() -> dict[str, bool]:
    """Those that the kustomization names, in its order, and whether it uses them."""
    listed = ENTRY.read_text().partition("components:\n")[2].partition("configMapGenerator:")[0]
    found = re.findall(r"^(# )?- (\S+)$", listed, re.MULTILINE)
    return {path.rpartition("/")[2]: not comment for comment, path in found}


def kustomized(
    directory: Path, *names: str, settings: Mapping[str, str] | None = None
) -> list[Object]:
    """All objects, with exactly these components, and these lines in settings.env."""
    shutil.copytree(DEPLOY, directory / "deploy")
    kustomization = directory / "deploy" / "kustomize" / "kustomization.yaml"
    kustomization.write_text(choosing(kustomization.read_text(), *names))
    with (kustomization.parent / "settings.env").open("a") as file:
        file.writelines(f"{name}={value}\n" for name, value in (settings or {}).items())
    return rendered(kustomization.parent)


def choosing(text: str, *names: str) -> str:
    """The kustomization with the # in front of all components but these."""

    def line(found: re.Match[str]) -> str:
        chosen = found[2].rpartition("/")[2] in names
        return f"- {found[2]}" if chosen else f"# - {found[2]}"

    assert set(names) <= set(components())
    head, key, rest = text.partition("components:\n")
    listed, end, tail = rest.partition("configMapGenerator:")
    listed = re.sub(r"^(# )?- (\S+)$", line, listed, flags=re.MULTILINE)
    # A list without an entry would be null.
    return head + (key if names else "") + listed + end + tail


def rendered(directory: Path) -> list[Object]:
    """All objects of a kustomization."""
    return list(yaml.load_all(output("kubectl", "kustomize", str(directory)), yaml.CSafeLoader))


def charted(values: Mapping[str, Any]) -> list[Object]:
    """All objects of the chart with these values."""
    text = output("helm", *template(values))
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def template(values: Mapping[str, Any]) -> list[str]:
    """Arguments of helm."""
    given = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    return ["template", "uproxy", str(CHART), "--namespace=kube-system", *given]


def output(program: str, *arguments: str) -> str:
    """What a program prints, which has to succeed."""
    done = called(program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def called(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of this machine, or of the virtual environment: a package of PyPI contains helm."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which(program, path=path)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=False)


def only(objects: list[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind (and name)."""
    (found,) = (
        each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])
    )
    return found


def pod_of(objects: list[Object]) -> Object:
    """The Pods of the DaemonSet."""
    spec: Object = only(objects, "DaemonSet")["spec"]["template"]["spec"]
    return spec


def container_of(objects: list[Object], name: str = "uproxy") -> Object:
    (found,) = (each for each in pod_of(objects)["containers"] if each["name"] == name)
    container: Object = found
    return container


def settings_of(objects: list[Object]) -> dict[str, str]:
    """The variables that the container gets from the ConfigMap."""
    (source,) = container_of(objects)["envFrom"]
    found: dict[str, str] = only(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found
