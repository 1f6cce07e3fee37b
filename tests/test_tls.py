"""Handshakes over memory BIOs, as asyncio and uvloop do them."""

import asyncio
import contextlib
import ssl
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from kkdcpd import tls
from kkdcpd.config import AdditionalCertificate, ClientCertificates, TlsConfig
from kkdcpd.tls import build_server_context, client_certificate
from kkdcpd.values import ClientCertificate
from lab.authority import Authority, CertificateFiles

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
        """The DNS name of the certificate that the client got."""
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


def _chunks(connection: ssl.SSLObject) -> Iterator[int]:
    """Read all waiting data, 256 KiB at a time. Return the number of bytes of each read."""
    with contextlib.suppress(ssl.SSLWantReadError):
        while True:
            yield len(connection.read(256 * 1024))


@pytest.mark.parametrize("raw", [b"", b"x" * 20_000])
def test_reading_to_throw_away_takes_no_large_memory(ca: trustme.CA, config: TlsConfig, raw: bytes) -> None:
    """As uvloop does before it closes a connection."""
    peers = _connected(config, _client_context(ca))
    if raw:
        peers.client.write(raw)
    tracemalloc.start()
    try:
        read = sum(_chunks(peers.server))
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == len(raw)
    assert most < 64 * 1024


def test_reading_into_a_buffer_fills_it(ca: trustme.CA, config: TlsConfig) -> None:
    peers = _connected(config, _client_context(ca))
    peers.client.write(b"hello")
    buffer = bytearray(8)
    assert peers.server.read(8, buffer) == len(b"hello")  # type: ignore[comparison-overlap]
    assert buffer.startswith(b"hello")


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


ANN = ClientCertificate(
    subject="CN=Ann\\, Example,OU=Laptops,O=Example",
    names=("dns:laptop.example.com", "email:ann@example.com", "upn:ann@EXAMPLE.COM"),
)
NONE_SHOWN = r"peer did not return a certificate"

Show = Callable[[CertificateFiles | None], ssl.SSLContext]


