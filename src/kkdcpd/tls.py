"""The TLS that listeners speak: contexts that hand clients the certificate they ask for, and ask for theirs.

Files are checked in `config`; what stands here expects sound ones.
"""

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from kkdcpd.config import ClientCertificates, TlsConfig
from kkdcpd.errors import MalformedError
from kkdcpd.protocol.x509 import read_certificate
from kkdcpd.values import ClientCertificate

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Connection", "build_server_context", "client_certificate"]

RECORD_BYTES = 16384
"""The most that a TLS record bears (RFC 8446 5.1), and so the most that OpenSSL reads at a time."""

READ_CERTIFICATES = 1024
"""The number of client certificates whose facts are kept: to read one takes as long as a handshake."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY_MODES: dict[ClientCertificates, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}

# The connection of a callback is an SSLObject: asyncio and uvloop both run TLS over memory BIOs.
_SniCallback = Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]


class Connection(ssl.SSLObject):
    """One connection's TLS, as asyncio and uvloop drive it.

    A client's close_notify ends what the client sends, and nothing else (RFC 8446 6.1). Event loops end the
    connection with it, and drop what is written afterwards. So they do not see it: `note_close_notify` is
    called, and for the event loop there is nothing to read. Set it to None to let the event loop see the end.

    Where it makes the buffer itself, it reads by the record. Twice before it closes a connection uvloop reads
    256 KiB, to throw them away: pages that the system would map, clear and unmap each time.
    """

    note_close_notify: Callable[[], object] | None = None

    def read(self, len: int = RECORD_BYTES, buffer: "WriteableBuffer | None" = None) -> bytes:  # noqa: A002
        """Read up to so many bytes into the buffer, or return them."""
        read = super().read(min(len, RECORD_BYTES) if buffer is None else len, buffer)
        if not read and self.note_close_notify:
            self.note_close_notify()
            raise ssl.SSLWantReadError
        return read


def build_server_context(
    config: TlsConfig, client_certificates: ClientCertificates = "none"
) -> ssl.SSLContext:
    """Return the context of all listeners with these `client_certificates`.

    It has the default pair, and the additional ones by SNI (RFC 6066 3).

    Session tickets stay on, and their keys are this context's own whichever certificate is chosen: processes
    that fork after this call resume each other's sessions, and no session goes from one context to another.
    A client's certificate is in its session, which may be prolonged until a reload; OpenSSL doesn't check it
    again, so the connection must check whether the certificate has expired.
    """
    context = _pair_context(config, config.certificate, config.key, client_certificates)
    contexts: dict[str, ssl.SSLContext] = {}
    for pair in config.additional:
        additional = _pair_context(config, pair.certificate, pair.key, client_certificates)
        for name in pair.server_names:
            contexts.setdefault(name, additional)
    if contexts:
        context.sni_callback = _choose_by_name(contexts)
    return context


def client_certificate(connection: ssl.SSLObject) -> ClientCertificate | None:
    """Return the client's certificate; in a resumed session, the one of its first handshake."""
    encoded = connection.getpeercert(binary_form=True)
    return None if encoded is None else _read_client_certificate(encoded)


@lru_cache(maxsize=READ_CERTIFICATES)
def _read_client_certificate(encoded: bytes) -> ClientCertificate:
    """Read a certificate that OpenSSL has verified. One that can't be read has no names: no pattern fits."""
    with suppress(MalformedError):
        facts = read_certificate(encoded)
        if facts.end:
            return ClientCertificate(subject=facts.subject, names=facts.names, expires=facts.end.timestamp())
    return ClientCertificate(subject="", names=())


def _pair_context(
    config: TlsConfig, certificate: Path, key: Path, client_certificates: ClientCertificates
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.minimum_version]
    # Renegotiation costs the server far more than the client (CVE-2011-1473); compression leaks (CRIME).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # One takes a third of a handshake's time beyond the signature, and most clients want none: MIT's makes a
    # new context for each connection. A client that resumes gets another one each time (RFC 8446 4.6.1).
    context.num_tickets = 1
    context.sslobject_class = Connection
    # OpenSSL takes the ALPN choice from the context that SNI chose, so that each has it.
    context.set_alpn_protocols(["http/1.1"])
    # Any password will do: without one, OpenSSL would ask for it on the terminal.
    context.load_cert_chain(certificate, key, password="")
    if client_certificates != "none" and config.client_ca:
        # OpenSSL looks for authorities in the context that SNI chose, so that each has them.
        context.load_verify_locations(config.client_ca)
        if config.client_crl:
            context.load_verify_locations(config.client_crl)
            # The whole chain: authorities are revoked, too. Without a list of each, no client gets in.
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    context.verify_mode = _VERIFY_MODES[client_certificates]
    return context


def _choose_by_name(contexts: Mapping[str, ssl.SSLContext]) -> _SniCallback:
    def choose(connection: ssl.SSLObject, server_name: str | None, _context: ssl.SSLContext) -> None:
        name = (server_name or "").lower()
        _label, _dot, parent = name.partition(".")
        chosen = contexts.get(name) or contexts.get(f"*.{parent}")
        if chosen:
            connection.context = chosen

    return choose
