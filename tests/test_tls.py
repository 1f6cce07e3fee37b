"""Handshakes over memory BIOs, as asyncio and uvloop do them."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from kkdcpd.config import AdditionalCertificate, TlsConfig
from kkdcpd.tls import build_server_context

NAMES = ("kdc.example.com", "kdc.example.net", "*.example.org")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def config(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    directory = tmp_path_factory.mktemp("tls")
    (certificate, key), *others = (_issue(ca, name, directory / str(i)) for i, name in enumerate(NAMES))
    additional = tuple(
        AdditionalCertificate(certificate=other, key=other_key, server_names=(name,))
        for name, (other, other_key) in zip(NAMES[1:], others, strict=True)
    )
    return TlsConfig(certificate=certificate, key=key, additional=additional)


def _issue(ca: trustme.CA, name: str, stem: Path) -> tuple[Path, Path]:
    issued = ca.issue_cert(name)
    certificate, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return certificate, key


def _client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    ca.configure_trust(context)
    return context


class Peers:
    """A client and a server with two buffers between them."""

    def __init__(
        self,
        server: ssl.SSLContext,
        client: ssl.SSLContext,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(downward, upward, server_hostname=name, session=session)
        self.server = server.wrap_bio(upward, downward, server_side=True)

    def shake_hands(self) -> None:
        pending = [self.client, self.server]
        while pending:
            for peer in list(pending):
                try:
                    peer.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                pending.remove(peer)
        # TLS 1.3 sends session tickets after the handshake.
        with pytest.raises(ssl.SSLWantReadError):
            self.client.read()

    @property
    def given_name(self) -> str:
        """The one DNS name of the certificate that the client was given."""
        certificate = self.client.getpeercert(binary_form=True)
        assert certificate
        extensions = x509.load_der_x509_certificate(certificate).extensions
        (name,) = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return str(name.value)


def _connected(config: TlsConfig, client: ssl.SSLContext, name: str | None = None) -> Peers:
    peers = Peers(build_server_context(config), client, name)
    peers.shake_hands()
    return peers


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("kdc.example.com", "kdc.example.com"),
        ("kdc.example.net", "kdc.example.net"),
        ("KDC.Example.NET", "kdc.example.net"),
        ("any.example.org", "*.example.org"),
        ("two.labels.example.org", "kdc.example.com"),
        ("example.org", "kdc.example.com"),
        ("unknown.example", "kdc.example.com"),
        (None, "kdc.example.com"),
    ],
)
def test_client_gets_the_certificate_it_asked_for(
    ca: trustme.CA, config: TlsConfig, asked: str | None, given: str
) -> None:
    assert _connected(config, _client_context(ca), asked).given_name == given


def test_exact_name_wins_over_wildcard(ca: trustme.CA, config: TlsConfig) -> None:
    net, org = config.additional
    named = AdditionalCertificate(certificate=net.certificate, key=net.key, server_names=("any.example.org",))
    both = TlsConfig(certificate=config.certificate, key=config.key, additional=(org, named))
    assert _connected(both, _client_context(ca), "any.example.org").given_name == "kdc.example.net"


@pytest.mark.parametrize("name", [None, "kdc.example.net"])
def test_http_1_1_is_agreed_on_whichever_certificate_is_chosen(
    ca: trustme.CA, config: TlsConfig, name: str | None
) -> None:
    client = _client_context(ca)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert _connected(config, client, name).client.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("name", [None, "kdc.example.net"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_resume(
    ca: trustme.CA, config: TlsConfig, name: str | None, version: ssl.TLSVersion
) -> None:
    client = _client_context(ca)
    client.maximum_version = version
    server = build_server_context(config)
    first = Peers(server, client, name)
    first.shake_hands()
    second = Peers(server, client, name, first.client.session)
    second.shake_hands()
    assert (first.client.session_reused, second.client.session_reused) == (False, True)


@pytest.mark.parametrize("name", [None, "kdc.example.net"])
def test_older_version_than_the_minimum_is_refused(
    ca: trustme.CA, config: TlsConfig, name: str | None
) -> None:
    strict = TlsConfig(
        certificate=config.certificate, key=config.key, additional=config.additional, minimum_version="1.3"
    )
    client = _client_context(ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"protocol version|unsupported protocol"):
        _connected(strict, client, name)


def test_tls_1_2_is_spoken_by_default(ca: trustme.CA, config: TlsConfig) -> None:
    client = _client_context(ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert _connected(config, client).client.version() == "TLSv1.2"


def test_neither_compression_nor_renegotiation_is_offered(config: TlsConfig) -> None:
    options = build_server_context(config).options
    assert options & ssl.OP_NO_COMPRESSION
    assert options & ssl.OP_NO_RENEGOTIATION
