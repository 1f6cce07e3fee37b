"""Makes the addresses that the kernel's calls connect and bind take from those of the configuration."""

import errno
import os
import socket

__all__ = ["SocketAddress", "host_with_zone", "is_interface", "socket_address"]

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


def socket_address(host: str, port: int) -> SocketAddress:
    """Return the address that `socket.connect` and `socket.bind` take.

    They ignore the zone of a link-local address (RFC 4007 11) within the text: the kernel wants the number of
    the network interface. It is looked up each time, since an interface may go and come back with another.

    Raises:
        OSError: there is no such interface.
    """
    if "%" not in host:
        return host, port
    address, _, zone = host.partition("%")
    return address, port, 0, _interface_index(zone)


def is_interface(zone: str) -> bool:
    """Whether this host has the network interface that a zone names, or whose number it is."""
    try:
        return _interface_index(zone) > 0
    except OSError:
        return False


def host_with_zone(name: SocketAddress) -> str:
    """Return the host of an address that the kernel tells, with its zone if it is link-local."""
    if len(name) == 2 or not name[3]:
        return name[0]
    return f"{name[0]}%{socket.if_indextoname(name[3])}"


def _interface_index(zone: str) -> int:
    try:
        return socket.if_nametoindex(socket.if_indextoname(int(zone)) if zone.isdecimal() else zone)
    except OSError as error:  # Python's, without a number
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
