"""The options of the HTTPS way out."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from kkdcpd.frozen import frozen
from kkdcpd.upstream.https.web_proxy import WebProxies

__all__ = ["HttpsOptions"]


@frozen
class HttpsOptions:
    """The options of the HTTPS way out.

    `ca_file` is a PEM file of the trusted authorities, None for those of the system. `certificate` and `key`
    are PEM files that kkdcpd shows to KDC proxies that request a client certificate. `pins` has for a host
    the SHA-256 digests of public keys (SubjectPublicKeyInfo): the certificate of this host must have one of
    these keys, and must be valid as well. `web_proxies` says which connections go through a web proxy; None
    reads the environment (https_proxy, no_proxy).

    An idle connection is kept for `idle_timeout` seconds, and at most `idle_connections` for one endpoint. A
    message that is sent once, and a probe, use no connection that has been idle for `fresh_seconds` or
    longer.
    """

    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    pins: Mapping[str, frozenset[bytes]] = field(default_factory=dict, hash=False)
    web_proxies: WebProxies | None = None
    idle_timeout: float = 15.0
    idle_connections: int = 8
    fresh_seconds: float = 1.0
