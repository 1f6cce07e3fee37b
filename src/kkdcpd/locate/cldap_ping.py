"""Asks domain controllers by LDAP ping what they are; whoever answers is alive. Sockets only, no choice."""

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterable
from itertools import islice

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.cldap import (
    MAX_MESSAGE_ID,
    DomainControllerFacts,
    PingAnswer,
    decode_ping_answer,
    encode_ping,
)
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.socket_address import socket_address

__all__ = ["CldapPinger"]

LDAP_PORT = 389
"""[MS-ADTS] 6.3.3: whatever port an SRV record names for LDAP over TCP."""

MAX_ADDRESSES = 32
"""Pinged at a time. Large domains have hundreds of controllers; who asks has put the likeliest first."""

STAGGER_SECONDS = 0.01
"""Between two pings: a burst of answers would overflow nothing, but there is no hurry either."""

GRACE_SECONDS = 0.15
"""How long the others may take once one has answered: a round trip between continents.

Without it one dead controller would cost the request that pings the whole of its deadline.
"""

MAX_DATAGRAM_BYTES = 65535
"""The largest that UDP can bear. Answers seen are of 100 to 300 octets, and bounded by names of 255."""

MAX_DATAGRAMS = 4
"""Read from one address before it is given up: who answers wrongly can't keep us busy."""


class CldapPinger:
    """Pings many controllers at the same time, each once, from a fresh connected socket.

    Nobody off the path can answer: the kernel drops what isn't from the controller's address and port, and an
    answer bears the ping's random message id.
    """

    def __init__(self, *, port: int = LDAP_PORT, choose_id: Callable[[], int] | None = None) -> None:
        self._port = port
        self._choose_id = choose_id or _random_id

    async def ping(
        self, addresses: Iterable[str], domain: str, deadline: float
    ) -> dict[str, DomainControllerFacts]:
        """Return what the controllers of `domain` say, by address, in the order of their answers.

        Who doesn't answer as one is missing. It takes until all have answered, the first one's grace is over,
        or the absolute deadline of the loop's clock. Never raises OSError.
        """
        loop = asyncio.get_running_loop()
        answers: dict[str, DomainControllerFacts] = {}
        try:
            async with asyncio.timeout_at(deadline) as limit, asyncio.TaskGroup() as tasks:

                def note(address: str, facts: DomainControllerFacts) -> None:
                    if not answers and not limit.expired():
                        limit.reschedule(min(deadline, loop.time() + GRACE_SECONDS))
                    answers[address] = facts

                for number, address in enumerate(islice(dict.fromkeys(addresses), MAX_ADDRESSES)):
                    due = loop.time() + number * STAGGER_SECONDS
                    tasks.create_task(
                        self._ping_one(address, domain, due, note), name=f"LDAP ping of {address}"
                    )
        except TimeoutError:
            pass  # the rest didn't answer in time
        return answers

    async def _ping_one(
        self, address: str, domain: str, due: float, note: Callable[[str, DomainControllerFacts], None]
    ) -> None:
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        try:
            facts = await self._ask(address, domain)
        except OSError:
            return  # nothing listens there, or there is no way there
        if facts is not None:
            note(address, facts)

    async def _ask(self, address: str, domain: str) -> DomainControllerFacts | None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        message_id = self._choose_id()
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            await loop.sock_connect(sock, socket_address(address, self._port))
            await loop.sock_sendall(sock, encode_ping(message_id, domain))
            for _ in range(MAX_DATAGRAMS):
                answer = _decoded(await loop.sock_recv(sock, MAX_DATAGRAM_BYTES))
                if answer is not None and answer.message_id == message_id:
                    return _facts_of(answer, domain)
        return None


def _random_id() -> int:
    return 1 + secrets.randbelow(MAX_MESSAGE_ID)


def _decoded(datagram: bytes) -> PingAnswer | None:
    try:
        return decode_ping_answer(datagram)
    except MalformedError:
        return None


def _facts_of(answer: PingAnswer, domain: str) -> DomainControllerFacts | None:
    """Return the facts if they are of the domain that was asked for: a host may have moved to another."""
    facts = answer.facts
    return facts if facts is not None and fold_realm(facts.domain) == fold_realm(domain) else None
