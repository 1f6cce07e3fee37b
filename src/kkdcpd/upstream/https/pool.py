"""Keeps idle connections to KDC proxies, and closes them in time."""

import asyncio
import math
import ssl
from collections.abc import Callable

from kkdcpd.config import HttpsConfig
from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.protocol.kdc_proxy_http import HttpResponse
from kkdcpd.upstream.https.connection import Connection, ConnectionUser, Failure, Setup

__all__ = ["Pool"]

MAX_IDLE = 256
"""The most idle connections in all. Beyond that the oldest is closed."""

MAX_SESSIONS = 256
SESSION_SECONDS = 600.0
"""How long a TLS session is resumed. A resumed session has the certificate of its first handshake."""

SWEEP_SECONDS = 5.0

KEEP_ALIVE_MARGIN = 1.0
"""A connection is not used in the last second of the time for which the server keeps it."""


class Pool:
    """Connections without a request under way, the one that has been idle for longest first."""

    def __init__(self, config: HttpsConfig, make_setup: Callable[[], Setup]) -> None:
        self._config = config
        self._make_setup = make_setup
        self._setup: Setup | None = None
        self._loop = asyncio.get_running_loop()
        # When each connection became idle, and until when the server keeps it.
        self._idle: dict[Connection, tuple[float, float]] = {}
        self._sessions: dict[KdcEndpoint, tuple[ssl.SSLSession, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def take(self, endpoint: KdcEndpoint, *, may_repeat: bool) -> Connection | None:
        """Take the connection that has been idle for the shortest time, if there is a usable one."""
        now = self._loop.time()
        longest = self._config.idle_timeout if may_repeat else self._config.fresh_seconds
        for connection, (since, until) in reversed([*self._idle.items()]):
            if connection.endpoint != endpoint or now >= min(since + longest, until):
                continue
            connection.poll()
            # An end of the connection, or bytes without a request, have removed it.
            if self._idle.pop(connection, None):
                return connection
        return None

    def open(self, endpoint: KdcEndpoint, user: ConnectionUser) -> Connection:
        """Return a new connection, which is not started.

        Raises:
            SettingError: the configuration cannot be used.
        """
        if self._setup is None:
            self._setup = self._make_setup()
        session, since = self._sessions.get(endpoint, (None, -math.inf))
        is_recent = self._loop.time() < since + SESSION_SECONDS
        return Connection(endpoint, self._setup, user, session if is_recent else None)

    def put(self, connection: Connection, keep_alive: float | None = None) -> None:
        """Keep a usable connection, for at most as long as the server says in `keep_alive`."""
        now = self._loop.time()
        self._keep_session(connection, now)
        connection.user = _IdleUser(connection, self._idle)
        kept = math.inf if keep_alive is None else keep_alive - KEEP_ALIVE_MARGIN
        self._idle[connection] = now, now + min(kept, self._config.idle_timeout)
        others = [other for other in self._idle if other.endpoint == connection.endpoint]
        if len(others) > self._config.idle_connections:
            self._close(others[0])
        elif len(self._idle) > MAX_IDLE:
            self._close(next(iter(self._idle)))
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def close(self) -> None:
        """Close all idle connections."""
        if self._timer:
            self._timer.cancel()
        for connection in [*self._idle]:
            self._close(connection)

    def _keep_session(self, connection: Connection, now: float) -> None:
        """Keep the session of the connection if there is no recent one: OpenSSL takes 0.3 ms to give it."""
        _, since = self._sessions.get(connection.endpoint, (None, -math.inf))
        if now < since + SESSION_SECONDS / 2:
            return
        session = connection.session
        if session is None or not session.has_ticket:
            return
        if len(self._sessions) >= MAX_SESSIONS:
            self._sessions.clear()
        self._sessions[connection.endpoint] = session, now

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection, (_, until) in [*self._idle.items()]:
            if now >= until:
                self._close(connection)
        self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._idle else None

    def _close(self, connection: Connection) -> None:
        del self._idle[connection]
        connection.close()


class _IdleUser:
    """The user of an idle connection. An event of it means that the connection is of no more use."""

    def __init__(self, connection: Connection, idle: dict[Connection, tuple[float, float]]) -> None:
        self._connection = connection
        self._idle = idle

    def opened(self) -> None:
        """Never called: the connection is open."""

    def answered(self, response: HttpResponse) -> None:
        """Never called: no request is under way."""

    def ended(self, failure: Failure) -> None:
        """Forget the connection, which has ended."""
        del failure
        self._idle.pop(self._connection, None)
