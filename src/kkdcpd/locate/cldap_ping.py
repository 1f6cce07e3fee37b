"""Sends LDAP pings to domain controllers and returns the facts that they report."""

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
"""[MS-ADTS] 6.3.3. The port in SRV records is for LDAP over TCP."""

MAX_ADDRESSES = 32
"""The number of controllers that get a ping. Large domains have hundreds; the caller orders them."""

STAGGER_SECONDS = 0.01
"""The pause between two pings, to avoid a burst of answers."""

GRACE_SECONDS = 0.15
"""The time for the other controllers after the first answer: a round trip between continents.

Without this limit, a dead controller would delay the request until its deadline.
"""

MAX_DATAGRAM_BYTES = 65535
"""The largest datagram of UDP. Real answers have 100 to 300 bytes; each name has at most 255."""

MAX_DATAGRAMS = 4
"""The number of datagrams that are read from one address, so that invalid answers cost little."""


class CldapPinger:
    """Pings many controllers at the same time, each once, from a new connected socket.

    A host off the path cannot forge an answer: the kernel drops datagrams from other addresses and ports, and
    an answer has the random message id of the ping.
    """

    def __init__(self, *, port: int = LDAP_PORT, choose_id: Callable[[], int] | None = None) -> None:
        self._port = port
        self._choose_id = choose_id or _random_id

    async def ping(
        self, addresses: Iterable[str], domain: str, deadline: float
    ) -> dict[str, DomainControllerFacts]:
        """Return the facts of the controllers of `domain` by address, in the order of their answers.

        Controllers without a valid answer are missing. The call ends when all have answered, GRACE_SECONDS
        after the first answer, or at `deadline`, a time of the event loop's clock. It never raises OSError.
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
            pass  # the other controllers did not answer in time
        return answers

    async def _ping_one(
        self, address: str, domain: str, due: float, note: Callable[[str, DomainControllerFacts], None]
    ) -> None:
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        try:
            facts = await self._ask(address, domain)
        except OSError:
            return  # no program listens there, or the address is unreachable
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
    """Return the facts if they belong to this domain: the host may have moved to another domain."""
    facts = answer.facts
    return facts if facts is not None and fold_realm(facts.domain) == fold_realm(domain) else None
