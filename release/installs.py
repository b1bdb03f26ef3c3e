"""Installs a wheel or an sdist into an empty environment, as users do, and lets it serve."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from release.outcome import Outcome, Result, judged

_PATIENCE: Final = 60.0
"""Seconds until the examples have to be served."""
_URL: Final = "http://127.0.0.1:30080/"
"""The address of a Service in examples/nodeport.yaml."""
_ANSWER: Final = "You've hit "


class InstallError(Exception):
    """What failed, in one line."""


def find_python(version: str, path: str = os.environ["PATH"]) -> Path | None:
    """An interpreter of this version ("3.12") on the PATH or where pyenv has it; None: there is
    none."""
    found = shutil.which(f"python{version}", path=path)
    candidates = [Path(found)] if found else []
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    # pyenv puts scripts on the PATH for versions that are not in use, and these fail.
    return next((each for each in candidates if _version(each) == version), None)


def _version(python: Path) -> str:
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def check_installs(
    archive: Path, versions: Iterable[str], examples: Path, version: str
) -> Iterator[Outcome]:
    """An outcome for each version of Python."""
    kind = "wheel" if archive.suffix == ".whl" else "sdist"
    for each in versions:
        name = f"{kind}, Python {each}"
        python = find_python(each)
        if python is None:
            yield Outcome(name, Result.SKIPPED, f"there is no Python {each} on this machine")
            continue
        try:
            with environment(python, f"{archive}[cluster]") as program:
                problem = serving(program, examples, version)
        except InstallError as error:
            problem = str(error)
        yield judged(name, problem, "installed into an empty environment; serves examples/")


@contextmanager
def environment(python: Path, requirement: str, *options: str) -> Iterator[Path]:
    """The program `uproxy` in an environment that has only what the requirement brings."""
    with tempfile.TemporaryDirectory(prefix="uproxy-release-") as directory:
        _run([str(python), "-m", "venv", "--without-pip", directory])
        place = Path(directory, "bin")
        pip = [sys.executable, "-m", "pip", "--python", str(place / "python"), "install"]
        _run([*pip, "--quiet", "--disable-pip-version-check", *options, requirement])
        yield place / "uproxy"


def serving(program: Path, examples: Path, version: str) -> str:
    """Why the program does not serve the examples; "": it does, and has this version."""
    said = _run([str(program), "--version"]).split()
    if version not in said:
        return f"--version says {' '.join(said)!r}, not {version}"
    with suppress(OSError), urllib.request.urlopen(_URL, timeout=5):
        return f"cannot be tried: another program answers at {_URL}"
    # Another uproxy may have the usual ports of status and health.
    offset = str(free_offset((10249, 10256)))
    words = [str(program), "demo", "--backends", str(examples), "--port-offset", offset]
    # As on a machine where nothing else is installed, and from a directory without sources.
    environ = {"PATH": os.defpath, "HOME": "/nonexistent"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(words, env=environ, cwd="/", stdout=log, stderr=log)
        try:
            problem = _answer(process)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(_PATIENCE)
        log.seek(0)
        lines = log.read().splitlines()
    if problem:
        return f"{problem}: {lines[-1] if lines else 'it printed nothing'}"
    return f"ended with exit code {code}" if code else ""


def _answer(process: subprocess.Popen[bytes]) -> str:
    """Why there is no answer of a pod; "": there is one."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(_URL, timeout=5) as answer:
            text = answer.read().decode()
            return "" if text.startswith(_ANSWER) else f"{_URL} answers {text[:80]!r}"
        time.sleep(0.1)
    return f"{_URL} does not answer"


def free_offset(bases: Sequence[int]) -> int:
    """What has to be added to these ports so that all of them are free."""
    for offset in range(2000, 30000, 97):
        with suppress(OSError):
            for base in bases:
                with socket.socket() as sock:
                    sock.bind(("127.0.0.1", base + offset))
            return offset
    raise InstallError("no ports are free")


def _run(words: Sequence[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise InstallError(f"{Path(words[0]).name} failed: {last[0]}")
    return done.stdout
