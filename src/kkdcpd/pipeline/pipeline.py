"""Takes every request from its way in to its response, and enters it in the access log.

A way in makes one `IncomingRequest` for each request. It can read the request and build a response. All that
happens in between, and whatever ends the request, is the same for all ways in and is here.
"""

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from kkdcpd.config import GuardConfig
from kkdcpd.errors import RequestError
from kkdcpd.guard.guard import Guard
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.access_log import AccessLog, AccessRecord
from kkdcpd.pipeline.relay import Relay, refused, with_monitored
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.krb_error import build_error
from kkdcpd.values import ClientConnection, Outcome, ProxyRequest, RequestResult

__all__ = ["IncomingRequest", "Pipeline"]

logger = EventLogger(__name__)

Response = TypeVar("Response")


class IncomingRequest(ABC, Generic[Response]):
    """One request. Each way in has a subclass.

    `read` sets `bytes_in`, and may change `client`. `respond` sets `bytes_out` and, if the way in has
    statuses, `status`. They are for the access log, and so is `copies`, which `pipeline.joining` sets.
    `on_sent` is called before a KDC gets the message, once for each KDC.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "client",
        "copies",
        "id",
        "on_sent",
        "request",
        "started_at",
        "status",
    )

    own_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors of `read` after which the way in answers and logs the request in its own way."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        # The line in the log has the same `id` as the response. Python seeds anew in each process (os.fork).
        self.id = f"{random.getrandbits(32):08x}"
        self.started_at = time.perf_counter()
        self.request: ProxyRequest | None = None
        self.status: int | None = None
        self.on_sent: Callable[[], object] | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.copies = 0

    @abstractmethod
    async def read(self) -> ProxyRequest:
        """Receive and decode the request.

        Raises:
            RequestError: the request is refused with the outcome of the error.
        """

    @abstractmethod
    def respond(self, result: RequestResult, payload: bytes | None) -> Response:
        """Build the response. `payload` is the Kerberos message in it, None if there is no such message."""


class Pipeline:
    """Serves the requests of all ways in."""

    def __init__(self, *, guard: Guard, relay: Relay, counters: Counters, config: GuardConfig) -> None:
        self._guard = guard
        self._relay = relay
        self._counters = counters
        self._access_log = AccessLog(counters)
        self._refuses_in_kerberos = config.refusal == "krb_error"

    async def serve(self, incoming: IncomingRequest[Response]) -> Response:
        """Serve a request, and return its response."""
        self._counters.request_begins()
        try:
            return self.end(incoming, await self._result_of(incoming))
        except incoming.own_errors:
            raise
        except asyncio.CancelledError:
            self._log(incoming, RequestResult(outcome=Outcome.CLIENT_GONE))
            raise
        except Exception as error:
            # Any other exception is a bug. The client gets a response all the same.
            logger.exception("bug_in_request", sum_by=("bug_in_request", type(error)), id=incoming.id)
            result = RequestResult(outcome=Outcome.INTERNAL_ERROR, detail=type(error).__name__)
            return self.end(incoming, result)
        finally:
            self._counters.request_leaves()

    def end(self, incoming: IncomingRequest[Response], result: RequestResult) -> Response:
        """Return the response to a request with this result, and enter the request in the access log."""
        response = incoming.respond(result, self._payload(incoming.request, result))
        self._log(incoming, result)
        return response

    async def _result_of(self, incoming: IncomingRequest[Response]) -> RequestResult:
        """Read and relay a request, unless the client or all clients send too many.

        A request counts for the client's rate before its body is there, because a head without a body costs
        CPU too. It is in flight from the end of its body on, because slow bodies should keep no slots.
        """
        rate = self._guard.check_rate(incoming.client)
        if rate.refusal:
            return refused(rate)
        try:
            incoming.request = await incoming.read()
        except RequestError as error:
            return RequestResult(outcome=error.outcome, detail=str(error), monitored=rate.monitored)
        with self._guard.in_flight(incoming.client) as concurrency:
            if concurrency.refusal:
                return refused(concurrency)
            result = await self._relay.relay(incoming.request, incoming.client, on_sent=incoming.on_sent)
        monitored = rate.monitored + concurrency.monitored
        return with_monitored(result, monitored) if monitored else result

    def _payload(self, request: ProxyRequest | None, result: RequestResult) -> bytes | None:
        """Return the Kerberos message for the client: the reply, or a refusal if configured."""
        if result.outcome is Outcome.ANSWERED and result.reply:
            return result.reply.payload
        if not self._refuses_in_kerberos or result.outcome is not Outcome.REFUSED:
            return None
        if request is None or result.refusal is None:
            return None
        return build_error(KrbErrorCode.KDC_ERR_POLICY, result.refusal.text, request=request, now=time.time())

    def _log(self, incoming: IncomingRequest[Response], result: RequestResult) -> None:
        self._access_log.enter(
            AccessRecord(
                request_id=incoming.id,
                client=incoming.client,
                result=result,
                request=incoming.request,
                status=incoming.status,
                seconds=time.perf_counter() - incoming.started_at,
                bytes_in=incoming.bytes_in,
                bytes_out=incoming.bytes_out,
                copies=incoming.copies,
            )
        )
