"""`kkdcpd locate`: shows the servers of a realm, their sources, whether they answer, and refused servers."""

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
"""Words for the bits of the dclocator-hint that kkdcpd obeys."""

TITLES = {KdcService.KDC: "KDCs", KdcService.KPASSWD: "Servers for password changes"}

_ALL_BITS = 0xFFFFFFFF

_HEAD = ("", "ENDPOINT", "ADDRESS", "PRIORITY", "WEIGHT", "TTL", "ANSWERS", "FOUND IN")


class Verdict(enum.IntEnum):
    """The result for one service, the worst last."""

    GOOD = enum.auto()
    NO_ANSWER = enum.auto()
    NOT_FOUND = enum.auto()


@frozen
class Answer:
    """Whether a server answers, and the text that shows this."""

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
    """A service without servers. `is_complete` means that the realm does not need this service."""

    service: KdcService
    reason: str
    is_complete: bool


def parse_hint(text: str) -> DcLocatorFlags:
    """Read a dclocator-hint: words and numbers with commas between them.

    Raises:
        ValueError: a part of the text is neither.
    """
    flags = DcLocatorFlags(0)
    for word in text.lower().split(","):
        flags |= HINTS[word] if word in HINTS else DcLocatorFlags(int(word, 0) & _ALL_BITS)
    return flags


async def locate(
    config: Config, queries: Sequence[LocateQuery], system: SystemFiles
) -> tuple[Finding | Missing, ...]:
    """Locate the servers as the proxy does, and probe each candidate.

    If `queries` has the KDCs too, the servers for password changes may be missing: a realm may have none.
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
    datagram = _probe_datagram(query.service, route, config)
    timeout = config.upstream.connect_timeout
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(_try(candidate.endpoint, datagram, timeout), name=str(candidate.endpoint))
            for candidate in route.candidates
        ]
    return Finding(service=query.service, route=route, answers=tuple(each.result() for each in tries))


def _probe_datagram(service: KdcService, route: Route, config: Config) -> bytes:
    """Return a request that every server of the service answers."""
    if service is KdcService.KPASSWD:
        return build_kpasswd_probe(route.kerberos_realm)
    # A KDC answers a repeated request from its replay cache. The nonce makes each request a new one.
    nonce = time.time_ns() % 2**31
    return build_probe(route.kerberos_realm, config.upstream.probe_principal, nonce=nonce).payload


async def _try(endpoint: KdcEndpoint, datagram: bytes, timeout: float) -> Answer:
    started = time.perf_counter()
    try:
        socket_address(endpoint.address, endpoint.port)  # asyncio's error would not name the interface
        async with asyncio.timeout(timeout):
            if endpoint.transport is Transport.UDP:
                await _exchange(endpoint, datagram)
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


async def _exchange(endpoint: KdcEndpoint, datagram: bytes) -> None:
    """Send the datagram, and wait for any answer."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _FirstAnswer(answer), remote_addr=(endpoint.address, endpoint.port)
    )
    try:
        transport.sendto(datagram)
        await answer
    finally:
        transport.close()


class _FirstAnswer(asyncio.DatagramProtocol):
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
    """Return the text of the system, without asyncio's preface that repeats the address."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def judge(findings: Sequence[Finding | Missing]) -> Verdict:
    """Return the worst verdict."""
    return max(map(_verdict, findings))


def _verdict(finding: Finding | Missing) -> Verdict:
    if isinstance(finding, Missing):
        return Verdict.GOOD if finding.is_complete else Verdict.NOT_FOUND
    return Verdict.GOOD if finding.is_alive else Verdict.NO_ANSWER


def render(findings: Sequence[Finding | Missing]) -> str:
    """Format the findings for a terminal."""
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
