"""Opens TCP listening sockets, and UDP sockets."""

import socket
from pathlib import Path

from kkdcpd.config import ANY_HOST, ListenAddress
from kkdcpd.socket_address import socket_address
from kkdcpd.supervisor.unix_sockets import BACKLOG

__all__ = ["SOCKET_BUFFER_BYTES", "limit_buffers", "open_datagram", "open_inet"]

SOCKET_BUFFER_BYTES = 32768
"""Size of the kernel's buffers of one connection in each direction (the kernel reserves twice as much).

The default is megabytes, which hostile clients could fill. Kerberos messages have some KiB.
"""


def open_inet(address: ListenAddress) -> list[socket.socket]:
    """Open the sockets of an address.

    Each family has its own socket, so that an IPv4 client never appears as ::ffff:192.0.2.1.

    Raises:
        OSError: a socket cannot be opened.
    """
    if address.host != ANY_HOST:
        return [_bind(_family_of(address), address.host, address.port)]
    first = _bind(socket.AF_INET, "0.0.0.0", address.port)  # noqa: S104 - the administrator wrote `*`
    if not _has_ipv6():
        return [first]
    try:
        return [first, _bind(socket.AF_INET6, "::", first.getsockname()[1])]
    except OSError:
        first.close()
        raise


def open_datagram(address: ListenAddress) -> socket.socket:
    """Open the UDP socket of an address, which is not `*`.

    Raises:
        OSError: the socket cannot be opened.
    """
    sock = socket.socket(_family_of(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(socket_address(address.host, address.port))
    except OSError:
        sock.close()
        raise
    return sock


def _family_of(address: ListenAddress) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6. Without IPv6, `*` means IPv4."""
    return socket.has_ipv6 and Path("/proc/net/if_inet6").exists()


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        limit_buffers(sock)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(socket_address(host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def limit_buffers(sock: socket.socket) -> None:
    """Limit the buffers of the connections, which inherit the sizes from their listening socket."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
