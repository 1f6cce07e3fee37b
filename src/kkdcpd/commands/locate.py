"""`kkdcpd locate`: whom a request for a realm would go to, where each was found, and who is refused."""

import asyncio
import time
from collections.abc import Sequence

from kkdcpd.config import Config, SystemFiles
from kkdcpd.frozen import frozen
from kkdcpd.locate.locator import build_locator
from kkdcpd.values import Candidate, DcLocatorFlags, LocateQuery, Route, Transport

__all__ = ["HINTS", "Finding", "locate", "parse_hint", "render"]

HINTS = {
    "pdc": DcLocatorFlags.PDC_REQUIRED,
    "writable": DcLocatorFlags.WRITABLE_REQUIRED,
    "force": DcLocatorFlags.FORCE_REDISCOVERY,
    "flat": DcLocatorFlags.IS_FLAT_NAME,
    "dns": DcLocatorFlags.IS_DNS_NAME,
    "fast": DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED,
}
"""The dclocator-hint's bits that change anything, in words."""

_ALL_BITS = 0xFFFFFFFF

_HEAD = ("", "ENDPOINT", "ADDRESS", "PRIORITY", "WEIGHT", "TTL", "ANSWERS", "FOUND IN")


@frozen
class Finding:
    """Where requests would go, and of each candidate whether it answers right now, in words."""

    route: Route
    answers: tuple[str, ...]


def parse_hint(text: str) -> DcLocatorFlags:
    """Read a dclocator-hint: words and numbers with commas between them.

    Raises:
        ValueError: it is neither.
    """
    flags = DcLocatorFlags(0)
    for word in text.lower().split(","):
        flags |= HINTS[word] if word in HINTS else DcLocatorFlags(int(word, 0) & _ALL_BITS)
    return flags


async def locate(config: Config, query: LocateQuery, system: SystemFiles) -> Finding:
    """Locate as the server does, and connect to each candidate.

    Raises:
        LocateError: there is no candidate.
    """
    async with build_locator(config, system) as locator:
        route = await locator.locate(query)
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(_try(candidate, config.upstream.connect_timeout), name=str(candidate.endpoint))
            for candidate in route.candidates
        ]
    return Finding(route=route, answers=tuple(each.result() for each in tries))


async def _try(candidate: Candidate, timeout: float) -> str:
    """Connect and leave. A KDC says nothing unless it is asked, so UDP can't be tried without a request."""
    endpoint = candidate.endpoint
    if endpoint.transport is Transport.UDP:
        return "not tried"
    started = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
    except TimeoutError:
        return f"no: silent for {timeout:g} s"
    except OSError as error:
        return f"no: {_reason(error)}"
    writer.transport.abort()
    return f"in {(time.perf_counter() - started) * 1000:.1f} ms"


def _reason(error: OSError) -> str:
    """Say what the system says, without asyncio's preface that repeats the address."""
    return "refused" if isinstance(error, ConnectionRefusedError) else error.strerror or str(error)


def render(finding: Finding) -> str:
    """Lay it out for a terminal."""
    route = finding.route
    rows = [
        _row(number, candidate, answer)
        for number, (candidate, answer) in enumerate(zip(route.candidates, finding.answers, strict=True), 1)
    ]
    lines = _table([_HEAD, *rows])
    if any(candidate.is_fallback for candidate in route.candidates):
        lines += ["", "* asked only when nobody else is left"]
    if route.refused:
        lines += ["", "Refused:"]
        lines += _table([("", each.target, each.reason, each.source) for each in route.refused])
    return "\n".join(lines)


def _row(number: int, candidate: Candidate, answer: str) -> tuple[str, ...]:
    return (
        str(number),
        f"{candidate.endpoint}{'*' if candidate.is_fallback else ''}",
        candidate.endpoint.address,
        str(candidate.priority),
        str(candidate.weight),
        "-" if candidate.ttl is None else f"{candidate.ttl:.0f} s",
        answer,
        candidate.source,
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
