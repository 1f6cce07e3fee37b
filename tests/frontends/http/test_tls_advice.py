"""The alerts of real TLS clients that refuse our certificate, and the advice for each.

MIT's kinit is in tests/interop/test_mit.py. Schannel can't be had here: its alerts are among those of
RFC 8446 6.2, each of which has advice.
"""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kkdcpd.config import TlsConfig
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.frontends.http.tls_advice import ADVICE
from kkdcpd.tls import build_server_context
from lab.authority import Authority
from lab.program import find_program
from tests.frontends.http.test_acceptor import Log, greeting_acceptor, log
from tests.frontends.inside import Talk, listening
from tests.support.http_client import HttpClient

__all__ = ["log"]  # a fixture

WRONG_NAME = "not among the certificate's names"
WRONG_ISSUER = "does not trust our certificate's issuer"
OLD_TLS = "older than tls.minimum_version"


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    """A server with a certificate for another name."""
    pair = authority.issue("other.example.com", file_name="advice")
    return build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key))


@pytest.fixture
async def listener(server_context: ssl.SSLContext) -> AsyncIterator[Listener]:
    async with listening(tls=server_context) as listener, greeting_acceptor(listener):
        yield listener


def by_python(port: int, authority: Path | None) -> None:
    context = ssl.create_default_context(cafile=str(authority) if authority else None)
    with pytest.raises(ssl.SSLError):
        HttpClient(port, tls=context)


def by_openssl(port: int, authority: Path | None, *options: str) -> None:
    trust = ("-CAfile", str(authority)) if authority else ()
    _run(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-verify_return_error"),
        *("-verify_hostname", "localhost", *trust, *options),
    )


def by_openssl_with_old_tls(port: int, authority: Path | None) -> None:
    by_openssl(port, authority, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")


def by_openssl_with_other_ciphers(port: int, authority: Path | None) -> None:
    by_openssl(port, authority, "-tls1_2", "-cipher", "CAMELLIA:@SECLEVEL=0")


def by_curl(port: int, authority: Path | None) -> None:
    trust = ("--cacert", str(authority)) if authority else ()
    _run("curl", "--silent", *trust, f"https://127.0.0.1:{port}/")


def _run(*command: str) -> None:
    subprocess.run(
        [find_program(command[0]), *command[1:]], input=b"", capture_output=True, timeout=10, check=False
    )


@pytest.mark.parametrize(
    ("ask", "is_trusting", "advice"),
    [
        (by_python, True, WRONG_NAME),
        (by_python, False, WRONG_ISSUER),
        (by_openssl, True, WRONG_NAME),
        (by_openssl, False, WRONG_ISSUER),
        (by_curl, False, WRONG_ISSUER),
        (by_openssl_with_old_tls, True, OLD_TLS),
        (by_openssl_with_other_ciphers, True, "no cipher suite in common"),
    ],
)
async def test_every_client_that_refuses_us_is_logged_with_advice(
    listener: Listener,
    authority: Authority,
    log: Log,
    ask: Callable[[int, Path | None], None],
    advice: str,
    *,
    is_trusting: bool,
) -> None:
    port = listener.socket.getsockname()[1]
    await asyncio.to_thread(ask, port, authority.certificate if is_trusting else None)
    logged = await log.next()
    assert logged["event"] == "tls_handshake_failed", logged
    assert advice in logged.get("advice", ""), logged


ALERTS = {
    "SSLV3_ALERT_HANDSHAKE_FAILURE": 40,
    "SSLV3_ALERT_BAD_CERTIFICATE": 42,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": 43,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": 44,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": 45,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": 46,
    "TLSV1_ALERT_UNKNOWN_CA": 48,
    "TLSV1_ALERT_ACCESS_DENIED": 49,
    "TLSV1_ALERT_DECRYPT_ERROR": 51,
    "TLSV1_ALERT_PROTOCOL_VERSION": 70,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": 71,
    "TLSV1_ALERT_INTERNAL_ERROR": 80,
    "TLSV1_UNRECOGNIZED_NAME": 112,
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE": 113,
}
"""Alerts by which a client may refuse a server (RFC 8446 6.2), by OpenSSL's names."""


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.fixture(scope="module")
def hello() -> bytes:
    return client_hello()


@pytest.mark.parametrize("alert", ALERTS)
async def test_every_alert_of_a_client_that_refuses_us_has_advice(
    listener: Listener,
    log: Log,
    hello: bytes,
    alert: str,
) -> None:
    """The alert comes in place of the client's second flight."""
    async with Talk.to(listener) as talk:
        await talk.send(hello)
        await talk.read(1)
        await talk.send(bytes((21, 3, 3, 0, 2, 2, ALERTS[alert])))
        logged = await log.next()
    assert (logged["event"], logged["reason"]) == ("tls_handshake_failed", alert)
    assert logged["advice"] == ADVICE[alert]
