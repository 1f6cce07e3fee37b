"""`kkdcpd healthcheck`: asks the admin listener whether the service is ready.

Containers run the command every few seconds, so this module imports no slow module.
"""

import http.client
import ipaddress
import socket

from kkdcpd.config import ANY_HOST, ListenAddress

__all__ = ["reasons_against"]

TIMEOUT_SECONDS = 3.0
"""The deadline of each step: the connect, and the response, which takes `service.LOCATE_SECONDS` at most."""

MAX_REASON_BYTES = 65536


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def reasons_against(address: ListenAddress) -> list[str]:
    """Request `/readyz` from the admin listener. Return the reasons why the service is not ready."""
    connection = _connection(address)
    try:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        response = connection.getresponse()
        text = response.read(MAX_REASON_BYTES).decode(errors="replace")
    except TimeoutError:
        return [f"{address} doesn't answer within {TIMEOUT_SECONDS:g} s; look at the log of kkdcpd"]
    except OSError as error:
        reason = error.strerror or error
        return [f"no kkdcpd answers at {address}: {reason}; start it, or correct admin.address"]
    except http.client.HTTPException as error:
        problem = f"another program than kkdcpd answers at {address} ({type(error).__name__})"
        return [f"{problem}; correct admin.address"]
    finally:
        connection.close()
    if response.status == http.client.OK:
        return []
    return text.splitlines() or [f"{address} answers {response.status}"]


def _connection(address: ListenAddress) -> http.client.HTTPConnection:
    if address.unix_path:
        return _UnixConnection(str(address.unix_path))
    return http.client.HTTPConnection(_reachable(address.host), address.port, timeout=TIMEOUT_SECONDS)


def _reachable(host: str) -> str:
    """Return the address to connect to: loopback, if the listener listens on all addresses."""
    if host == ANY_HOST:
        return "127.0.0.1"
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
