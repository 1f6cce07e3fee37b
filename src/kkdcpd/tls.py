"""The TLS that listeners speak: one server context, which hands a client the certificate it asked for.

Certificates are checked in `config`; what stands here expects sound ones.
"""

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from kkdcpd.config import TlsConfig

__all__ = ["build_server_context"]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# The connection of a callback is an SSLObject: asyncio and uvloop both run TLS over memory BIOs.
_SniCallback = Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]


def build_server_context(config: TlsConfig) -> ssl.SSLContext:
    """Return the context for all listeners: the default pair, and the additional ones by SNI (RFC 6066 3).

    Session tickets stay on, and their keys are this context's own whichever certificate is chosen: processes
    that fork after this call resume each other's sessions.
    """
    context = _pair_context(config, config.certificate, config.key)
    contexts: dict[str, ssl.SSLContext] = {}
    for pair in config.additional:
        additional = _pair_context(config, pair.certificate, pair.key)
        for name in pair.server_names:
            contexts.setdefault(name, additional)
    context.sni_callback = _choose_by_name(contexts)
    return context


def _pair_context(config: TlsConfig, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.minimum_version]
    # Renegotiation costs the server far more than the client (CVE-2011-1473); compression leaks (CRIME).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # OpenSSL takes the ALPN choice from the context that SNI chose, so that each has it.
    context.set_alpn_protocols(["http/1.1"])
    # Any password will do: without one, OpenSSL would ask for it on the terminal.
    context.load_cert_chain(certificate, key, password="")
    return context


def _choose_by_name(contexts: Mapping[str, ssl.SSLContext]) -> _SniCallback:
    def choose(connection: ssl.SSLObject, server_name: str | None, _context: ssl.SSLContext) -> None:
        name = (server_name or "").lower()
        _label, _dot, parent = name.partition(".")
        chosen = contexts.get(name) or contexts.get(f"*.{parent}")
        if chosen:
            connection.context = chosen

    return choose
