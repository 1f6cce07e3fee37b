"""Certificates made by the openssl command: kkdcpd serves what `openssl s_server` serves."""

import contextlib
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kkdcpd.config.certificates import inspect_pair, pem_blocks
from kkdcpd.errors import ConfigError
from lab.daemon import Daemon
from lab.program import Program, find_program, run
from tests.supervisor.house import event_of

HOST = "127.0.0.1"
SECONDS = 20.0
CONF = """\
[ca]
default_ca = one
[one]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
unique_subject = no
x509_extensions = extensions
[any]
commonName = supplied
[extensions]
subjectAltName = DNS:kdc.example.com
[req]
distinguished_name = none
[none]
"""
_PORT = re.compile(r"ACCEPT .*:(\d+)")
_EC = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
_SAN = ("-addext", "subjectAltName=DNS:kdc.example.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate with its key, in its own folder."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"


def openssl(*words: str | Path) -> None:
    run("openssl", *map(str, words), environment=os.environ).expect_ok()


def self_signed(*options: str, key: tuple[str, ...] = _EC) -> "Make":
    def make(pair: Pair) -> None:
        subject = () if "-subj" in options else ("-subj", "/CN=kdc.example.com")
        names = () if "-addext" in options else _SAN
        openssl(
            *("req", "-x509", "-nodes", "-newkey", *key),
            *("-keyout", pair.key, "-out", pair.certificate),
            *("-config", pair.folder / "openssl.cnf", *subject, *names, *options),
        )

    return make


def san(names: str) -> "Make":
    return self_signed("-addext", f"subjectAltName={names}")


def dated(start: str, end: str) -> "Make":
    """Dates in the form of ASN.1: YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ."""

    def make(pair: Pair) -> None:
        request, conf = pair.folder / "request.pem", pair.folder / "openssl.cnf"
        (pair.folder / "index.txt").touch()
        (pair.folder / "serial").write_text("01\n")
        subject = ("-subj", "/CN=kdc.example.com", "-config", conf)
        openssl("req", "-new", "-nodes", "-newkey", *_EC, "-keyout", pair.key, "-out", request, *subject)
        openssl(
            *("ca", "-batch", "-selfsign", "-config", conf, "-keyfile", pair.key, "-in", request),
            *("-startdate", start, "-enddate", end, "-out", pair.certificate),
        )

    return make


def altered(old: bytes, new: bytes, make: "Make | None" = None) -> "Make":
    """Change bytes within a certificate; a server never checks its own signature."""

    def alter(pair: Pair) -> None:
        (make or dated("20200101000000Z", "20300101000000Z"))(pair)
        der = pem_blocks(pair.certificate.read_text(), ["CERTIFICATE"])[0]
        assert old in der
        pair.certificate.write_text(ssl.DER_cert_to_PEM_cert(der.replace(old, new, 1)))

    return alter


def rewritten(change: Callable[[str], str], make: "Make | None" = None) -> "Make":
    def rewrite(pair: Pair) -> None:
        (make or self_signed())(pair)
        pair.certificate.write_bytes(change(pair.certificate.read_text()).encode())

    return rewrite


def in_chain(*order: int) -> "Make":
    """Return a certificate under two authorities: 0 is the server's, 1 its issuer, 2 the root."""

    def make(pair: Pair) -> None:
        made = pair.folder.parent / "chain"
        if not made.exists():
            made.mkdir()
            _make_chain(made, pair.folder / "openssl.cnf")
        pair.key.write_bytes((made / "0.key").read_bytes())
        pair.certificate.write_text("".join((made / f"{number}.pem").read_text() for number in order))

    return make


def _make_chain(folder: Path, conf: Path) -> None:
    issuer: tuple[str | Path, ...] = ()
    for number, name in ((2, "Root"), (1, "Branch"), (0, "kdc.example.com")):
        key, request, out = (folder / f"{number}.{end}" for end in ("key", "csr", "pem"))
        basic = ("-addext", f"basicConstraints=CA:{'FALSE' if number == 0 else 'TRUE'}")
        openssl(
            *("req", "-new", "-nodes", "-newkey", *_EC, "-keyout", key, "-out", request),
            *("-subj", f"/CN={name}", "-config", conf, *basic, *_SAN),
        )
        signer = issuer or ("-signkey", key)
        extensions = ("-copy_extensions", "copyall", "-days", "30")
        openssl("x509", "-req", "-in", request, "-out", out, *extensions, *signer)
        issuer = ("-CA", out, "-CAkey", key, "-CAcreateserial")


def with_key_form(*words: str, make: "Make | None" = None) -> "Make":
    def convert(pair: Pair) -> None:
        (make or self_signed())(pair)
        openssl(*words, "-in", pair.key, "-out", pair.folder / "other.pem")
        (pair.folder / "other.pem").replace(pair.key)

    return convert


def in_one_file(pair: Pair) -> None:
    self_signed()(pair)
    both = pair.key.read_text() + pair.certificate.read_text()
    pair.certificate.write_text(both)
    pair.key.write_text(both)


def trusted(pair: Pair) -> None:
    self_signed()(pair)
    other = pair.folder / "other.pem"
    openssl("x509", "-in", pair.certificate, "-trustout", "-addtrust", "serverAuth", "-out", other)
    other.replace(pair.certificate)


def version_1(pair: Pair) -> None:
    request = pair.folder / "request.pem"
    openssl(
        *("req", "-new", "-nodes", "-newkey", *_EC, "-keyout", pair.key, "-out", request),
        *("-subj", "/CN=kdc.example.com", "-config", pair.folder / "openssl.cnf"),
    )
    openssl("x509", "-req", "-in", request, "-signkey", pair.key, "-out", pair.certificate)


Make = Callable[[Pair], None]
_RSA_2048 = ("rsa:2048",)
NOT_AFTER = b"\x17\x0d300101000000Z"

KINDS: Mapping[str, Make] = {
    "ecdsa-p256": self_signed(),
    "ecdsa-p384": self_signed(key=("ec", "-pkeyopt", "ec_paramgen_curve:P-384")),
    "ecdsa-p521": self_signed(key=("ec", "-pkeyopt", "ec_paramgen_curve:P-521")),
    "rsa-2048": self_signed(key=_RSA_2048),
    "rsa-pss": self_signed(key=("rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048")),
    "ed25519": self_signed(key=("ed25519",)),
    "ed448": self_signed(key=("ed448",)),
    "rsa-1024": self_signed(key=("rsa:1024",)),
    "sha1": self_signed("-sha1", key=_RSA_2048),
    "serial-huge": self_signed("-set_serial", f"0x7f{'ab' * 100}"),
    "serial-negative": self_signed("-set_serial", "-5"),
    "serial-zero": self_signed("-set_serial", "0"),
    "subject-utf8": self_signed("-utf8", "-subj", "/CN=kdc.example.com/O=Käserei Žižkov"),
    "subject-latin-1-as-t61": self_signed("-subj", "/CN=kdc.example.com/O=K\xe4se"),
    "subject-empty": self_signed("-subj", "/"),
    "subject-many-values": self_signed("-multivalue-rdn", "-subj", "/CN=kdc+OU=a/DC=example/DC=com/O=a, b"),
    "subject-unknown-attribute": self_signed("-subj", "/CN=kdc/1.2.3.4.5.6=x"),
    "san-beyond-ascii": san("DNS:kerberosŠ.example.com,DNS:localhost"),
    "san-only-beyond-ascii": san("DNS:kerberosŠ.example.com"),
    "san-wildcard": san("DNS:*.example.com"),
    "san-ip": san("IP:192.0.2.1,IP:2001:db8::1"),
    "san-of-all-kinds": san("DNS:a.example.com,email:a@example.com,URI:https://a.example.com/,RID:1.2.3.4"),
    "san-upn": san("otherName:1.3.6.1.4.1.311.20.2.3;UTF8:ann@EXAMPLE.COM"),
    "san-empty-name": san("DER:30028200"),
    "san-is-no-sequence": san("DER:0500"),
    "san-is-cut-short": san("DER:30058203"),
    "san-is-empty": san("DER:3000"),
    "no-san": self_signed("-addext", "basicConstraints=CA:FALSE"),
    "version-1": version_1,
    "date-2050": self_signed("-days", "12000"),
    "date-9999": dated("20200101000000Z", "99991231235959Z"),
    "date-1950": dated("19500101000000Z", "20400101000000Z"),
    "date-expired": dated("20200101000000Z", "20210101000000Z"),
    "date-future": dated("20450101000000Z", "20550101000000Z"),
    "date-backwards": dated("20300101000000Z", "20200101000000Z"),
    "date-with-offset": altered(NOT_AFTER, b"\x17\x0d3001010000+01"),
    "date-of-month-13": altered(NOT_AFTER, b"\x17\x0d301301000000Z"),
    "date-of-letters": altered(NOT_AFTER, b"\x17\x0dABCDEFGHIJKLM"),
    "date-without-seconds": altered(NOT_AFTER, b"\x18\x0d203001010000Z"),
    "pem-with-text": rewritten(lambda pem: f"Certificate:\n  Issuer: Käse\n{pem}\ntail"),
    "pem-crlf": rewritten(lambda pem: pem.replace("\n", "\r\n")),
    "pem-old-label": rewritten(lambda pem: pem.replace(" CERTIFICATE", " X509 CERTIFICATE")),
    "pem-trusted-label": trusted,
    "pem-without-last-newline": rewritten(str.rstrip),
    "pem-in-one-file": in_one_file,
    "chain": in_chain(0, 1),
    "chain-with-root": in_chain(0, 1, 2),
    "chain-without-intermediate": in_chain(0),
    "chain-in-wrong-order": in_chain(0, 2, 1),
    "chain-issuer-first": in_chain(1, 0),
    "key-pkcs1": with_key_form("rsa", "-traditional", make=self_signed(key=_RSA_2048)),
    "key-sec1-with-parameters": with_key_form("ec"),
    "key-with-passphrase": with_key_form("pkcs8", "-topk8", "-passout", "pass:secret"),
    "key-with-passphrase-pkcs1": with_key_form(
        "rsa", "-traditional", "-aes128", "-passout", "pass:secret", make=self_signed(key=_RSA_2048)
    ),
}  # fmt: skip

NOT_SERVED = {"rsa-1024", "chain-issuer-first", "key-with-passphrase", "key-with-passphrase-pkcs1"}
"""Certificates that `openssl s_server` refuses without a passphrase."""

NOT_LOADED = {"san-is-no-sequence", "san-is-cut-short"}
"""Certificates that s_server accepts, but not the only function by which Python loads a chain
(SSL_CTX_use_certificate_chain_file)."""

WARNINGS = {
    "san-beyond-ascii": "a DNS name beyond ASCII",
    "san-only-beyond-ascii": "a DNS name beyond ASCII",
    "no-san": "has no subjectAltName",
    "version-1": "has no subjectAltName",
    "san-is-empty": "has no subjectAltName",
    "date-with-offset": "cannot be read",
    "date-of-month-13": "cannot be read",
    "date-of-letters": "cannot be read",
    "date-without-seconds": "cannot be read",
    "chain-in-wrong-order": "certificate 1 in ",
}


OUTSIDE_DATES = {
    "date-expired": "expired on 2021-01-01 00:00 UTC",
    "date-future": "is not valid before 2045-01-01 00:00 UTC",
    "date-backwards": "is not valid before 2030-01-01 00:00 UTC",
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Pair]:
    find_program("openssl")
    made = {}
    for name, make in KINDS.items():
        pair = Pair(folder=tmp_path_factory.mktemp(name))
        (pair.folder / "openssl.cnf").write_text(CONF.format(folder=pair.folder))
        make(pair)
        pair.key.chmod(0o600)
        made[name] = pair
    return made


def refusal(pair: Pair) -> str:
    """Return the reason of kkdcpd's refusal, if there is one."""
    try:
        inspect_pair(pair.certificate, pair.key, section="tls", now=datetime.now(UTC))
    except ConfigError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def daemon(pairs: Mapping[str, Pair], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A kkdcpd with all certificates, each under the name of its kind."""
    usable = {name: pair for name, pair in pairs.items() if not refusal(pair)}
    default = pairs["ecdsa-p256"]
    additional = "".join(
        f'[[tls.additional]]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
        f'server_names = ["{name}.test"]\n'
        for name, pair in usable.items()
    )
    text = f"""
        [[listen]]
        address = "{HOST}:0"
        [process]
        workers = 1
        control = ""
        [realms."EXAMPLE.COM"]
        kdc = ["192.0.2.1"]
        [tls]
        certificate = "{default.certificate}"
        key = "{default.key}"
        {additional}
    """
    with Daemon(tmp_path_factory.mktemp("daemon"), text) as running:
        yield running


def served(port: int, name: str) -> bytes:
    """Return the certificate for a client that requests this name and trusts every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((HOST, port), timeout=SECONDS) as sock,
        context.wrap_socket(sock, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


@contextlib.contextmanager
def s_server(pair: Pair) -> Iterator[int]:
    words = ("-accept", f"{HOST}:0", "-cert", str(pair.certificate), "-key", str(pair.key), "-pass", "pass:")
    chain = ("-cert_chain", str(pair.certificate), "-www", "-naccept", "1")
    with Program("s_server", "openssl", "s_server", *words, *chain, environment=os.environ) as running:
        line = running.wait_for_line(lambda line: bool(_PORT.search(line)), timeout=SECONDS)
        found = _PORT.search(line)
        assert found
        yield int(found[1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_openssl_serves_is_served(pairs: Mapping[str, Pair], daemon: Daemon, kind: str) -> None:
    pair = pairs[kind]
    if kind in NOT_SERVED:
        with pytest.raises(Exception), s_server(pair):  # noqa: B017, PT011 - the end of the message identifies the error
            pass
        assert refusal(pair)
        return
    with s_server(pair) as port:
        by_openssl = served(port, f"{kind}.test")
    if kind in NOT_LOADED:
        assert "it has an extension that cannot be read" in refusal(pair)
        return
    assert refusal(pair) == ""
    assert served(daemon.ports[0], f"{kind}.test") == by_openssl


def test_what_its_clients_will_mind_is_a_warning(pairs: Mapping[str, Pair], daemon: Daemon) -> None:
    warnings = [line for line in daemon.lines if event_of(line) == "config_warning" and "tls." in line]
    for kind, pair in pairs.items():
        own = [line for line in warnings if f"{pair.certificate}" in line and "key=tls.additional" in line]
        assert [WARNINGS.get(kind, "") in line for line in own] == [True] * (kind in WARNINGS), (kind, own)


def test_certificate_outside_its_dates_is_not_an_invalid_certificate(daemon: Daemon) -> None:
    outside = [line for line in daemon.lines if event_of(line) == "certificate_outside_dates"]
    assert len(outside) == len(OUTSIDE_DATES)
    for kind, words in OUTSIDE_DATES.items():
        assert any(f"/{kind}0/" in line and words in line for line in outside), kind
