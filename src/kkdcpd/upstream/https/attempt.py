"""Sends one message to a KDC proxy, over an idle connection or a new one."""

import os

from kkdcpd.config import HttpsConfig
from kkdcpd.errors import SettingError
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol.kdc_proxy_http import HttpResponse, Verdict, judge
from kkdcpd.upstream.https.client_tls import build_client_context
from kkdcpd.upstream.https.connection import Connection, Failure, Setup
from kkdcpd.upstream.https.pool import Pool
from kkdcpd.upstream.https.web_proxy import WebProxies, read_environment
from kkdcpd.upstream.kdc_proxy_log import log_kdc_proxy_failure
from kkdcpd.upstream.sockets import AttemptEvents, Readiness, SourceAddresses, log_local_error
from kkdcpd.values import Attempt, FailureFacts, FailureReason, ProxyRequest

__all__ = ["HttpsAttempt", "make_pool"]

logger = EventLogger(__name__)


def make_pool(
    config: HttpsConfig,
    *,
    readiness: Readiness,
    sources: SourceAddresses,
    max_reply_bytes: int,
    web_proxies: WebProxies | None = None,
) -> Pool:
    """Return a pool. The configured files are read when the first connection is opened.

    Without `web_proxies`, the environment names the web proxy.
    """

    def make_setup() -> Setup:
        return Setup(
            readiness=readiness,
            sources=sources,
            context=build_client_context(config),
            pins=config.pinned_keys,
            web_proxies=read_environment(os.environ) if web_proxies is None else web_proxies,
            max_reply_bytes=max_reply_bytes,
        )

    return Pool(config, make_setup)


class HttpsAttempt:
    """One message to one KDC proxy. A `WayOut`.

    The server may close an idle connection at any moment. A repeatable message then gets a second connection,
    and so does any message of which no byte has left.
    """

    def __init__(
        self,
        attempt: Attempt,
        events: AttemptEvents,
        *,
        pool: Pool,
        sources: SourceAddresses,
        may_repeat: bool,
    ) -> None:
        self._attempt = attempt
        self._events = events
        self._pool = pool
        self._sources = sources
        self._may_repeat = may_repeat
        self._connection: Connection | None = None
        self._is_reused = False
        self._has_left = False
        self._request: ProxyRequest | None = None

    def start(self) -> None:
        """Take an idle connection, or begin to open one."""
        connection = self._pool.take(self._attempt.endpoint, may_repeat=self._may_repeat)
        if connection:
            self._connection, self._is_reused = connection, True
            connection.user = self
            self._events.connected(self._attempt)
        else:
            self._open()

    def send(self, request: ProxyRequest) -> None:
        """Send the message."""
        assert self._connection
        self._request = request
        self._connection.send(request)

    def close(self) -> None:
        """Give up the connection. If it has carried no message, the pool keeps it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.is_usable:
            self._pool.put(connection)
        else:
            connection.close()

    # --- events of the connection

    def opened(self) -> None:
        """Send the message if it is there already, for the second time; else report the connection."""
        if self._request and self._connection:
            self._connection.send(self._request)
        else:
            self._events.connected(self._attempt)

    def answered(self, response: HttpResponse) -> None:
        """Report the reply, or the reason why there is none."""
        connection, self._connection = self._connection, None
        assert connection
        assert self._request
        if connection.is_usable:
            self._pool.put(connection, response.keep_alive)
        else:
            connection.close()
        verdict = judge(response, is_empty=not self._request.kerb_message)
        if verdict.failure:
            self._report(verdict, response)
            self._events.failed(self._attempt, verdict.failure, verdict.facts)
        else:
            self._events.received(self._attempt, verdict.payload)

    def ended(self, failure: Failure) -> None:
        """Open a second connection if the message may have it; else report the failure."""
        connection, self._connection = self._connection, None
        assert connection
        self._has_left = self._has_left or connection.has_sent
        may_send_again = self._may_repeat or not self._has_left
        if self._is_reused and may_send_again and not connection.has_response:
            self._is_reused = False
            self._open()
        else:
            self._fail(failure)

    def _open(self) -> None:
        try:
            self._connection = self._pool.open(self._attempt.endpoint, self)
        except SettingError as error:
            self._fail_setup(error)
        else:
            self._connection.open()

    def _fail_setup(self, error: SettingError) -> None:
        logger.error("https_unusable", sum_by="https_unusable", problem=error.problem, remedy=error.remedy)
        self._fail(Failure(reason=FailureReason.LOCAL_ERROR))

    def _fail(self, failure: Failure) -> None:
        endpoint = self._attempt.endpoint
        if failure.reason is FailureReason.LOCAL_ERROR and failure.error:
            log_local_error(endpoint, failure.error, self._sources)
        elif failure.problem:
            log_kdc_proxy_failure(endpoint, failure.reason, problem=failure.problem, status=failure.status)
        facts = FailureFacts(is_undelivered=not self._has_left)
        self._events.failed(self._attempt, failure.reason, facts)

    def _report(self, verdict: Verdict, response: HttpResponse) -> None:
        assert verdict.failure
        log_kdc_proxy_failure(
            self._attempt.endpoint,
            verdict.failure,
            status=response.status,
            request_id=response.request_id,
        )
