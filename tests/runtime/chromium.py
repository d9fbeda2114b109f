"""Drives headless Chromium by its DevTools protocol, through a pair of pipes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
# Software rendering, as on a machine without a display; and no process asks for privileges.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required",
)
SECONDS = 60


def find() -> str | None:
    """The program, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page.

    Attributes:
        problems: what it wrote to the console as an error, and exceptions.
        requests: addresses that it asked for.
    """

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._rest = to, back, b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and wait for its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            found = self._message()
            if found.get("id") == number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]

    def _message(self) -> Any:
        while b"\0" not in self._rest:
            part = os.read(self._back, 1 << 16)
            if not part:
                raise RuntimeError("the browser has ended")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(text)
        about = found.get("params", {})
        if found.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(about["exceptionDetails"])[:2000])
        elif found.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.problems.append(about["entry"]["text"])
        elif found.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        return found

    def run(self, script: str) -> Any:
        """The value of an expression in the page, waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:2000])
        return done["result"].get("value")

    def open(self, path: Path, width: int = 1280, height: int = 800) -> float:
        """Open a file, and return the seconds until its program is ready and has drawn."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        start = time.perf_counter()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.documentElement?.dataset.ready === 'yes'")
        self.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        return time.perf_counter() - start

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.02)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """An event of the mouse: moved, pressed or released."""
        name = f"mouse{kind.capitalize()}"
        held = {} if kind == "moved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=name, x=x, y=y, **held, **more)

    def drag(self, line: list[tuple[float, float]]) -> None:
        """Draw a line with the button held."""
        self.mouse("moved", *line[0])
        self.mouse("pressed", *line[0])
        for place in line[1:]:
            self.mouse("moved", *place, buttons=1, button="left")
        self.mouse("released", *line[-1])

    def key(self, key: str, text: str | None = None) -> None:
        """Press a key."""
        more = {} if text is None else {"text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self) -> bytes:
        """The page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def browser(program: str) -> Iterator[Page]:
    """A page of a new browser, which ends afterwards."""
    import fcntl  # Windows has none

    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The protocol has file descriptors 3 and 4.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (from_us, to_us)]
        script = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        process = subprocess.Popen(
            ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={profile}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=ends,
        )
        for end in ends:
            os.close(end)
        os.close(from_us)
        os.close(to_us)
        try:
            yield Page(to_browser, from_browser)
        finally:
            process.terminate()
            process.wait(SECONDS)
            os.close(to_browser)
            os.close(from_browser)
