"""Clients with a new TLS connection for each request, as MIT's, or with a kept connection, as Windows'.

No tool of Debian or PyPI sends from many addresses and counts the TLS handshake in the latency, both with
HTTP/1.0 and with kept connections. Each client is a process that does one thing at a time. So its
measurements contain neither its own queue nor the turn of another client.
"""

import itertools
import multiprocessing
import random
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.bodies import http_of_mit, http_of_windows

__all__ = [
    "ADDRESSES",
    "CLIENTS",
    "Clients",
    "Job",
    "address",
    "ask",
    "ask_for_status",
    "ask_over",
    "client_context",
    "connect",
    "connect_plainly",
    "hold",
    "sources",
]

CLIENTS = 4
ADDRESSES = 500
"""The number of addresses of each client; 2,000 in all."""

REQUESTS_PER_CONNECTION = 100
"""The requests over a kept connection, so that the handshake is a hundredth of the load."""

PATIENCE_SECONDS = 30.0
CHUNK_BYTES = 65536
_IP_BIND_ADDRESS_NO_PORT = 24


def address(number: int) -> str:
    """Return one of 250,000 loopback addresses that nothing else uses."""
    return f"127.{10 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job of a client: `requests` with `bodies` in turn, over new connections or one kept connection.

    With `interval`, the client pauses for a random time with this mean between requests.
    """

    port: int
    authority: Path
    bodies: tuple[bytes, ...]
    requests: int
    keeps_connection: bool
    first_address: int = 0
    interval: float = 0.0


class Clients:
    """Client processes that send at the same time.

    They start once, because a start takes longer than a measurement.
    """

    def __init__(self, count: int = CLIENTS) -> None:
        self._count = count
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        self._pool = multiprocessing.get_context("spawn").Pool(self._count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._pool
        self._pool.terminate()
        self._pool.join()

    def ask(self, job: Job, *, threads: int = 1) -> list[float]:
        """Divide the job among all clients, each with its own addresses, and run it at the same time.

        Return the latency of each request in seconds. Each client has `threads` threads.
        """
        assert self._pool
        share = replace(job, requests=job.requests // self._count // threads)
        shares = [
            [replace(share, first_address=(number * threads + each) * ADDRESSES) for each in range(threads)]
            for number in range(self._count)
        ]
        return list(itertools.chain.from_iterable(self._pool.map(_ask_in_threads, shares, chunksize=1)))


def _ask_in_threads(jobs: Sequence[Job]) -> list[float]:
    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(itertools.chain.from_iterable(pool.map(ask, jobs)))


def ask(job: Job) -> list[float]:
    """Do the job; any response but 200 is an error, which ends the job."""
    return list(_keep_asking(job) if job.keeps_connection else _ask_once_each(job))


def _ask_once_each(job: Job) -> Iterator[float]:
    requests = itertools.cycle([http_of_mit(body, job.port) for body in job.bodies])
    for source, data in itertools.islice(zip(sources(job), requests, strict=True), job.requests):
        started = _wait(job)
        # A new context has no session to resume, as in MIT's client.
        with connect(job, source, client_context(job.authority)) as sock:
            sock.sendall(data)
            response = b""
            while chunk := sock.recv(CHUNK_BYTES):
                response += chunk
        yield time.perf_counter() - started
        if response[9:12] != b"200":
            raise RuntimeError(f"status {response[9:12]!r}")


def _keep_asking(job: Job) -> Iterator[float]:
    requests = itertools.cycle([http_of_windows(body, job.port) for body in job.bodies])
    context = client_context(job.authority)
    left = job.requests
    for source in sources(job):
        started = _wait(job)
        with connect(job, source, context) as sock:
            for _ in range(min(left, REQUESTS_PER_CONNECTION)):
                is_last = ask_over(sock, next(requests))
                yield time.perf_counter() - started
                left -= 1
                if is_last:
                    break
                started = _wait(job)
        if not left:
            return


def hold(job: Job) -> list[ssl.SSLSocket]:
    """Open a connection for each request, send one request over each, and return the open connections."""
    context = client_context(job.authority)
    held = []
    for source in itertools.islice(sources(job), job.requests):
        held.append(connect(job, source, context))
        ask_over(held[-1], http_of_windows(job.bodies[0], job.port))
    return held


def _wait(job: Job) -> float:
    """Pause if the job has an interval; return the time."""
    if job.interval:
        time.sleep(random.expovariate(1 / job.interval))
    return time.perf_counter()


def ask_over(sock: ssl.SSLSocket, data: bytes) -> bool:
    """Send a request and read its response, a 200; return whether the server will close."""
    status, is_last = ask_for_status(sock, data)
    if status != 200:
        raise RuntimeError(f"status {status}")
    return is_last


def ask_for_status(sock: ssl.SSLSocket, data: bytes) -> tuple[int, bool]:
    """Send a request and read its response; return its status and whether the server will close."""
    sock.sendall(data)
    response = b""
    while b"\r\n\r\n" not in response:
        response += _read_some(sock)
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    while len(body) < length:
        body += _read_some(sock)
    return int(head[9:12]), b"connection: close" in lines


def _read_some(sock: ssl.SSLSocket) -> bytes:
    chunk = sock.recv(CHUNK_BYTES)
    if not chunk:
        raise ConnectionError("the connection ended before the response did")
    return chunk


def sources(job: Job) -> Iterator[str]:
    """Yield the client addresses of the job, repeatedly."""
    addresses = [address(job.first_address + number) for number in range(ADDRESSES)]
    return itertools.cycle(addresses)


def connect(job: Job, source: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Connect from this address with TLS."""
    return context.wrap_socket(connect_plainly(job, source), server_hostname="localhost")


def connect_plainly(job: Job, source: str) -> socket.socket:
    """Connect from this address, without TLS."""
    sock = socket.socket()
    try:
        sock.settimeout(PATIENCE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", job.port))
    except BaseException:
        sock.close()
        raise
    return sock


def client_context(authority: Path) -> ssl.SSLContext:
    """Make a context that trusts the authority and has no session yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(authority)
    return context
