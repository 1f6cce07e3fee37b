"""Reads from the environment which connections go through a web proxy (https_proxy, no_proxy).

There is no standard. The form of curl, wget and Python is read: no_proxy is a list of names, addresses and
networks, divided by commas. A name stands for all names below it, too. A port may follow.
"""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import field
from urllib.parse import unquote, urlsplit

from kkdcpd.errors import SettingError
from kkdcpd.frozen import frozen

__all__ = ["WebProxies", "WebProxy", "read_environment"]

_DEFAULT_PORT = 3128  # Squid's, as in curl


@frozen
class WebProxy:
    """A web proxy. `authorization` is the value of Proxy-Authorization, and is never shown."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


@frozen
class WebProxies:
    """The web proxy, if there is one, and the hosts that are reached without it."""

    proxy: WebProxy | None = None
    exceptions: tuple[str, ...] = ()

    def proxy_for(self, host: str, address: str, port: int) -> WebProxy | None:
        """Return the web proxy for a host. Its `address` counts too if no_proxy has networks."""
        if self.proxy and not any(_fits(exception, host, address, port) for exception in self.exceptions):
            return self.proxy
        return None


def read_environment(environment: Mapping[str, str]) -> WebProxies:
    """Read https_proxy and no_proxy, in lower case or else in upper case.

    Raises:
        SettingError: https_proxy is no URL of a proxy.
    """
    url = _variable(environment, "https_proxy")
    if not url:
        return WebProxies()
    exceptions = _variable(environment, "no_proxy").replace(",", " ").lower().split()
    return WebProxies(proxy=_parse(url), exceptions=tuple(exceptions))


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper()) or ""


def _parse(url: str) -> WebProxy:
    """Read the URL. The error does not show it, because it may have a password."""
    remedy = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; an https:// proxy is not supported"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http":
        raise SettingError("https_proxy is no URL of an HTTP proxy", remedy)
    return WebProxy(
        host=host, port=port or _DEFAULT_PORT, authorization=_basic(parts.username, parts.password)
    )


def _basic(user: str | None, password: str | None) -> str | None:
    """Return the value of Proxy-Authorization (RFC 7617)."""
    if user is None:
        return None
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _fits(exception: str, host: str, address: str, port: int) -> bool:
    if exception == "*":
        return True
    name, colon, digits = exception.rpartition(":")
    if colon and digits.isdecimal() and (":" not in name or name.endswith("]")):
        return int(digits) == port and _fits(name, host, address, port)
    host = host.lower().rstrip(".")
    suffix = exception.strip("[]").removeprefix("*").lstrip(".")
    if host == suffix or host.endswith(f".{suffix}"):
        return True
    try:
        network = ipaddress.ip_network(suffix, strict=False)
    except ValueError:
        return False
    return ipaddress.ip_address(address.partition("%")[0]) in network
