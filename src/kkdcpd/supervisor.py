"""The life of the process: listening sockets, TLS key, signals. To serve is the worker's business."""

import asyncio
import contextlib
import dataclasses
import logging
import mmap
import os
import resource
import secrets
import signal
import socket
import ssl
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import uvloop

import kkdcpd
from kkdcpd.config import ANY_HOST, ClientCertificates, Config, ListenAddress, ListenConfig, SystemFiles
from kkdcpd.errors import ConfigProblem, ListenError
from kkdcpd.frontends.door import Listener
from kkdcpd.guard.shared_table import SECRET_SIZE, make_memory
from kkdcpd.tls import build_server_context
from kkdcpd.worker import Worker

__all__ = ["serve", "warn"]

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that wait to be accepted; the kernel lowers it to net.core.somaxconn."""

SOCKET_BUFFER_BYTES = 32768
"""What the kernel may hold of one connection, either way (it reserves twice that).

Its own measure is megabytes, which strangers could fill; messages of Kerberos are some KiB.
"""

OTHER_DESCRIPTORS = 64
"""File descriptors besides those of connections and exchanges: listeners, DNS, the event loop's own."""

_TlsContexts = Mapping[ClientCertificates, ssl.SSLContext]


def warn(problems: Iterable[ConfigProblem]) -> None:
    """Log what the operator should mend, though it keeps nothing from running."""
    for problem in problems:
        logger.warning(
            "check",
            extra={"fields": {"key": problem.key, "problem": problem.problem, "remedy": problem.remedy}},
        )


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ListenError: an address can't be listened on.
    """
    config = _fit_to_descriptors(config)
    with contextlib.ExitStack() as stack:
        contexts = _tls_contexts(config)
        listeners = [listener for listen in config.listen for listener in _open(listen, contexts, stack)]
        system = SystemFiles.read()
        # What the guard remembers is everybody's: it is made once, before there is any worker.
        guard_memory = make_memory(config.guard.table_entries, secrets.token_bytes(SECRET_SIZE))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(config, listeners, system, guard_memory))


def _tls_contexts(config: Config) -> _TlsContexts:
    """Make one context for all listeners that are alike: a client resumes its TLS session at any of them."""
    if not config.tls:
        return {}
    kinds = {listen.client_certificates for listen in config.listen if listen.tls}
    return {kind: build_server_context(config.tls, client_certificates=kind) for kind in kinds}


def _fit_to_descriptors(config: Config) -> Config:
    """Raise the limit of file descriptors as far as we may, and take no more connections than fit in it.

    Each connection has one, and while it is served another one to a KDC. Strangers can then never take those
    with which KDCs are asked.
    """
    _soft, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    connections = config.connections
    room = max((limit - OTHER_DESCRIPTORS) // 2, 1)
    if limit == resource.RLIM_INFINITY or connections.maximum <= room:
        return config
    warn(
        [
            ConfigProblem(
                key="connections.maximum",
                problem=f"is {connections.maximum}, but {limit} file descriptors are only enough for {room}",
                remedy=f"raise the limit (systemd: LimitNOFILE=), or write {room} or less",
            )
        ]
    )
    return dataclasses.replace(config, connections=dataclasses.replace(connections, maximum=room))


async def _run(
    config: Config, listeners: list[Listener], system: SystemFiles, guard_memory: mmap.mmap
) -> None:
    worker = Worker(config, listeners, system, guard_memory)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    fields = {
        "version": kkdcpd.__version__,
        "listen": ",".join(listener.url for listener in listeners),
        "realms": ",".join(realm.name for realm in config.realms),
    }
    logger.info("ready", extra={"fields": fields})
    await worker.run(stop)
    logger.info("stopped")


def _open(listen: ListenConfig, contexts: _TlsContexts, stack: contextlib.ExitStack) -> Iterator[Listener]:
    """Open the sockets of one [[listen]]: two for `*`, one for every other address."""
    address = listen.address
    context = contexts[listen.client_certificates] if listen.tls else None
    try:
        if address.unix_path:
            sock = stack.enter_context(_open_unix(address.unix_path, listen.unix_mode))
            stack.callback(_remove_own, address.unix_path, _identity(address.unix_path))
            yield _listener(listen, context, sock)
            return
        for sock in _open_inet(address):
            yield _listener(listen, context, stack.enter_context(sock))
    except OSError as error:
        raise ListenError(address, error) from error


def _listener(listen: ListenConfig, context: ssl.SSLContext | None, sock: socket.socket) -> Listener:
    scheme = "https" if listen.tls else "http"
    name = sock.getsockname()
    place = f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
    return Listener(
        socket=sock,
        url=f"{scheme}+unix:{name}" if sock.family == socket.AF_UNIX else f"{scheme}://{place}",
        tls_context=context,
        proxy_protocol=listen.proxy_protocol,
    )


def _open_inet(address: ListenAddress) -> Iterator[socket.socket]:
    """Each family has a socket of its own, so that no IPv4 client ever shows as ::ffff:192.0.2.1."""
    if address.host != ANY_HOST:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        yield _bind(family, address.host, address.port)
        return
    sock = _bind(socket.AF_INET, "0.0.0.0", address.port)  # noqa: S104 - asked for by `*`
    yield sock
    if _has_ipv6():
        yield _bind(socket.AF_INET6, "::", sock.getsockname()[1])


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all: without it, `*` means IPv4."""
    return socket.has_ipv6 and Path("/proc/net/if_inet6").exists()


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit these.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(path: Path, mode: int) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Between bind and chmod nobody but us may connect.
        umask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        path.chmod(mode)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket file that a killed process left; one that is listened on stays, and bind fails."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one at its place; an inode's number alone may be used again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _remove_own(path: Path, identity: tuple[int, int]) -> None:
    """Remove our socket file, unless a process that follows us has put its own there."""
    with contextlib.suppress(FileNotFoundError):
        if _identity(path) == identity:
            path.unlink()
