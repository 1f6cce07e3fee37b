"""Converts configured addresses to the socket addresses of connect(2) and bind(2), and back."""

import errno
import os
import socket

__all__ = ["SocketAddress", "host_with_zone", "is_interface", "socket_address"]

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


def socket_address(host: str, port: int) -> SocketAddress:
    """Return the address for `socket.connect` and `socket.bind`.

    The kernel needs the number of the network interface for the zone of a link-local address (RFC 4007 11).
    The number is looked up each time, because an interface that is created again gets another number.

    Raises:
        OSError: the interface does not exist.
    """
    if "%" not in host:
        return host, port
    address, _, zone = host.partition("%")
    return address, port, 0, _interface_index(zone)


def is_interface(zone: str) -> bool:
    """Whether this host has a network interface with this name or number."""
    try:
        return _interface_index(zone) > 0
    except OSError:
        return False


def host_with_zone(name: SocketAddress) -> str:
    """Return the host of a socket address, with its zone if the address is link-local."""
    if len(name) == 2 or not name[3]:
        return name[0]
    return f"{name[0]}%{socket.if_indextoname(name[3])}"


def _interface_index(zone: str) -> int:
    try:
        return socket.if_nametoindex(socket.if_indextoname(int(zone)) if zone.isdecimal() else zone)
    except OSError as error:  # Python raises it without an errno
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
