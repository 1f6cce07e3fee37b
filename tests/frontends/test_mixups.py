"""Every client gets the reply to its own request, while KDCs and clients come and go.

All connections of a process receive into one buffer, all its sockets to KDCs share another and one epoll, and
descriptors are used again at once: if any of these were handed on too late, replies would change hands.
"""

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab.authority import Authority
from lab.daemon import Daemon
from tests.support.fake_kdc import FakeKdcThread, Link, Script
from tests.support.http_client import post
from tests.support.messages import NT_PRINCIPAL, as_req, envelope, krb_error

USERS = 200
CLIENTS = 40
REQUESTS = 40
"""Of each client, not counting those that it leaves."""

PATIENCE_SECONDS = 20.0

_chance = random.Random(1)


def of_user(number: int) -> tuple[bytes, bytes]:
    """A user's message, and the KDC's reply, each of a length of its own."""
    name = (NT_PRINCIPAL, (f"user{number}" + "x" * (37 * number % 3000),))
    return as_req(cname=name), krb_error(25, text=f"for {number} " + "y" * (53 * number % 9000))


MESSAGES: Sequence[tuple[bytes, bytes]] = [of_user(number) for number in range(USERS)]
REPLIES = dict(MESSAGES)
TO_PROBES = krb_error(25)


def moody(link_kind: str) -> Script:
    """Answer in any order; now and then hang up instead, before or after the message came or in a reply."""

    async def script(link: Link) -> None:
        mood = _chance.random()
        if link_kind == "tcp" and mood < 0.03:
            link.reset()
            return
        payload = await link.message()
        await asyncio.sleep(_chance.choice((0, 0, 0.001, 0.01)))
        if mood < 0.06:
            return
        reply = REPLIES.get(payload, TO_PROBES)
        if mood < 0.2 and link_kind == "tcp":
            raw = len(reply).to_bytes(4, "big") + reply
            cut = _chance.randrange(len(raw))
            await link.write(raw[:cut])
            await asyncio.sleep(0.001)
            if mood < 0.1:
                return
            await link.write(raw[cut:])
        else:
            await link.reply(reply)
        await link.hold()

    return script


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[Daemon, ssl.SSLContext]]:
    """Two workers, by TLS and without, with three KDCs by TCP and by UDP; no limits are in the way."""
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("127.0.0.1")
    kdcs = [FakeKdcThread(tcp=moody("tcp"), udp=moody("udp")) for _ in range(3)]
    with kdcs[0], kdcs[1], kdcs[2]:
        names = ", ".join(
            f'"{scheme}://127.0.0.1:{kdc.port}"'
            for kdc, scheme in zip(kdcs, ("tcp", "tcp", "udp"), strict=True)
        )
        text = f"""
            [[listen]]
            address = "127.0.0.1:0"
            [[listen]]
            address = "127.0.0.1:0"
            tls = false
            plain_http_anywhere = true
            [tls]
            certificate = "{pair.certificate}"
            key = "{pair.key}"
            [realms."EXAMPLE.COM"]
            kdc = [{names}]
            [process]
            workers = 2
            control = ""
            [guard.rates]
            mode = "off"
            [log.levels]
            exchange = "warning"
            kdc = "error"
        """
        with Daemon(tmp_path / "daemon", text) as running:
            yield running, ssl.create_default_context(cafile=str(authority.certificate))


async def read_body(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length:")[2].split()[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def be_client(port: int, tls: ssl.SSLContext | None, seen: Counter[str]) -> None:
    chance = random.Random(_chance.random())
    answered = 0
    while answered < REQUESTS:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            for _ in range(chance.randrange(1, 12)):
                message, reply = chance.choice(MESSAGES)
                raw = post(envelope(message))
                cut = chance.randrange(len(raw))
                writer.write(raw[:cut])
                if chance.random() < 0.3:
                    await asyncio.sleep(0.001)
                writer.write(raw[cut:])
                if chance.random() < 0.1:
                    await asyncio.sleep(chance.choice((0, 0.001, 0.003)))
                    seen["left"] += 1
                    break
                status, body = await read_body(reader)
                answered += 1
                seen[str(status)] += 1
                if status == 200 and body != envelope(reply, realm=None):
                    seen["mixed up"] += 1
        finally:
            writer.transport.abort()


async def run_clients(ports: Sequence[int], tls: ssl.SSLContext) -> Counter[str]:
    seen: Counter[str] = Counter()
    async with asyncio.timeout(6 * PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            by_tls = number % 2 == 0
            tasks.create_task(be_client(ports[0 if by_tls else 1], tls if by_tls else None, seen))
    return seen


def test_every_client_gets_the_reply_to_its_own_request(daemon: tuple[Daemon, ssl.SSLContext]) -> None:
    running, tls = daemon
    seen = asyncio.run(run_clients(running.ports, tls))
    assert seen["mixed up"] == 0
    assert seen["200"] > CLIENTS * REQUESTS * 3 / 4, seen
    assert seen["left"] > CLIENTS
    assert not [line for line in running.lines if "bug" in line]
