"""`kkdcpd locate`: shows a realm's servers, where each was found, whether it answers, and what is refused."""

import asyncio
import enum
import errno
import time
from collections.abc import Sequence

from kkdcpd.config import Config, SystemFiles
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.errors import LocateError, NoKdcKnownError
from kkdcpd.frozen import frozen
from kkdcpd.locate.locator import Locator, build_locator
from kkdcpd.protocol.probe import build_kpasswd_probe, build_probe
from kkdcpd.socket_address import socket_address
from kkdcpd.values import Candidate, DcLocatorFlags, KdcService, LocateQuery, Route

__all__ = [
    "HINTS",
    "TITLES",
    "Finding",
    "Missing",
    "Verdict",
    "judge",
    "locate",
    "parse_hint",
    "render",
    "table",
]

HINTS = {
    "pdc": DcLocatorFlags.PDC_REQUIRED,
    "writable": DcLocatorFlags.WRITABLE_REQUIRED,
    "force": DcLocatorFlags.FORCE_REDISCOVERY,
    "flat": DcLocatorFlags.IS_FLAT_NAME,
    "dns": DcLocatorFlags.IS_DNS_NAME,
    "fast": DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED,
}
"""The dclocator-hint's bits that change anything, in words."""

TITLES = {KdcService.KDC: "KDCs", KdcService.KPASSWD: "Servers for password changes"}

_ALL_BITS = 0xFFFFFFFF

_HEAD = ("", "ENDPOINT", "ADDRESS", "PRIORITY", "WEIGHT", "TTL", "ANSWERS", "FOUND IN")


class Verdict(enum.IntEnum):
    """What was found of one service, the worst last."""

    GOOD = enum.auto()
    NO_ANSWER = enum.auto()
    NOT_FOUND = enum.auto()


@frozen
class Answer:
    """Whether a server answers, and how that reads."""

    is_good: bool
    text: str


@frozen
class Finding:
    """The servers of one service, and the answer of each candidate."""

    service: KdcService
    route: Route
    answers: tuple[Answer, ...]

    @property
    def is_alive(self) -> bool:
        """Whether a server answers."""
        return any(answer.is_good for answer in self.answers)


@frozen
class Missing:
    """A service without servers. `is_complete` tells that the realm may do without them."""

    service: KdcService
    reason: str
    is_complete: bool


def parse_hint(text: str) -> DcLocatorFlags:
    """Read a dclocator-hint: words and numbers with commas between them.

    Raises:
        ValueError: it is neither.
    """
    flags = DcLocatorFlags(0)
    for word in text.lower().split(","):
        flags |= HINTS[word] if word in HINTS else DcLocatorFlags(int(word, 0) & _ALL_BITS)
    return flags


async def locate(
    config: Config, queries: Sequence[LocateQuery], system: SystemFiles
) -> tuple[Finding | Missing, ...]:
    """Locate the servers as the proxy does, and ask each candidate for a sign of life.

    Password changes alone may be missing where KDCs are asked for as well: a realm may have none.
    """
    may_lack_kpasswd = len(queries) > 1
    async with build_locator(config, system) as locator:
        return tuple(
            [await _find(locator, query, config, may_lack_kpasswd=may_lack_kpasswd) for query in queries]
        )


async def _find(
    locator: Locator, query: LocateQuery, config: Config, *, may_lack_kpasswd: bool
) -> Finding | Missing:
    try:
        route = await locator.locate(query)
    except LocateError as error:
        is_kpasswd = query.service is KdcService.KPASSWD
        is_complete = may_lack_kpasswd and is_kpasswd and isinstance(error, NoKdcKnownError)
        return Missing(service=query.service, reason=str(error), is_complete=is_complete)
    question = _question(query.service, route, config)
    timeout = config.upstream.connect_timeout
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(_try(candidate.endpoint, question, timeout), name=str(candidate.endpoint))
            for candidate in route.candidates
        ]
    return Finding(service=query.service, route=route, answers=tuple(each.result() for each in tries))


