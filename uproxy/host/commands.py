"""Runs `nft`, `ip` and the like, and says why they fail."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from uproxy.core.errors import RESOURCE_ERRORS

_TIMEOUT: Final = 10.0
"""Seconds that a command may take."""
_PATH: Final = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_PACKAGES: Final = {"nft": "nftables", "ip": "iproute2"}
"""Of Debian. Other commands are run only if they are installed."""

NOTHING: Final = "\0"
"""What `run_command` returns when a command has failed with one of the errors that are fine."""


def is_installed(command: str) -> bool:
    return shutil.which(command, path=_PATH) is not None


def run_command(*words: str, text: str = "", fine: Sequence[str] = ()) -> str:
    """The output of a command, which reads `text`; `NOTHING` if it fails with one of the errors in
    `fine`. Raises OSError."""
    command = shutil.which(words[0], path=_PATH)
    if command is None:
        package = _PACKAGES.get(words[0], words[0])
        raise OSError(errno.ENOENT, f"{words[0]} is not installed (Debian: {package})")
    try:
        done = subprocess.run(
            [command, *words[1:]],
            input=text,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            env={"LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{words[0]} did not finish within {_TIMEOUT:g} s") from None
    if not done.returncode:
        return done.stdout
    if any(each in done.stderr for each in fine):
        return NOTHING
    number = errno.EPERM if "not permitted" in done.stderr else errno.EIO
    raise OSError(number, f"{words[0]}: {_shortened(done.stderr)}")


def is_temporary(error: OSError) -> bool:
    """Whether what has failed may well succeed later."""
    return error.errno in RESOURCE_ERRORS | {errno.EAGAIN, errno.ETIMEDOUT}


def explain(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "needs CAP_NET_ADMIN"
    return error.strerror or str(error)


def _shortened(text: str, most: int = 300) -> str:
    """One line. nft repeats each line of its input that it cannot carry out."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
