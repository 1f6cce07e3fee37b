"""The exchange driver: makes the attempts that protocol.exchange names, and decides nothing itself."""

import asyncio
from collections.abc import Sequence

from kkdcpd.config import UpstreamConfig
from kkdcpd.protocol.exchange import Exchange, ExchangeTimeouts
from kkdcpd.upstream import tcp, udp
from kkdcpd.values import Attempt, AttemptResult, KdcEndpoint, KdcReply, ProxyRequest, Transport

__all__ = ["Upstream"]


class Upstream:
    """Sends requests to KDCs."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._max_reply_bytes = config.max_reply_bytes
        self._timeouts = ExchangeTimeouts(
            connect=config.connect_timeout, reach=config.reach_timeout, reply=config.reply_timeout
        )

    async def exchange(self, request: ProxyRequest, endpoints: Sequence[KdcEndpoint]) -> KdcReply:
        """Bring the request to one of the endpoints and return its reply.

        Raises:
            NoKdcReachedError: no endpoint took the message.
            NoKdcReplyError: one did, but gave no usable reply in time.
        """
        clock = asyncio.get_running_loop().time
        exchange = Exchange(request, endpoints, timeouts=self._timeouts, started_at=clock())
        while attempt := exchange.next_attempt(clock()):
            reply = exchange.settle(await self._make(attempt, request))
            if reply:
                return reply
        raise exchange.failure()

    async def _make(self, attempt: Attempt, request: ProxyRequest) -> AttemptResult:
        if attempt.endpoint.transport is Transport.UDP:
            return await udp.send(attempt, request)
        return await tcp.send(attempt, request, max_reply_bytes=self._max_reply_bytes)
