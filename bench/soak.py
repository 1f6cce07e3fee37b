"""Sends many requests with faults, and checks that kkdcpd leaks and loses nothing: `python -m bench.soak`.

Clients behave well, leave in the middle of a body or before the response, and send invalid requests or
invalid TLS. KDCs end, hang and recover; kkdcpd reloads. Log and metrics have to contain every complete
request. The memory must not grow, and the number of descriptors at the end has to be as at the start.
"""

import argparse
import contextlib
import multiprocessing
import random
import re
import signal
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from bench.bodies import KINDS, http_of_windows, request
from bench.clocks import descriptors, resident_bytes
from bench.document import replace_section
from bench.kdc_process import Kdc
from bench.load import (
    ADDRESSES,
    CLIENTS,
    Job,
    ask_for_status,
    client_context,
    connect,
    connect_plainly,
    sources,
)
from bench.servers import Place, Server, start_kkdcpd_for_long
from bench.stage import NO_LIMITS
from lab.authority import Authority

__all__ = ["run"]

REQUESTS = 1_000_000
KDCS = 3
FAULT_SECONDS = 2.0
"""The duration of a KDC's failure, and then of its health."""

RELOAD_SECONDS = 10.0
"""In the first half of the run. Ending workers finish their connections during this time."""

SAMPLE_SECONDS = 2.0
REST_SECONDS = 15.0
"""After the end of the clients: kkdcpd returns memory some seconds later."""

CLIMB_LIMIT = 0.05
"""The allowed growth of memory in the second half of the run, as a ratio. It has all it needs by then."""

MOST_REQUESTS_PER_CONNECTION = 200

PATIENCE_SECONDS = 10.0

_LINE = re.compile(rb" exchange .*\boutcome=(?P<outcome>\w+)")
_SERIES = re.compile(
    r'^kkdcpd_requests_total\{.*\boutcome="(?P<outcome>\w+)".*\} (?P<count>\S+)$', re.MULTILINE
)
_ANSWERED = "answered"
_FAILED = {"no_kdc_reached", "no_kdc_reply", "client_gone", "internal_error"}

_GOES, _LEAVES_WAITING, _LEAVES_IN_BODY, _GARBAGE, _NO_TLS = "goes", "waiting", "in body", "garbage", "no TLS"
_ODD_ENDS = {_LEAVES_WAITING: 150, _LEAVES_IN_BODY: 150, _GARBAGE: 100, _NO_TLS: 50}
"""Of 1,000 connections, this number does not end by the response to a request."""


@dataclass(slots=True)
class Tally:
    """Requests and responses of clients. kkdcpd may have seen `uncertain` requests or not."""

    statuses: Counter[int] = field(default_factory=Counter)
    uncertain: int = 0

    def add(self, other: "Tally") -> None:
        """Add the counts of another client."""
        self.statuses += other.statuses
        self.uncertain += other.uncertain

    @property
    def responses(self) -> int:
        """The number of responses."""
        return self.statuses.total()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """kkdcpd's own counts."""

    received: int
    answered: int
    refused: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """kkdcpd's resources at one time."""

    memory: int
    descriptors: int
    received: int


def run(requests: int = REQUESTS) -> bool:
    """Soak, print and document; return whether nothing leaked and nothing was lost."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        directory = Path(folder)
        authority = Authority(directory / "tls")
        kdcs = [Kdc(stack) for _ in range(KDCS)]
        place = Place(
            directory=directory / "kkdcpd",
            pair=authority.issue("localhost"),
            way_out="tcp",
            kdc_ports=tuple(kdc.port for kdc in kdcs),
        )
        server, path, metrics = start_kkdcpd_for_long(place, stack, NO_LIMITS)
        log = Log(path)
        job = Job(
            port=server.port,
            authority=authority.certificate,
            bodies=tuple(request(kind) for kind in KINDS),
            requests=requests // CLIENTS,
            keeps_connection=True,
        )
        # One-time work is done before the first reading.
        _soak(replace(job, requests=500), server, log, [], 0)
        warm_up = log.read_books()
        first = _read(server, log)
        started = time.monotonic()
        tally, readings = _soak(job, server, log, kdcs, first.received + requests // 2)
        seconds = time.monotonic() - started
        time.sleep(REST_SECONDS)
        last = _read(server, log)
        books = _less(log.read_books(), warm_up)
        counted = _read_metrics(metrics)
        logged = log.read_books()
    climb = _climb([each for each in readings if each.received >= first.received + requests // 2])
    is_balanced = books.received == books.answered + books.refused + books.failed
    unaccounted = tally.responses - books.received
    is_complete = -tally.uncertain <= unaccounted <= 0 and tally.statuses[200] <= books.answered
    holds = (
        counted in (None, logged)
        and is_balanced
        and is_complete
        and climb <= CLIMB_LIMIT
        and last.descriptors <= first.descriptors
    )
    highest = max(each.memory for each in readings)
    most = max(each.descriptors for each in readings)
    text = f"""\
{requests:,} requests in {seconds:.0f} s; clients leave and send garbage, KDCs die
and hang, kkdcpd reloads:
{"all checks passed." if holds else "A CHECK FAILED."}

