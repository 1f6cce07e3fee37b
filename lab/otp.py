"""A slow RADIUS server for principals that log on by one-time passwords (RFC 6560).

It listens on a stream socket of the file system, as MIT's KDC expects of a local RADIUS server. The shared
secret is then empty. Each user has one password. Its check may take seconds, as a push message to a phone
does.
"""

import asyncio
import contextlib
import hashlib
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.realm import ServerOptions

__all__ = ["OtpUser", "RadiusServer"]

# RFC 2865: a header of code, identifier, length and authenticator, then attributes of type, length and value.
_HEADER = struct.Struct("!BBH16s")
_ACCESS_REQUEST = 1
_ACCESS_ACCEPT = 2
_ACCESS_REJECT = 3
_USER_NAME = 1
_USER_PASSWORD = 2
_BLOCK_BYTES = 16

# A KDC repeats its request after half of `timeout`, unless `retries` is 0.
_KDC_PATIENCE_SECONDS = 60

_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OtpUser:
    """A user's password, and the seconds that its check takes."""

    password: str
    seconds: float = 0.0


class RadiusServer:
    """Listens while its context lasts. `asked` has the user name of each request, in order.

    It runs in its own thread, with its own event loop.
    """

    def __init__(self, directory: Path, users: Mapping[str, OtpUser]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "radius.sock"
        self.asked: list[str] = []
        self._users = users
        self._is_ready = threading.Event()
        self._runner = asyncio.Runner()
        self._thread = threading.Thread(target=self._run, name="RADIUS server")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._is_ready.wait(_START_SECONDS):
            raise RuntimeError(f"{self.path}: the RADIUS server doesn't start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner.get_loop().call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)

    @property
    def options(self) -> ServerOptions:
        """Options of a KDC that uses this server for principals with the `otp` [], the default type."""
        return ServerOptions(
            sections=(
                "[otp]",
                "DEFAULT = {",
                f"server = {self.path}",
                f"timeout = {_KDC_PATIENCE_SECONDS}",
                "retries = 0",
                "}",
            )
        )

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with await asyncio.start_unix_server(self._talk, self.path):
            self._is_ready.set()
            await self._stop.wait()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as requests:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    header = await reader.readexactly(_HEADER.size)
                    length = _HEADER.unpack(header)[2]
                    attributes = await reader.readexactly(length - _HEADER.size)
                    requests.create_task(self._answer(header, attributes, writer), name="RADIUS request")
        writer.close()

    async def _answer(self, header: bytes, attributes: bytes, writer: asyncio.StreamWriter) -> None:
        code, identifier, _, authenticator = _HEADER.unpack(header)
        assert code == _ACCESS_REQUEST
        values = _attributes(attributes)
        name = values[_USER_NAME].decode()
        self.asked.append(name)
        user = self._users.get(name.partition("@")[0])
        if user:
            await asyncio.sleep(user.seconds)
        is_right = user is not None and _reveal(values[_USER_PASSWORD], authenticator) == user.password
        writer.write(_response(_ACCESS_ACCEPT if is_right else _ACCESS_REJECT, identifier, authenticator))


def _attributes(content: bytes) -> Mapping[int, bytes]:
    found = {}
    while content:
        kind, length = content[0], content[1]
        found[kind] = content[2:length]
        content = content[length:]
    return found


def _reveal(hidden: bytes, authenticator: bytes) -> str:
    """Reveal a password that RFC 2865 5.2 hides, with the empty secret."""
    clear = b""
    previous = authenticator
    for start in range(0, len(hidden), _BLOCK_BYTES):
        block = hidden[start : start + _BLOCK_BYTES]
        clear += bytes(a ^ b for a, b in zip(block, _md5(previous), strict=True))
        previous = block
    return clear.rstrip(b"\0").decode()


def _response(code: int, identifier: int, authenticator: bytes) -> bytes:
    """Build a response without attributes (RFC 2865 3), with the empty secret."""
    digest = _md5(_HEADER.pack(code, identifier, _HEADER.size, authenticator))
    return _HEADER.pack(code, identifier, _HEADER.size, digest)


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
