"""Declares the options and listeners of the local way in, and refuses addresses that others can reach."""

import socket
from dataclasses import field
from ipaddress import ip_address

from kkdcpd.endpoints import format_host_port
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen
from kkdcpd.pipeline.joining import JoiningLimits

__all__ = ["LocalListener", "LocalOptions", "check_reach"]


@frozen
class LocalOptions:
    """The options of the local way in. Times are in seconds.

    max_message_bytes: the longest message of a program (1024 to 1048576).
    max_datagram_bytes: the longest reply that is sent in a datagram (512 to 65507). gokrb5 cuts longer ones
        than 4096 bytes. In place of a longer reply the program gets KRB_ERR_RESPONSE_TOO_BIG.
    message_timeout: the time from the first byte of a message to its last, by TCP and UNIX sockets.
    idle_timeout: the time that a connection without a request stays open.
    write_timeout: the time that a program has to read a reply.
    has_next_kdc: whether programs know another KDC than this way in. If no KDC got a message, they then get
        KDC_ERR_SVC_UNAVAILABLE and try that KDC. Without another KDC, MIT's programs try for half a minute
        and Heimdal's for minutes. If it is false, they get KRB_ERR_GENERIC and end at once.
    heimdal_http: whether TCP listeners also take requests in Heimdal's own form of HTTP. It has no TLS.
    beyond_loopback: whether other hosts may connect. UDP answers what it is sent, so a host that others can
        reach can be used to send datagrams to a third host (a reflector).
    joining: the limits for copies of requests.
    """

    max_message_bytes: int = 262144
    max_datagram_bytes: int = 4096
    message_timeout: float = 10.0
    idle_timeout: float = 30.0
    write_timeout: float = 10.0
    has_next_kdc: bool = True
    heimdal_http: bool = False
    beyond_loopback: bool = False
    joining: JoiningLimits = field(default=JoiningLimits())


@frozen
class LocalListener:
    """A non-blocking socket: listening (TCP, UNIX) or bound (UDP). Both services share each socket.

    `uids` are the users that may use a UNIX socket; if it is empty, all users may that the mode of the file
    lets in.
    """

    socket: socket.socket
    uids: frozenset[int] = frozenset()

    def __str__(self) -> str:
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return f"unix:{name}"
        scheme = "udp" if self.socket.type == socket.SOCK_DGRAM else "tcp"
        return f"{scheme}://{format_host_port(name[0], name[1])}"


def check_reach(listener: LocalListener, options: LocalOptions) -> None:
    """Refuse a socket that other hosts can reach, unless the options allow it.

    The check is of the socket itself, because systemd may have opened it.

    Raises:
        ConfigError: other hosts can reach the socket.
    """
    if options.beyond_loopback or listener.socket.family == socket.AF_UNIX:
        return
    host = listener.socket.getsockname()[0].partition("%")[0]
    if not ip_address(host).is_loopback:
        problem = ConfigProblem(
            key="local.listen",
            problem=f"other hosts can reach {listener}, and could use it to send datagrams to a third host",
            remedy="listen on 127.0.0.1, [::1] or a unix socket, or accept it with beyond_loopback = true",
        )
        raise ConfigError([problem])
