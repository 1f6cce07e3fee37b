"""What happens to a request between a way in and a way out. No octets of HTTP, TLS or sockets here."""

from kkdcpd.errors import ExchangeError, LocateError
from kkdcpd.locate.locator import Locator
from kkdcpd.protocol.dclocator import flags_of
from kkdcpd.upstream.driver import Upstream
from kkdcpd.values import LocateQuery, Outcome, ProxyRequest, Served

__all__ = ["Pipeline"]


class Pipeline:
    """Locates the realm's KDCs and exchanges the request with one of them."""

    def __init__(self, *, locator: Locator, upstream: Upstream) -> None:
        self._locator = locator
        self._upstream = upstream

    async def serve(self, request: ProxyRequest) -> Served:
        """Serve one request; whatever keeps it from a reply is in the outcome, never raised."""
        try:
            route = await self._locator.locate(_query(request))
        except LocateError as error:
            return Served(outcome=error.outcome, detail=str(error))
        try:
            reply = await self._upstream.exchange(request, route)
        except ExchangeError as error:
            return Served(
                outcome=error.outcome, realm=route.realm, attempts=len(error.failures), detail=str(error)
            )
        return Served(
            outcome=Outcome.ANSWERED,
            realm=route.realm,
            reply=reply,
            attempts=reply.attempts,
            detail=", ".join(map(str, reply.failures)) or None,
        )


def _query(request: ProxyRequest) -> LocateQuery:
    flags = flags_of(request.dclocator_hint, is_armored=request.is_armored)
    return LocateQuery(target_domain=request.target_domain, service=request.service, flags=flags)