@pytest.fixture(scope="module")
def staff(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of client certificates."""
    return Authority(tmp_path_factory.mktemp("staff"))


@pytest.fixture(scope="module")
def laptop(staff: Authority) -> CertificateFiles:
    return staff.issue_client(ANN.subject, names=ANN.names)


@pytest.fixture(scope="module")
def asking(config: TlsConfig, staff: Authority) -> TlsConfig:
    return replace(config, client_ca=staff.certificate)


@pytest.fixture
def show(ca: trustme.CA) -> Show:
    """Make a client that shows this certificate."""

    def make(files: CertificateFiles | None) -> ssl.SSLContext:
        context = _client_context(ca)
        if files:
            context.load_cert_chain(files.certificate, files.key)
        return context

    return make


def _welcomed(
    config: TlsConfig,
    client: ssl.SSLContext,
    mode: ClientCertificates = "required",
    name: str | None = None,
) -> Peers:
    peers = Peers(build_server_context(config, mode), client, name)
    peers.shake_hands()
    return peers


EITHER_PAIR = pytest.mark.parametrize("name", [None, "kdc.example.net"])


@EITHER_PAIR
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("mode", ["optional", "required"])
def test_good_client_certificate_is_read(
    *,
    asking: TlsConfig,
    laptop: CertificateFiles,
    show: Show,
    mode: ClientCertificates,
    version: ssl.TLSVersion,
    name: str | None,
) -> None:
    client = show(laptop)
    client.maximum_version = version
    assert client_certificate(_welcomed(asking, client, mode, name).server) == ANN


def test_client_certificate_is_read_once_in_many_handshakes(
    asking: TlsConfig, laptop: CertificateFiles, show: Show
) -> None:
    """To read it takes as long as a handshake."""
    tls._read_client_certificate.cache_clear()
    for _ in range(3):
        assert client_certificate(_welcomed(asking, show(laptop), "required").server) == ANN
    known = tls._read_client_certificate.cache_info()
    assert (known.misses, known.hits, known.maxsize) == (1, 2, tls.READ_CERTIFICATES)


@EITHER_PAIR
def test_client_without_certificate_is_served_where_it_is_optional(
    asking: TlsConfig, show: Show, name: str | None
) -> None:
    assert client_certificate(_welcomed(asking, show(None), "optional", name).server) is None


@EITHER_PAIR
def test_client_without_certificate_is_refused_where_it_is_required(
    asking: TlsConfig, show: Show, name: str | None
) -> None:
    with pytest.raises(ssl.SSLError, match=NONE_SHOWN):
        _welcomed(asking, show(None), name=name)


def test_listener_that_asks_for_none_sees_none(
    asking: TlsConfig, laptop: CertificateFiles, show: Show
) -> None:
    assert client_certificate(_welcomed(asking, show(laptop), "none").server) is None


@EITHER_PAIR
@pytest.mark.parametrize("mode", ["optional", "required"])
def test_certificate_of_another_authority_is_refused_even_where_none_is_needed(
    asking: TlsConfig, show: Show, tmp_path: Path, mode: ClientCertificates, name: str | None
) -> None:
    stranger = Authority(tmp_path).issue_client(ANN.subject)
    with pytest.raises(ssl.SSLError, match=r"self-signed certificate|unable to get local issuer certificate"):
        _welcomed(asking, show(stranger), mode, name)


def test_expired_client_certificate_is_refused(asking: TlsConfig, staff: Authority, show: Show) -> None:
    expired = staff.issue_client(ANN.subject, file_name="expired", is_expired=True)
    with pytest.raises(ssl.SSLError, match="certificate has expired"):
        _welcomed(asking, show(expired))


def test_certificate_for_servers_only_is_refused(asking: TlsConfig, staff: Authority, show: Show) -> None:
    server = staff.issue_client("CN=server", file_name="for-servers", usage="server")
    with pytest.raises(ssl.SSLError, match=r"unsuitable certificate purpose|unsupported certificate purpose"):
        _welcomed(asking, show(server))


@EITHER_PAIR
def test_revoked_client_certificate_is_refused_and_any_other_gets_in(
    asking: TlsConfig, staff: Authority, laptop: CertificateFiles, show: Show, name: str | None
) -> None:
    lost = staff.issue_client("CN=lost", file_name="lost")
    config = replace(asking, client_crl=staff.revocation_list(lost.certificate))
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        _welcomed(config, show(lost), name=name)
    assert client_certificate(_welcomed(config, show(laptop), name=name).server) == ANN


def test_outdated_revocation_list_lets_no_client_in(
    asking: TlsConfig, staff: Authority, laptop: CertificateFiles, show: Show
) -> None:
    outdated = staff.revocation_list(file_name="outdated.pem", is_expired=True)
    with pytest.raises(ssl.SSLError, match="CRL has expired"):
        _welcomed(replace(asking, client_crl=outdated), show(laptop))


def test_whole_chain_is_checked_for_revocation(
    config: TlsConfig, staff: Authority, show: Show, tmp_path: Path
) -> None:
    branch = staff.child(tmp_path / "branch")
    files = branch.issue_client("CN=clerk")
    lists = tmp_path / "lists.pem"
    revoking = staff.revocation_list(branch.certificate, file_name="branches.pem")
    config = replace(config, client_ca=staff.certificate, client_crl=lists)
    lists.write_bytes(branch.revocation_list().read_bytes() + staff.revocation_list().read_bytes())
    shown = client_certificate(_welcomed(config, show(files)).server)
    assert shown
    assert shown.subject == "CN=clerk"
    lists.write_bytes(branch.revocation_list().read_bytes() + revoking.read_bytes())
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        _welcomed(config, show(files))
    lists.write_bytes(staff.revocation_list().read_bytes())
    with pytest.raises(ssl.SSLError, match="unable to get certificate CRL"):
        _welcomed(config, show(files))


@EITHER_PAIR
@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumed_session_has_the_certificate_of_its_first_handshake(
    *,
    asking: TlsConfig,
    staff: Authority,
    laptop: CertificateFiles,
    show: Show,
    mode: ClientCertificates,
    version: ssl.TLSVersion,
    name: str | None,
) -> None:
    client = show(laptop)
    client.maximum_version = version
    server = build_server_context(replace(asking, client_crl=staff.revocation_list()), mode)
    first = Peers(server, client, name)
    first.shake_hands()
    second = Peers(server, client, name, first.client.session)
    second.shake_hands()
    assert second.server.session_reused
    assert client_certificate(second.server) == ANN


@pytest.mark.parametrize("mode", ["none", "optional"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_of_another_listener_opens_none_that_needs_a_certificate(
    asking: TlsConfig, show: Show, mode: ClientCertificates, version: ssl.TLSVersion
) -> None:
    client = show(None)
    client.maximum_version = version
    session = _welcomed(asking, client, mode).client.session
    with pytest.raises(ssl.SSLError, match=NONE_SHOWN):
        Peers(build_server_context(asking, "required"), client, None, session).shake_hands()


async def test_certificate_is_read_from_the_transport_of_either_loop(
    asking: TlsConfig, laptop: CertificateFiles, show: Show
) -> None:
    shown: asyncio.Future[ClientCertificate | None] = asyncio.get_running_loop().create_future()

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.set_result(client_certificate(writer.get_extra_info("ssl_object")))
        writer.close()

    context = build_server_context(asking, "required")
    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=show(laptop))
        assert await shown == ANN
        writer.close()
