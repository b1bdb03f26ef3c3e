"""A headless Chromium, driven by the DevTools protocol over a pair of pipes.

The protocol is JSON, and each message ends with a null byte. What the tests need of it is a dozen
methods, so there is no driver program between: see
https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PATIENCE: Final = 30.0
"""Seconds until an answer or a condition that does not come fails the test."""
PROGRAM: Final = shutil.which("chromium") or shutil.which("google-chrome")

_OPTIONS: Final = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # Containers have a /dev/shm of 64 MiB.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--hide-scrollbars=false",
    "--force-color-profile=srgb",
)
_TO_CHROMIUM: Final = 3
_FROM_CHROMIUM: Final = 4
"""The descriptors that --remote-debugging-pipe uses."""


class BrowserError(Exception):
    """What Chromium answered in place of a result."""


class Browser:
    """A running Chromium."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, from_: int) -> None:
        self._process = process
        self._to = to
        self._from = from_
        self._number = 0
        self._rest = b""
        self._listeners: dict[str, Callable[[dict[str, Any]], None]] = {}

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") != self._number:
                continue
            if "error" in answer:
                raise BrowserError(f"{method}: {answer['error']}")
            result: dict[str, Any] = answer["result"]
            return result

    @contextmanager
    def page(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Page]:
        """A new page of this size, which is closed at the end."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        self._listeners[session] = page.heard
        try:
            page.prepare(width, height, dark=dark)
            yield page
        finally:
            del self._listeners[session]
            self.call("Target.closeTarget", targetId=target)

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        """The next message, after events were given to their pages."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"Chromium does not answer: {what}")
            chunk = os.read(self._from, 1 << 16)
            if not chunk:
                raise AssertionError(f"Chromium has ended: {self._process.poll()}")
            self._rest += chunk
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        listener = self._listeners.get(message.get("sessionId", ""))
        if "method" in message and listener is not None:
            listener(message)
        return message


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.console: deque[str] = deque(maxlen=1000)
        """Everything that was written to the console, by the page or about it."""
        self.requests: deque[str] = deque(maxlen=10_000)
        """The URLs of everything that it has asked for."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def prepare(self, width: int, height: int, *, dark: bool) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        # A page in the background would not be refreshed.
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])

    def resize(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def heard(self, message: dict[str, Any]) -> None:
        """Chromium reports an event."""
        parameters = message["params"]
        if message["method"] == "Runtime.consoleAPICalled":
            values = [str(each.get("value", each)) for each in parameters["args"]]
            self.console.append(f"{parameters['type']}: {' '.join(values)}")
        elif message["method"] == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.console.append(f"exception: {text}")
        elif message["method"] == "Log.entryAdded":
            entry = parameters["entry"]
            self.console.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, which may be a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain: {condition}\n{self.text()}\n{self.console}")
            time.sleep(0.02)

    def text(self) -> str:
        """All text that is shown."""
        return str(self.run("document.body.innerText"))

    def press(self, key: str, text: str = "", *, shift: bool = False) -> None:
        """Press and release a key; `text` is what it types."""
        more = {"text": text} if text else {}
        code = {"Tab": 9, "Enter": 13, "Escape": 27}.get(key, 0)
        parameters = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **parameters, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **parameters)

    def type(self, text: str) -> None:
        for each in text:
            self.press(each, each)

    def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium with a profile of its own, which is gone afterwards."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(prefix="uproxy-browser-") as profile:
        commands, to = os.pipe()
        from_, answers = os.pipe()
        command = [PROGRAM, *_OPTIONS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")
        # A shell puts the pipes where Chromium looks for them; it has no other descriptors.
        shell = f'exec "$@" {_TO_CHROMIUM}<&{commands} {_FROM_CHROMIUM}>&{answers}'
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "chromium", *command],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": profile, "XDG_CACHE_HOME": str(Path(profile, "cache"))},
        )
        os.close(commands)
        os.close(answers)
        try:
            yield Browser(process, to, from_)
        finally:
            os.close(to)
            os.close(from_)
            process.kill()
            process.wait()
            # Its helpers notice the end of their parent; until then they may write.
            shutil.rmtree(profile, ignore_errors=True)
            Path(profile).mkdir(exist_ok=True)
