"""`kkdcpd agent`: serves local programs by one process, without a configuration file."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import uvloop

from kkdcpd import __version__
from kkdcpd.commands.agent_options import AgentOptions
from kkdcpd.commands.krb5_drop_in import krb5_drop_in
from kkdcpd.commands.krb5_texts import AgentService, LocalAddress, heimdal_text, java_text, mit_text
from kkdcpd.config import (
    AdminConfig,
    Config,
    EndpointSpec,
    FailuresConfig,
    GuardConfig,
    ListenAddress,
    LogConfig,
    ProcessConfig,
    RealmConfig,
    SystemFiles,
)
from kkdcpd.endpoints import EndpointText, format_host_port
from kkdcpd.errors import ListenError
from kkdcpd.frontends.local.options import LocalListener, LocalOptions
from kkdcpd.log import configure_logging
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.memory import metrics_bytes
from kkdcpd.process_messages import HealthNotice, LoadDropped
from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.supervisor.inet_sockets import open_datagram, open_inet
from kkdcpd.supervisor.limits import fit_to_descriptors
from kkdcpd.supervisor.systemd import Notifier, take_sockets
from kkdcpd.supervisor.unix_sockets import UnixFile, open_unix
from kkdcpd.values import Mode
from kkdcpd.worker import LocalSockets, Worker

__all__ = ["config_of", "krb5_texts", "run"]

logger = EventLogger(__name__)

STANDARD_ERROR = 2

TABLE_ENTRIES = 1024
"""Entries of the guard's table. The clients are the users of one host."""

DRAIN_SECONDS = 5.0
"""The time for requests in flight when the agent stops. A program that gets no answer asks again."""

SYSTEM_SOCKET_MODE = 0o666
USER_SOCKET_MODE = 0o600
"""All users of the host may use the agent of root. The agent of another user is for this user alone."""


def run(options: AgentOptions, show: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT. `show` gets the texts for krb5.conf, unless a drop-in has them.

    Raises:
        ListenError: an address cannot be opened.
        StartError: the limit of file descriptors is too low.
        DropInError: the drop-in cannot be written.
        Krb5TextError: krb5.conf cannot have a realm or a path of the options.
    """
    texts = krb5_texts(options.service)
    config, _ = fit_to_descriptors(config_of(options))
    configure_logging(config.log, STANDARD_ERROR, journal_stream=os.environ.get("JOURNAL_STREAM"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, config, lambda: show("\n".join(texts))))


def config_of(options: AgentOptions) -> Config:
    """Return the configuration of the agent: its realms, and KDC proxies in place of their KDCs.

    All users of the host share one address, so one user's failures must not block the others.
    """
    proxies = tuple(map(_endpoint, options.proxies))
    realms = [
        RealmConfig(
            name=name,
            kdc=proxies,
            kpasswd=proxies if options.kpasswd else (),
            discovery="none" if proxies else "proxies",
        )
        for name in options.realms
    ]
    return Config(
        tls=None,
        realms=tuple(realms),
        listen=(),
        log=LogConfig(),
        admin=replace(AdminConfig(), address=None),
        process=replace(ProcessConfig(), drain_timeout=DRAIN_SECONDS),
        guard=GuardConfig(table_entries=TABLE_ENTRIES, failures=FailuresConfig(mode=Mode.OFF)),
    )


def krb5_texts(service: AgentService) -> Sequence[str]:
    """Return the texts by which programs reach the agent, each after a line that names the programs."""
    texts = [f"# MIT Kerberos: a file in /etc/krb5.conf.d\n{mit_text(service)}"]
    if not service.is_on_sockets:
        texts += [
            f"# Heimdal: krb5.conf\n{heimdal_text(service)}",
            f"# Java (-Djava.security.krb5.conf=FILE) and gokrb5: krb5.conf\n{java_text(service)}",
        ]
    return texts


def _endpoint(proxy: EndpointText) -> EndpointSpec:
    return EndpointSpec(host=proxy.host, port=proxy.port, transports=proxy.transports, path=proxy.path)


@contextmanager
def _opened(options: AgentOptions) -> Iterator[Sequence[LocalListener]]:
    """Open the sockets, or take the sockets that systemd has opened. At the end, remove their files."""
    inherited = take_sockets(takes_datagrams=True)
    with ExitStack() as stack:
        for sock in inherited:
            sock.settimeout(0.0)
        if not inherited:
            for address in (*options.kdc, *options.kpasswd):
                inherited += _open(address, stack, may_be_missing=bool(inherited))
        for sock in inherited:
            stack.callback(sock.close)
        yield [LocalListener(socket=sock) for sock in inherited]


def _open(local: LocalAddress, stack: ExitStack, *, may_be_missing: bool) -> list[socket.socket]:
    """Open the sockets of an address. A host without IPv6 has no ::1."""
    if local.socket:
        address = ListenAddress(unix_path=local.socket)
    else:
        address = ListenAddress(host=local.host, port=local.port)
    try:
        if local.socket:
            local.socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            mode = USER_SOCKET_MODE if os.geteuid() else SYSTEM_SOCKET_MODE
            opened = [open_unix(local.socket, mode)]
            stack.callback(UnixFile(local.socket).remove)
            return opened
        return [*open_inet(address), open_datagram(address)]
    except OSError as error:
        if may_be_missing and error.errno == errno.EADDRNOTAVAIL and local.host == "::1":
            return []
        raise ListenError(address, error, "--listen") from error


async def _serve(options: AgentOptions, config: Config, show_texts: Callable[[], object]) -> None:
    stop = asyncio.Event()
    # Before the drop-in is written, because a signal must remove it.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    notifier = Notifier.from_environment()
    with ExitStack() as stack:
        listeners = stack.enter_context(_opened(options))
        worker = _make_worker(config, listeners)
        if options.krb5_conf:
            stack.enter_context(krb5_drop_in(options.krb5_conf, mit_text(options.service)))
        else:
            show_texts()
        logger.info(
            "agent_ready",
            version=__version__,
            realms=",".join(options.realms),
            listen=",".join(map(str, listeners)),
            # Without the paths, which may end in a token.
            proxies=",".join(format_host_port(each.host, each.port) for each in options.proxies) or "DNS",
        )
        notifier.ready(f"serving {', '.join(options.realms)}")
        await worker.run(stop)
        notifier.stopping("stopped")
    logger.info("stopped")


def _make_worker(config: Config, listeners: Sequence[LocalListener]) -> Worker:
    memory = SharedMemory.make(
        guard_entries=config.guard.table_entries, metrics_bytes=metrics_bytes(1), rows=1
    )
    # Heimdal 7.8 tries without end after the error that means "try the next KDC".
    sockets = LocalSockets(options=LocalOptions(has_next_kdc=False), listeners=listeners)
    return Worker(config, (), SystemFiles.read(), memory, 0, notify=_ignore, local=sockets)


def _ignore(_: HealthNotice | LoadDropped) -> None:
    """Drop messages for other processes: the agent has none."""
