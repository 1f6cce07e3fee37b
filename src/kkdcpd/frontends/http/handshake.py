"""The result of a TLS handshake: the client's version of TLS and certificate, or a log line with advice."""

import ssl
import time

from kkdcpd.frontends.http.tls_advice import ADVICE
from kkdcpd.log.events import EventLogger
from kkdcpd.tls import Connection as TlsConnection
from kkdcpd.tls import client_certificate
from kkdcpd.values import ClientConnection

__all__ = ["has_expired", "log_failure", "with_tls"]

logger = EventLogger(__name__)


def with_tls(client: ClientConnection, tls: TlsConnection, *, has_certificate: bool) -> ClientConnection:
    """Return the client with its version of TLS and its certificate."""
    return ClientConnection(
        address=client.address,
        port=client.port,
        tls=tls.version(),
        network=client.network,
        proxy=client.proxy,
        certificate=client_certificate(tls) if has_certificate else None,
    )


def has_expired(client: ClientConnection) -> bool:
    """Whether the client's certificate has expired. OpenSSL checks that only in a full handshake."""
    return client.certificate is not None and client.certificate.expires < time.time()


def log_failure(client: ClientConnection, error: OSError) -> None:
    """Log the reason of a failed handshake. If the client left, the event is for debugging only."""
    peer = {"client": client.address, "port": client.port or None, "proxy": client.proxy}
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason is None:
        logger.debug("tls_handshake_aborted", **peer, reason=_words(error))
        return
    logger.info(
        "tls_handshake_failed",
        sum_by=("tls_handshake_failed", client.network, reason),
        **peer,
        reason=reason,
        advice=ADVICE.get(reason),
    )


def _words(error: OSError) -> str:
    return str(error) or type(error).__name__
