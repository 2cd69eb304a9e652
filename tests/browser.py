"""A real browser for tests: headless Chromium, driven over its DevTools protocol. It opens a file and tells what it saw.

Needs aiohttp, which Faust brings. Not a general driver: one page per browser, no input.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_BROWSER = (
    "These tests need a Chromium: set CHROME to its path, or install one (Debian: apt-get install chromium). "
    f"Looked for {', '.join(NAMES)}"
)
_START_S = 60


def find_browser() -> str | None:
    """Return the path of a Chromium, None if there is none."""
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page that is open, and what was heard of it so far."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.requests: list[str] = []
        """URLs that the page asked for, its own included."""
        self.messages: list[str] = []
        """What it wrote to the console, what it threw, and what the browser complained of."""
        self._socket = socket
        self._last = 0
        self._loaded = False

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": arguments})
        while True:
            message = await self._socket.receive_json(timeout=_START_S)
            if message.get("id") == self._last:
                assert "error" not in message, message
                return dict(message["result"])
            self._hear(message)

    async def open(self, url: str, width: int, height: int) -> None:
        """Go to `url` in a window of that size, without a network, and wait until it is loaded."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        await self.call("Page.navigate", url=url)
        while not self._loaded:
            self._hear(await self._socket.receive_json(timeout=_START_S))

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def screenshot(self) -> bytes:
        """Return what the window shows, as PNG."""
        found = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(found["data"])

    def _hear(self, message: dict[str, Any]) -> None:
        method, about = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(str(about))
        elif method == "Page.loadEventFired":
            self._loaded = True


@asynccontextmanager
async def browsing(executable: str) -> AsyncIterator[Page]:
    """Yield a page of a new browser with a profile of its own; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pricetide-browser-", ignore_cleanup_errors=True) as profile:
        flags = [
            "--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
            "--remote-debugging-port=0", f"--user-data-dir={profile}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium's sandbox does not run as root
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            executable, *flags, "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            port = await asyncio.wait_for(_port(Path(profile)), _START_S)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    (target, *_) = [one for one in await answer.json() if one["type"] == "page"]
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Page(socket)
        finally:
            process.terminate()
            await process.wait()


async def _port(profile: Path) -> int:
    """Wait for the browser to say where it listens."""
    file = profile / "DevToolsActivePort"
    while not (file.exists() and "\n" in file.read_text()):  # noqa: ASYNC110 - a file of another process has no event
        await asyncio.sleep(0.05)
    return int(file.read_text().split("\n")[0])
