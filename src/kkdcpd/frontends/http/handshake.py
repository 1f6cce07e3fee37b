"""The TLS handshake: waits for the first message, logs failures with advice, and reads the client's facts."""

import time

from kkdcpd.tls import Connection as TlsConnection
from kkdcpd.tls import client_certificate
from kkdcpd.values import ClientConnection

__all__ = ["has_expired", "with_tls"]


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
