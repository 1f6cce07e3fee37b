"""Lets the scripts of listed web pages read responses (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).

A script may send a simple POST to any server, but its browser hides the response. With `Content-Type:
application/kerberos` the browser first sends a preflight, and the POST only if the preflight permits it.
"""

import dataclasses
from collections.abc import Iterable

from aiohttp import hdrs

from kkdcpd.frontends.http.bridge import Head
from kkdcpd.frontends.http.responses import Response

__all__ = ["Cors"]

MAX_AGE_SECONDS = 7200
"""How long a browser may remember the answer to a preflight. Chromium remembers no answer for longer."""

_PREFLIGHT = (
    (hdrs.ACCESS_CONTROL_ALLOW_METHODS, hdrs.METH_POST),
    (hdrs.ACCESS_CONTROL_ALLOW_HEADERS, hdrs.CONTENT_TYPE),
    (hdrs.ACCESS_CONTROL_MAX_AGE, str(MAX_AGE_SECONDS)),
)
_EXPOSED = (hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, "x-ms-request-id, Retry-After, Kdc-Has-Message")


class Cors:
    """The origins of the scripts that may use the proxy, such as `https://desktop.example.com`.

    `is_on`: there are such origins.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)
        self.is_on = bool(self._origins)

    def is_preflight(self, http: Head) -> bool:
        """Whether a browser asks if a script of a listed origin may send a POST."""
        return (
            http.method == hdrs.METH_OPTIONS
            and http.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD) == hdrs.METH_POST
            and http.headers.get(hdrs.ORIGIN) in self._origins
        )

    def permit(self, http: Head, response: Response) -> Response:
        """Add the headers with which the browser gives the response to the script."""
        headers = [*response.headers, (hdrs.VARY, hdrs.ORIGIN)]
        origin = http.headers.get(hdrs.ORIGIN)
        if origin in self._origins:
            headers.append((hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, origin))
            headers += _PREFLIGHT if self.is_preflight(http) else (_EXPOSED,)
        return dataclasses.replace(response, headers=tuple(headers))