- Clients got {tally.responses:,} responses ({_described(tally)}), and left
  {tally.uncertain:,} times before one.
- {books.received:,} received = {books.answered:,} answered + {books.refused:,} refused
  + {books.failed:,} failed, by the log{_described_with(counted, logged)}.
- Memory: {_mib(first.memory)} before, {_mib(highest)} at most, {_mib(last.memory)} after; in the second half
  of the run it climbed by {climb:.1%} (limit {CLIMB_LIMIT:.0%}).
- File descriptors: {first.descriptors} before, {most} at most, {last.descriptors} after."""
    print(text)
    replace_section("soak", text)
    return holds


def _described_with(counted: Books | None, logged: Books) -> str:
    """Describe the metrics."""
    if counted is None:
        return ""
    return " and by the metrics" if counted == logged else f"; BUT ALL IN ALL {counted} IS NOT {logged}"


def _described(tally: Tally) -> str:
    return ", ".join(f"{count:,} of {status}" for status, count in sorted(tally.statuses.items()))


def _mib(size: int) -> str:
    return f"{size / 1048576:.1f} MiB"


def _read(server: Server, log: "Log") -> Reading:
    return Reading(
        memory=resident_bytes(server.pid),
        descriptors=descriptors(server.pid),
        received=log.read_books().received,
    )


def _climb(readings: list[Reading]) -> float:
    """Return the growth of the memory as a ratio, along the line that fits best."""
    values = [reading.memory for reading in readings]
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    slope = sum((number - middle) * value for number, value in enumerate(values))
    slope /= sum((number - middle) ** 2 for number in range(len(values))) or 1
    return slope * len(values) / mean


# --- kkdcpd's log and metrics


class Log:
    """Reads kkdcpd's log, which has a line for each exchange, from the last read position on."""

    def __init__(self, path: Path) -> None:
        self._lines = path.open("rb")
        self._begun = b""
        self._outcomes: Counter[str] = Counter()

    def read_books(self) -> Books:
        """Count the lines so far. The last line may be incomplete."""
        for data in self._lines:
            line = self._begun + data
            self._begun = b"" if line.endswith(b"\n") else line
            if not self._begun and (found := _LINE.search(line)):
                self._outcomes[found["outcome"].decode()] += 1
        return _books_of(self._outcomes)


def _read_metrics(metrics: str) -> Books | None:
    """Get kkdcpd's counts of requests by outcome; None if kkdcpd does not respond."""
    outcomes: Counter[str] = Counter()
    try:
        with urllib.request.urlopen(metrics, timeout=PATIENCE_SECONDS) as response:
            text = response.read().decode()
    except urllib.error.URLError:
        return None
    for found in _SERIES.finditer(text):
        outcomes[found["outcome"]] += int(float(found["count"]))
    return _books_of(outcomes)


def _books_of(outcomes: Counter[str]) -> Books:
    answered = outcomes[_ANSWERED]
    failed = sum(outcomes[each] for each in _FAILED)
    return Books(
        received=outcomes.total(),
        answered=answered,
        refused=outcomes.total() - answered - failed,
        failed=failed,
    )


