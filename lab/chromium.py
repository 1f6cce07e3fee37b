"""Runs Chromium without a window, and evaluates JavaScript in its pages (Chrome DevTools Protocol)."""

import asyncio
import base64
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lab.program import Program, environment

__all__ = ["Chromium", "Page"]

_READY = "DevTools listening on "

_IS_LOADED = "document.readyState === 'complete'"
_POLL_SECONDS = 0.05

_OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    # Root has no sandbox, and a container has no large /dev/shm.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-proxy-server",
)


class Chromium(Program):
    """A Chromium with a profile of its own in `home`. It trusts the server `certificate`."""

    def __init__(self, home: Path, *, certificate: Path) -> None:
        super().__init__(
            "chromium",
            "chromium",
            *_OPTIONS,
            f"--user-data-dir={home}",
            f"--ignore-certificate-errors-spki-list={_pin_of(certificate)}",
            "about:blank",
            environment=environment(home),
        )
        self._url = self.wait_for_line(lambda line: line.startswith(_READY)).removeprefix(_READY)

    @contextlib.asynccontextmanager
    async def page(self, url: str) -> AsyncIterator["Page"]:
        """Open a page in a profile of its own, and wait until it is loaded."""
        async with aiohttp.ClientSession() as session, session.ws_connect(self._url, max_msg_size=0) as tools:
            page = Page(tools)
            profile = await page.call("Target.createBrowserContext")
            target = await page.call("Target.createTarget", url=url, **profile)
            attached = await page.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            page.session = attached["sessionId"]
            while not await page.evaluate(f"return location.href === '{url}' && {_IS_LOADED}"):  # noqa: ASYNC110 - no event
                await asyncio.sleep(_POLL_SECONDS)
            yield page
            page.session = None
            # This closes its connections too.
            await page.call("Target.disposeBrowserContext", **profile)


class Page:
    """A page."""

    def __init__(self, tools: aiohttp.ClientWebSocketResponse) -> None:
        self.session: str | None = None
        self._tools = tools
        self._numbers = itertools.count(1)

    async def evaluate(self, script: str) -> Any:  # noqa: ANN401 - any value of JavaScript
        """Run the body of an asynchronous function; return its value. An exception becomes its text."""
        result = await self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        details = result.get("exceptionDetails")
        return details["exception"]["description"] if details else result["result"].get("value")

    async def call(self, method: str, **parameters: object) -> Any:  # noqa: ANN401 - JSON
        """Call a method of the protocol; return its result."""
        number = next(self._numbers)
        session = {"sessionId": self.session} if self.session else {}
        await self._tools.send_json({"id": number, "method": method, "params": parameters, **session})
        while True:
            message = await self._tools.receive_json()
            if message.get("id") == number:
                return message["result"]


def _pin_of(certificate: Path) -> str:
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()
