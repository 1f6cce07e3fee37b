"""The section [tls]: certificates and TLS versions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from kkdcpd.config.addresses import parse_server_name
from kkdcpd.config.kinds import File, Items, Text
from kkdcpd.config.reader import Shown
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["AdditionalCertificate", "TlsConfig"]

Certificate = Annotated[Path, File("/etc/kkdcpd/tls/certificate.pem")]
Key = Annotated[Path, File("/etc/kkdcpd/tls/key.pem")]
ServerName = Annotated[
    str,
    Text(parse=parse_server_name, remedy='write a DNS name such as "kdc.example.com" or "*.example.com"'),
]


@frozen
class AdditionalCertificate:
    """A certificate for clients that use another name of the server (SNI, RFC 6066 3)."""

    certificate: Annotated[Certificate, Shown('"tls/other.pem"')]
    key: Annotated[Key, Shown('"tls/other-key.pem"')]
    """PEM files: the certificate followed by its chain, and its private key without a passphrase."""

    server_names: Annotated[
        tuple[ServerName, ...], Items(remedy='write a list of DNS names, such as ["kdc.example.com"]')
    ] = ()
    """The server names (SNI) of this certificate. Without them, the DNS names of the certificate count."""


def _server_names_differ(pairs: Mapping[str, AdditionalCertificate]) -> Iterator[ConfigProblem]:
    seen: dict[str, str] = {}
    for key, pair in pairs.items():
        for name in pair.server_names:
            first = seen.setdefault(name, key)
            if first != key:
                yield ConfigProblem(
                    key=f"{key}.server_names",
                    problem=f'"{name}" is a server name of {first} already',
                    remedy="remove it from one of them",
                )


@frozen
class TlsConfig:
    """The server's certificates, and TLS versions."""

    certificate: Annotated[Certificate, Shown('"/etc/kkdcpd/tls/certificate.pem"')] = Path(
        "/etc/kkdcpd/tls/certificate.pem"
    )
    key: Annotated[Key, Shown('"/etc/kkdcpd/tls/key.pem"')] = Path("/etc/kkdcpd/tls/key.pem")
    """PEM files: the server's certificate followed by its chain, and its private key without a passphrase.

    A relative path starts at the directory of this file. Clients check the certificate's subjectAltName.
    """

    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest TLS version that clients may use. Windows Server 2019 and older clients lack 1.3."""

    additional: Annotated[
        tuple[AdditionalCertificate, ...],
        Items(remedy="write each as a section [[tls.additional]]", rule=_server_names_differ),
    ] = ()
    """More certificates, for clients that use another name of the server (SNI). The default is none.

    Write them as a list:

        additional = [
          { certificate = "tls/other.pem", key = "tls/other-key.pem", server_names = ["kdc.example.net"] },
        ]

    Without server_names, the DNS names of the certificate count. In "*.example.com", `*` stands for one
    label. A client without SNI, or with an unknown name, gets the certificate above.
    """

    client_ca: Annotated[Path | None, File("/etc/kkdcpd/tls/client-ca.pem")] = None
    """For listeners that request client certificates: a PEM file with the certificates of the issuing
    authorities, up to the root. The default, "", is none.
    """

    client_crl: Annotated[Path | None, File("/etc/kkdcpd/tls/client-crl.pem")] = None
    """A PEM file with a revocation list of each of these authorities.

    Then kkdcpd checks every certificate of the chain, and refuses all of them when a list is too old. kkdcpd
    loads a new list without a reload. The default, "", is none.
    """