def _less(books: Books, earlier: Books) -> Books:
    return Books(
        received=books.received - earlier.received,
        answered=books.answered - earlier.answered,
        refused=books.refused - earlier.refused,
        failed=books.failed - earlier.failed,
    )


# --- faults


def _soak(
    job: Job, server: Server, log: Log, kdcs: list[Kdc], reload_until: int
) -> tuple[Tally, list[Reading]]:
    """Run the clients' jobs while KDCs fail and kkdcpd reloads at intervals; read its resources.

    kkdcpd reloads until it has received a number of requests: new workers have no leaks yet.
    """
    context = multiprocessing.get_context("spawn")
    clients = []
    for number in range(CLIENTS):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_behave, args=(replace(job, first_address=number * ADDRESSES), theirs)
        )
        process.start()
        clients.append((process, ours))
    faults = _faults(kdcs)
    readings: list[Reading] = []
    next_fault = next_sample = time.monotonic()
    next_reload = time.monotonic() + RELOAD_SECONDS
    while any(process.is_alive() and not pipe.poll() for process, pipe in clients):
        now = time.monotonic()
        if now >= next_fault:
            next(faults)
            next_fault = now + FAULT_SECONDS
        if now >= next_sample:
            readings.append(_read(server, log))
            next_sample = now + SAMPLE_SECONDS
        if now >= next_reload and readings[-1].received < reload_until:
            server.send_signal(signal.SIGHUP)
            next_reload = now + RELOAD_SECONDS
        time.sleep(0.1)
    faults.close()
    tally = Tally()
    for process, pipe in clients:
        tally.add(pipe.recv())
        process.join()
    return tally, readings


def _faults(kdcs: list[Kdc]) -> Generator[None]:
    """Let one KDC after the other end or hang, alternately, and recover."""
    while not kdcs:
        yield
    try:
        while True:
            for kdc in kdcs:
                for fail, mend in ((kdc.die, kdc.revive), (kdc.hang, kdc.go_on)):
                    fail()
                    yield
                    mend()
                    yield
    finally:
        for kdc in kdcs:
            kdc.go_on()


# --- clients


class _Client:
    """A client that makes `job.requests` requests, some of them invalid."""

    def __init__(self, job: Job) -> None:
        self.tally = Tally()
        self._job = job
        self._requests = [http_of_windows(body, job.port) for body in job.bodies]
        self._context = client_context(job.authority)
        self._random = random.Random(job.first_address)
        self._left = job.requests

    def behave(self) -> None:
        """Do the job."""
        names, weights = [_GOES, *_ODD_ENDS], [1000 - sum(_ODD_ENDS.values()), *_ODD_ENDS.values()]
        for source in sources(self._job):
            (end,) = self._random.choices(names, weights)
            if end == _NO_TLS:
                _speak_no_tls(self._job, source)
            else:
                self._connect(source, end)
            if not self._left:
                return

    def _connect(self, source: str, end: str) -> None:
        """Send some requests over one connection, and end the connection in one of the ways."""
        count = min(self._left, self._random.randint(1, MOST_REQUESTS_PER_CONNECTION))
        with connect(self._job, source, self._context) as sock:
            for _ in range(count - 1):
                if self._ask(sock, self._random.choice(self._requests)):
                    return
            data = self._random.choice(self._requests)
            if end == _LEAVES_WAITING:
                self._leave(sock, data)
            elif end == _LEAVES_IN_BODY:
                self._leave(sock, data[:-20])
            else:
                self._ask(sock, data[:-20] + bytes(20) if end == _GARBAGE else data)

    def _ask(self, sock: ssl.SSLSocket, data: bytes) -> bool:
        self._left -= 1
        status, is_last = ask_for_status(sock, data)
        self.tally.statuses[status] += 1
        return is_last

    def _leave(self, sock: ssl.SSLSocket, data: bytes) -> None:
        self._left -= 1
        self.tally.uncertain += 1
        sock.sendall(data)


def _behave(job: Job, pipe: Connection) -> None:
    client = _Client(job)
    client.behave()
    pipe.send(client.tally)


def _speak_no_tls(job: Job, source: str) -> None:
    with contextlib.suppress(OSError), connect_plainly(job, source) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        sock.recv(100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.soak")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    sys.exit(0 if run(parser.parse_args().requests) else 1)
