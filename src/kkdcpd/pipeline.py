"""What happens to a request between a way in and a way out. No octets of HTTP, TLS or sockets here."""

from kkdcpd.errors import ExchangeError, LocateError
from kkdcpd.locate.static import StaticLocator
from kkdcpd.upstream.driver import Upstream
from kkdcpd.values import Outcome, ProxyRequest, Served

__all__ = ["Pipeline"]


class Pipeline:
    """Locates the realm's KDCs and exchanges the request with one of them."""

    def __init__(self, *, locator: StaticLocator, upstream: Upstream) -> None:
        self._locator = locator
        self._upstream = upstream

    async def serve(self, request: ProxyRequest) -> Served:
        """Serve one request; whatever keeps it from a reply is in the outcome, never raised."""
        try:
            route = await self._locator.locate(request.target_domain, request.service)
        except LocateError as error:
            return Served(outcome=error.outcome, detail=str(error))
        try:
            reply = await self._upstream.exchange(request, route.endpoints)
        except ExchangeError as error:
            return Served(
                outcome=error.outcome, realm=route.realm, attempts=len(error.attempts), detail=str(error)
            )
        return Served(outcome=Outcome.ANSWERED, realm=route.realm, reply=reply, attempts=reply.attempts)
