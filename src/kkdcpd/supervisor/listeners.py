"""Makes listeners out of open sockets: adds TLS and the URL that the log shows."""

import ssl
from collections.abc import Mapping, Sequence
from socket import socket

from kkdcpd.config import ClientCertificates, Config, ListenConfig
from kkdcpd.endpoints import format_host_port
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.socket_address import host_with_zone
from kkdcpd.supervisor.roles import ROLES, listen_addresses
from kkdcpd.tls import build_server_context

__all__ = ["make_listeners"]


def make_listeners(config: Config, sockets: Sequence[Sequence[socket]]) -> Mapping[str, Sequence[Listener]]:
    """Return the listeners of each role by its name. `sockets` belong to `listen_addresses(config)`."""
    contexts = _tls_contexts(config)
    opened = iter(zip(listen_addresses(config), sockets, strict=True))
    return {
        role.name: [
            _listener(listen, contexts, sock)
            for listen, socks in (next(opened) for _ in role.addresses(config))
            for sock in socks
        ]
        for role in ROLES
    }


def _tls_contexts(config: Config) -> Mapping[ClientCertificates, ssl.SSLContext]:
    """Make one context for all listeners with the same settings, so that TLS sessions resume at any of them.

    They are made before the fork, so that TLS sessions also resume at any worker process.
    """
    if not config.tls:
        return {}
    kinds = {listen.client_certificates for listen in config.listen if listen.tls}
    return {kind: build_server_context(config.tls, client_certificates=kind) for kind in kinds}


def _listener(
    listen: ListenConfig, contexts: Mapping[ClientCertificates, ssl.SSLContext], sock: socket
) -> Listener:
    return Listener(
        socket=sock,
        url=_url(listen, sock),
        tls_context=contexts[listen.client_certificates] if listen.tls else None,
        proxy_protocol=listen.proxy_protocol,
    )


def _url(listen: ListenConfig, sock: socket) -> str:
    scheme = "https" if listen.tls else "http"
    name = sock.getsockname()
    if isinstance(name, str):
        return f"{scheme}+unix:{name}"
    return f"{scheme}://{format_host_port(host_with_zone(name), name[1])}"
