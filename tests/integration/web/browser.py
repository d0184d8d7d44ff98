"""A headless Chromium of one's own, spoken to over its DevTools protocol."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


def chromium_or_none() -> str | None:
    """Return the browser's path, or None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Tab:
    """One page. Console messages and browser complaints gather in `complaints`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0
        self.complaints: list[str] = []

    async def open(
        self, url: str, *, width: int, scheme: Literal["light", "dark"] = "light"
    ) -> None:
        """Load `url` at `width` CSS pixels and wait until it has been drawn."""
        await self._call("Log.enable")
        await self._call("Page.enable")
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self._call("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self._call("Emulation.setEmulatedMedia", features=features)
        await self._call("Page.navigate", url=url)
        await self.loaded()

    async def loaded(self) -> None:
        """Wait until a page has been loaded, by a call or by itself."""
        async with asyncio.timeout(20):
            while (await self._receive()).get("method") != "Page.loadEventFired":
                pass

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, from outside the page's own policy."""
        answer = await self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"]["value"]

    async def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        answer = await self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))  # noqa: ASYNC240 (a test's one file)

    async def _call(self, method: str, **params: Any) -> Any:
        self._calls += 1
        number = self._calls
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(20):
            while True:
                message = await self._receive()
                if message.get("id") == number:
                    return message["result"]

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json()
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(message["params"]["entry"]["text"])
        return message


@asynccontextmanager
async def open_tab(chromium: str, profile: Path) -> AsyncIterator[Tab]:
    """Start a browser with an empty `profile` and give its first tab; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        chromium,
        *_FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _devtools_port(profile)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                tabs = await response.json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        await process.wait()


async def _devtools_port(profile: Path) -> int:
    announced = profile / "DevToolsActivePort"
    async with asyncio.timeout(30):
        while not (announced.is_file() and "\n" in announced.read_text()):
            await asyncio.sleep(0.05)
    return int(announced.read_text().splitlines()[0])
