"""Addresses of host names, from the system's resolver: /etc/hosts, DNS, whatever nsswitch.conf says."""

import asyncio
import logging
import socket

__all__ = ["HostResolver"]

logger = logging.getLogger(__name__)


class HostResolver:
    """Asks the system's resolver in a thread of the loop's executor, so that the loop never waits for it."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Return the host's addresses in the system's order of preference (RFC 6724); none if it has none."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            logger.warning(
                "host not found", extra={"fields": {"host": host, "reason": str(error) or "timeout"}}
            )
            return ()
        # Each address comes once: the socket type is fixed. A scope belongs to link-local addresses only.
        return tuple(str(sockaddr[0]) for *_, sockaddr in found)
