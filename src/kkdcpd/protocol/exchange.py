"""One request to its reply: who is tried next, until when, and what ends it. Fed with results and a clock.

The message goes to the first endpoint that takes it, in the order given. Once its first octet was written to
a KDC, nobody else gets it: a doubled proof of a password counts twice toward a lockout, burns a one-time
password, or comes back as KRB_AP_ERR_REPEAT. KRB_ERR_RESPONSE_TOO_BIG is the protocol's own exception
(RFC 4120 7.2.1): the same KDC gets the message again by TCP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kkdcpd.errors import ExchangeError, MalformedError, NoKdcReachedError, NoKdcReplyError
from kkdcpd.protocol import messages
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.values import (
    Attempt,
    AttemptResult,
    FailureReason,
    KdcEndpoint,
    KdcReply,
    ProxyRequest,
    Transport,
)

__all__ = ["Exchange", "ExchangeTimeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTimeouts:
    """Seconds: for one connect, until some KDC must have the message, until the reply must be there."""

    connect: float
    reach: float
    reply: float


class Exchange:
    """The attempts of one request: ask `next_attempt`, make it, `settle` it, until there is a reply."""

    def __init__(
        self,
        request: ProxyRequest,
        endpoints: Sequence[KdcEndpoint],
        *,
        timeouts: ExchangeTimeouts,
        started_at: float,
    ) -> None:
        self._request = request
        self._pending = list(endpoints)
        self._timeouts = timeouts
        self._reach_deadline = started_at + timeouts.reach
        self._reply_deadline = started_at + timeouts.reply
        self._is_written = False
        self._results: list[AttemptResult] = []

    def next_attempt(self, now: float) -> Attempt | None:
        """Return the attempt that is due, or None when nobody is left who may be tried."""
        if not self._pending or now >= self._deadline:
            return None
        endpoint = self._pending.pop(0)
        return Attempt(
            endpoint=endpoint,
            connect_deadline=min(now + self._timeouts.connect, self._deadline),
            reply_deadline=self._reply_deadline,
        )

    @property
    def _deadline(self) -> float:
        return self._reply_deadline if self._is_written else self._reach_deadline

    def settle(self, result: AttemptResult) -> KdcReply | None:
        """Take the result of an attempt; return the reply if that ends the exchange."""
        self._is_written = self._is_written or result.is_written
        if result.payload is not None:
            return self._settle_payload(result, result.payload)
        self._results.append(result)
        if self._is_written:
            self._pending.clear()
        elif result.failure is FailureReason.REFUSED:
            self._prefer(result.attempt.endpoint)
        return None

    def _prefer(self, refused: KdcEndpoint) -> None:
        """Bring forward the UDP of a host that refused TCP: it is alive (Heimdal's kpasswdd is UDP only)."""
        for index, endpoint in enumerate(self._pending):
            if endpoint.transport is Transport.UDP and endpoint.address == refused.address:
                first_udp = next(i for i, e in enumerate(self._pending) if e.transport is Transport.UDP)
                self._pending.insert(first_udp, self._pending.pop(index))
                return

    def _settle_payload(self, result: AttemptResult, payload: bytes) -> KdcReply | None:
        self._pending.clear()
        endpoint = result.attempt.endpoint
        try:
            facts = messages.inspect_reply(self._request.kind, payload)
        except MalformedError:
            self._results.append(replace(result, payload=None, failure=FailureReason.BAD_REPLY))
            return None
        self._results.append(result)
        if facts.error_code == KrbErrorCode.KRB_ERR_RESPONSE_TOO_BIG and endpoint.transport is Transport.UDP:
            self._pending.append(replace(endpoint, transport=Transport.TCP))
            return None
        return KdcReply(payload=payload, facts=facts, endpoint=endpoint, attempts=len(self._results))

    def failure(self) -> ExchangeError:
        """Return the error that tells why there is no reply."""
        return (NoKdcReplyError if self._is_written else NoKdcReachedError)(self._results)
