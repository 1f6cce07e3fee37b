"""The section [upstream.https]: connections to KDC proxies."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from kkdcpd.config.kinds import File, Items, Range, Text, seconds
from kkdcpd.config.problems import in_order, items_differ
from kkdcpd.config.texts import PinnedKey, parse_pinned_key
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["HttpsConfig"]


def _pin_text(pin: PinnedKey) -> str:
    return f"{pin.host} sha256//{base64.b64encode(pin.digest).decode()}"


Pin = Annotated[
    PinnedKey,
    Text(
        parse=parse_pinned_key,
        remedy='write a host and the digest of its key, such as "proxy.example.com sha256//BASE64"',
        form=_pin_text,
    ),
]


@frozen
class HttpsConfig:
    """Connections to KDC proxies: endpoints that begin with https:// or wss://.

    kkdcpd checks the proxy's certificate and name. It reaches a proxy through the web proxy that the
    environment names in https_proxy, unless no_proxy names the host.
    """

    ca_file: Annotated[Path | None, File("/etc/kkdcpd/proxy-ca.pem")] = None
    """A PEM file of the authorities that kkdcpd trusts for KDC proxies. The default, "", is the authorities
    of the system.
    """

    certificate: Annotated[Path | None, File("/etc/kkdcpd/tls/client.pem")] = None
    key: Annotated[Path | None, File("/etc/kkdcpd/tls/client-key.pem")] = None
    """PEM files: the certificate that kkdcpd shows to a proxy that requests one, followed by its chain, and
    its private key without a passphrase. The default, "", is none.
    """

    pins: Annotated[
        tuple[Pin, ...],
        Items(remedy='write a list of keys, such as ["proxy.example.com sha256//BASE64"]', rule=items_differ),
    ] = ()
    """The public keys that a proxy must have, each as in "proxy.example.com sha256//BASE64". By default, a
    valid certificate is enough. List two keys of a host while you change one.

    The digest has the form of curl's --pinnedpubkey: `openssl x509 -in FILE -pubkey -noout | openssl pkey
    -pubin -outform der | openssl dgst -sha256 -binary | base64`.
    """

    idle_timeout: Annotated[float, seconds(300, minimum=1)] = 15.0
    """The time that an idle connection is kept for the next request.

    A log-on sends several requests within seconds. Many web servers close idle connections after 15 seconds.
    """

    idle_connections: Annotated[int, Range(0, 64, "connections")] = 8
    """The number of idle connections that each worker process keeps to one proxy. An https:// connection
    carries one request at a time.
    """

    fresh_seconds: Annotated[float, seconds(60, minimum=0)] = 1.0
    """The longest time that a connection may have been idle before it gets a message that is sent once, such
    as a proof of a password.

    A proxy may close an idle connection at any moment. Then kkdcpd would not know whether the message
    arrived.
    """

    @property
    def pinned_keys(self) -> Mapping[str, frozenset[bytes]]:
        """The digests of the keys of each host."""
        hosts = {pin.host for pin in self.pins}
        return {host: frozenset(pin.digest for pin in self.pins if pin.host == host) for host in hosts}

    def find_problems(self, key: str) -> Iterator[ConfigProblem]:
        """Find a certificate without its key, and times out of order."""
        for name, other in (("certificate", "key"), ("key", "certificate")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                yield ConfigProblem(
                    key=f"{key}.{name}",
                    problem=f"is missing, but {key}.{other} is set",
                    remedy="name both files, or remove the other one",
                )
        yield from in_order(self, key, [("fresh_seconds", "idle_timeout")])
