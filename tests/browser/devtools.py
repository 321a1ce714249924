"""A real browser, driven over the DevTools protocol through two pipes: no port, no driver, no library.

The protocol: one JSON object each way, ended by a zero byte, on the descriptors 3 and 4 of the browser
(https://chromedevtools.github.io/devtools-protocol/).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",  # which root, as whom CI runs, cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
# Makes the pipes, whatever their numbers, the descriptors that the browser wants.
_EXEC = """
import os, sys
reads, writes = os.dup2(int(sys.argv[1]), 103), os.dup2(int(sys.argv[2]), 104)
os.dup2(reads, 3), os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """A tab. said: what it wrote to its console, and what its policy refused; asked: addresses it loaded."""

    def __init__(self, to: int, answers: int) -> None:
        self._to = to
        self._answers = answers
        self._rest = b""
        self._number = 0
        self._session = ""
        self.said: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            got = self._next()
            if got.get("id") == self._number:
                assert "error" not in got, got
                answer: dict[str, Any] = got["result"]
                return answer
            self._take(got)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        got: dict[str, Any] = json.loads(line)
        return got

    def _take(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])
        elif event["method"] == "Log.entryAdded":
            self.said.append(parameters["entry"]["text"])
        elif event["method"] == "Runtime.consoleAPICalled":
            self.said.append(str([argument.get("value") for argument in parameters["args"]]))
        elif event["method"] == "Runtime.exceptionThrown":
            self.said.append(str(parameters["exceptionDetails"]))

    def evaluate(self, script: str) -> Any:
        """What a script's value is, of a promise the value it comes to."""
        got = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true, as the page sees it; the test's own limit ends a wait in vain."""
        self.evaluate(
            "new Promise((done) => { const look = () => "
            f"({condition}) ? done(true) : setTimeout(look, 20); look(); }})"
        )

    def open(self, path: Path, fragment: str = "") -> None:
        """Show a report, in a fresh document, and wait until it is there."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"{path.absolute().as_uri()}#{fragment}")
        self.wait_for("document.documentElement && document.documentElement.dataset.ready === 'yes'")

    def look_like(self, *, width: int, height: int, dark: bool = False) -> None:
        """Take a screen's size, a phone's where it is narrow, and the user's taste."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 500 else 1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Keep a picture of what is shown, or of all of the page."""
        got = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(got["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in `folder`, ended with the block."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    assert program, "there is no Chromium: `.ci/install-packages develop` installs it"
    reads, to = os.pipe()
    answers, writes = os.pipe()
    argv = [program, *OPTIONS, f"--user-data-dir={folder / 'profile'}"]
    with (folder / "browser.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", _EXEC, str(reads), str(writes), *argv],
            pass_fds=(reads, writes),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(reads)
    os.close(writes)
    try:
        yield Page(to, answers)
    finally:
        os.close(to)  # at which it ends
        os.close(answers)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
