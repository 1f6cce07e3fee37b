"""The section [http]: limits of a request, and of the time that a client may take."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from kkdcpd.config.kinds import Items, Range, Text, seconds
from kkdcpd.config.problems import items_differ
from kkdcpd.config.texts import parse_http_path, parse_origin
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["HttpConfig", "HttpPath", "paths_differ"]

Origin = Annotated[
    str, Text(parse=parse_origin, remedy='write an origin such as "https://desktop.example.com"')
]
HttpPath = Annotated[str, Text(parse=parse_http_path, remedy='write a plain path such as "/KdcProxy"')]


def paths_differ(paths: Mapping[str, str]) -> Iterator[ConfigProblem]:
    """Find a path that differs from an earlier one only in case."""
    seen: dict[str, str] = {}
    for key, path in paths.items():
        first = seen.setdefault(path.lower(), key)
        if first != key:
            yield ConfigProblem(
                key=key,
                problem=f"is the same path as {first}, as case doesn't count",
                remedy="remove one of them",
            )


@frozen
class HttpConfig:
    """Limits for the requests of clients. They stop attackers; honest clients stay far below them."""

    paths: Annotated[
        tuple[HttpPath, ...],
        Items(remedy='write a list of paths, such as ["/KdcProxy"]', may_be_empty=False, rule=paths_differ),
    ] = ("/KdcProxy",)
    """The paths of the service; upper and lower case are equal.

    Windows always uses /KdcProxy, and other clients use it by default. Other paths get status 404.
    """

    cors_origins: Annotated[
        tuple[Origin, ...],
        Items(remedy='write a list of origins, such as ["https://desktop.example.com"]', rule=items_differ),
    ] = ()
    """The web pages whose scripts may use this proxy in a browser (CORS), as in
    ["https://desktop.example.com"]. The default, [], is none.

    The list is also for [tunnel]. It is no access control, because other programs send any origin or none.
    """

    max_body_bytes: Annotated[int, Range(1024, 1048576, "bytes")] = 262144
    """The longest request body.

    The largest honest message requests a user-to-user ticket (Remote Desktop) and contains three Windows
    tickets of at most 65535 bytes each: the user's own, the other user's, and this one again inside FAST.
    Their envelope needs some hundred bytes more.
    """

    body_timeout: Annotated[float, seconds(120)] = 10.0
    head_timeout: Annotated[float, seconds(120)] = 10.0
    handshake_timeout: Annotated[float, seconds(120)] = 10.0
    """The time for a request's body, for its head, and for a TLS handshake.

    MIT's clients try another proxy after 10 seconds, so no client waits longer.
    """

    keepalive_timeout: Annotated[float, seconds(3600)] = 60.0
    """The time that a connection may be idle between requests.

    A log-on sends several requests within seconds. A minute spares a second handshake when a user types a
    password in between.
    """

    max_requests_per_connection: Annotated[int, Range(1, 1000000, "requests")] = 1000
    """The number of requests after which kkdcpd closes a connection.

    So long-lived connections, such as a reverse proxy's, spread over all worker processes again.
    """