def _question(service: KdcService, route: Route, config: Config) -> bytes:
    """Return the datagram to which any server of the service answers something."""
    if service is KdcService.KPASSWD:
        return build_kpasswd_probe(route.kerberos_realm)
    # A KDC answers the same request from memory: a nonce of this moment makes it another one.
    nonce = time.time_ns() % 2**31
    return build_probe(route.kerberos_realm, config.upstream.probe_principal, nonce=nonce).payload


async def _try(endpoint: KdcEndpoint, question: bytes, timeout: float) -> Answer:
    started = time.perf_counter()
    try:
        socket_address(endpoint.address, endpoint.port)  # asyncio's error would not name the interface
        async with asyncio.timeout(timeout):
            if endpoint.transport is Transport.UDP:
                await _ask(endpoint, question)
            else:
                await _connect(endpoint)
    except TimeoutError:
        return Answer(is_good=False, text=f"no: silent for {timeout:g} s")
    except OSError as error:
        return Answer(is_good=False, text=f"no: {_reason(error)}")
    return Answer(is_good=True, text=f"in {(time.perf_counter() - started) * 1000:.1f} ms")


async def _connect(endpoint: KdcEndpoint) -> None:
    _, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
    writer.transport.abort()


async def _ask(endpoint: KdcEndpoint, question: bytes) -> None:
    """Send a datagram, and wait for whatever comes back."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Correspondent(answer), remote_addr=(endpoint.address, endpoint.port)
    )
    try:
        transport.sendto(question)
        await answer
    finally:
        transport.close()


class _Correspondent(asyncio.DatagramProtocol):
    """Takes the first datagram, or the error of the system (ICMP: port unreachable), as the answer."""

    def __init__(self, answer: asyncio.Future[None]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        """End the wait."""
        del data, addr
        if not self._answer.done():
            self._answer.set_result(None)

    def error_received(self, exc: Exception) -> None:
        """End the wait with the error."""
        if not self._answer.done():
            self._answer.set_exception(exc)


_REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.ENODEV: "this host has no such network interface",
}


def _reason(error: OSError) -> str:
    """Say what the system says, without asyncio's preface that repeats the address."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def judge(findings: Sequence[Finding | Missing]) -> Verdict:
    """Return the worst verdict."""
    return max(map(_verdict, findings))


def _verdict(finding: Finding | Missing) -> Verdict:
    if isinstance(finding, Missing):
        return Verdict.GOOD if finding.is_complete else Verdict.NOT_FOUND
    return Verdict.GOOD if finding.is_alive else Verdict.NO_ANSWER


def render(findings: Sequence[Finding | Missing]) -> str:
    """Lay the findings out for a terminal."""
    return "\n\n".join("\n".join(_section(finding)) for finding in findings)


def _section(finding: Finding | Missing) -> list[str]:
    title = TITLES[finding.service]
    if isinstance(finding, Missing):
        return [f"{title}: none; {finding.reason}"]
    route = finding.route
    rows = [
        _row(number, candidate, answer)
        for number, (candidate, answer) in enumerate(zip(route.candidates, finding.answers, strict=True), 1)
    ]
    lines = [f"{title}:", *table([_HEAD, *rows])]
    if not finding.is_alive:
        lines += ["", "None of them answers."]
    if any(candidate.is_fallback for candidate in route.candidates):
        lines += ["", "* asked only when no other answers"]
    if route.refused:
        lines += ["", "Refused:"]
        lines += table([("", each.target, each.reason, each.source) for each in route.refused])
    return lines


def _row(number: int, candidate: Candidate, answer: Answer) -> tuple[str, ...]:
    return (
        str(number),
        f"{candidate.endpoint}{'*' if candidate.is_fallback else ''}",
        candidate.endpoint.address,
        str(candidate.priority),
        str(candidate.weight),
        "-" if candidate.ttl is None else f"{candidate.ttl:.0f} s",
        answer.text,
        candidate.source,
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the columns of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
