"""A page opened in headless Chromium, through the DevTools protocol on a pair of pipes; nothing but the standard library.

What is asked and answered: https://chromedevtools.github.io/devtools-protocol. With --remote-debugging-pipe Chromium reads
messages from file descriptor 3 and writes them to 4, each ended by a zero byte.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "CICTL_REQUIRE_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
_PATIENCE = 60  # seconds for an answer
_LOUD = ("error", "warning", "assert")


@dataclass
class Page:
    """What became of a page that was opened.

    Attributes:
        requests: every address that was asked for.
        complaints: errors and warnings of the console, and exceptions.
    """

    browser: Browser
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page."""
        answer = self.browser.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def screenshot(self) -> bytes:
        """The whole page, as a PNG."""
        size = self.browser.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.browser.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


class Browser:
    """A Chromium that runs; its pages are opened one after another in one tab."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._received, self._asked = process, b"", 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """The answer to one message; events that come before it are kept."""
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._asked:
                assert "error" not in answer, answer
                return answer["result"]
            self._events.append(answer)

    def open(self, path: Path, *, width: int, height: int = 900, scheme: str = "light") -> Page:
        """Load a file in a window so wide (CSS pixels), as a reader would see it who prefers light or dark."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._events.clear()
        self.ask("Page.navigate", url=path.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        page = Page(self)
        page.value("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(0), 100)))")  # what comes late
        for event in self._events:
            _note(page, event["method"], event["params"])
        return page

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            assert more, "Chromium has ended" if ready else f"Chromium has not answered for {_PATIENCE} seconds"
            self._received += more
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)


def _note(page: Page, method: str, parameters: dict[str, Any]) -> None:
    if method == "Network.requestWillBeSent":
        page.requests.append(parameters["request"]["url"])
    elif method == "Runtime.exceptionThrown":
        page.complaints.append(json.dumps(parameters["exceptionDetails"]))
    elif method == "Runtime.consoleAPICalled" and parameters["type"] in _LOUD:
        page.complaints.append(json.dumps(parameters["args"]))
    elif method == "Log.entryAdded" and parameters["entry"]["level"] in _LOUD:
        page.complaints.append(parameters["entry"]["text"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium with a profile of its own. Without one the test is skipped, or fails where one is required (in CI)."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        missing = f"no Chromium: none of {', '.join(_NAMES)} is on the PATH, and $CHROMIUM names none"
        if os.environ.get(REQUIRED):
            pytest.fail(missing)
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Our ends are its standard input and output, which the shell hands on as 3 and 4.
        hand_on = 'exec "$@" 3<&0 4>&1 0</dev/null 1>&2'
        command = ["sh", "-c", hand_on, "sh", found, *_FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            yield Browser(process)
        finally:
            process.kill()
            process.wait()
