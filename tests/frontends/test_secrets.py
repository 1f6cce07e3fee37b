"""No secret of a client is in the log: markers at every position, and thousands of mutations."""

import asyncio
import base64
import random
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab.authority import Authority
from lab.daemon import is_exchange
from tests.frontends.site import Site, parse_line, run_site
from tests.support.http_client import post
from tests.support.messages import as_req, envelope, prefixed, tgs_req

MUTATIONS = 2600
"""For each format of the log: 5,200 in all."""

AT_A_TIME = 48
SEED = 20261128
RUN = 6
"""Bytes of a marker that may not stand in a row."""

TEXT = b"qZ7wXk3vJ9yTgH5mRb2NdLs8"
BINARY = bytes((0x80 | (37 * number + 11) % 128) for number in range(24))
MARKERS = (TEXT, BINARY)
PATIENCE_SECONDS = 20.0


@pytest.fixture(scope="module", params=["text", "json"])
def secret_site(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    directory: Path = tmp_path_factory.mktemp(f"secrets-{request.param}")
    tokens = directory / "tokens"
    tokens.write_text(f"{TEXT.decode()}\n")
    tokens.chmod(0o600)
    settings = f"""
        [log]
        level = "debug"
        format = "{request.param}"
        principals = "omitted"
        [guard.rates]
        mode = "off"
        [realms."TOKEN.TEST"]
        kdc = ["tcp://127.0.0.1:1"]
        tokens_file = "{tokens}"
    """
    with run_site(directory, authority, settings) as running:
        yield running


def templates() -> Sequence[bytes]:
    """Requests with markers in every place that is a secret; some are malformed as they are."""
    message = as_req(padata=[(2, TEXT + BINARY), (136, BINARY + TEXT)])
    body = envelope(message)
    path = f"/KdcProxy/{TEXT.decode()}"
    headers = (f"Authorization: Bearer {TEXT.decode()}", f"Cookie: session={TEXT.decode()}; a=b")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:50], body[50:], b""))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers[0]}\r\n{headers[1]}\r\n"
    return (
        post(body, *headers, path=path),
        post(body, *headers, path=path, version="HTTP/1.0"),
        post(envelope(tgs_req(padata=[(129, TEXT + BINARY)])), *headers),
        f"{head}\r\n".encode() + body,
        f"{head}Content-Length: 20\r\n\r\n".encode() + body,
        f"{head}Content-Length: 99999\r\n\r\n".encode() + body,
        f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks,
        f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\n".encode() + body,
        f"{head}Transfer-Encoding: {TEXT.decode()}\r\n\r\n".encode() + body,
        f"{head}Content-Length: {TEXT.decode()}\r\n\r\n".encode() + body,
        post(body, *headers) + TEXT + b"\r\n\r\n",
        post(body, *headers) * 2 + BINARY,
        post(body, *headers, path=f"https://localhost:99999{path}"),
        post(body, *headers, path=f"https://[::1{path}"),
        post(body, *headers, path=f"https://user:{TEXT.decode()}@xn--0a{path}?a={TEXT.decode()}#b"),
        post(body, *headers, path=f"/{path}/%2f{TEXT.decode()}//"),
        post(body, *headers, path=path.replace("q", "%71")),
        post(body, *headers, path=f"*/{TEXT.decode()}", method="OPTIONS"),
        post(body, *headers, path=f"{TEXT.decode()}:443", method="CONNECT"),
        post(body, *headers, path=path, method=TEXT.decode()),
        post(body, "Host: x", f"Host: {TEXT.decode()}", f"X{TEXT.decode()} : a"),
        message,
        prefixed(message),
        body,
    )


SPICES = (
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"\n",
    b" ",
    b"%",
    b"/",
    b"://",
    b"?",
    b":",
    b"\xff",
    b"HTTP/9.9",
    b"0",
)


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """Change a request in a few places, more of them in its head."""
    data = bytearray(raw)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        end = min(len(data), chance.choice((60, 250, len(data))))
        at = chance.randrange(end)
        length = chance.choice((1, 2, 5, 20))
        match chance.randrange(6):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = chance.choice(SPICES)
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                data[at : at + length] = chance.choice(SPICES)
            case _:
                other = chance.randrange(len(data))
                data[at:at] = data[other : other + length]
        if not data:
            break
    return bytes(data)


async def send(port: int, raw: bytes, tls: ssl.SSLContext | None) -> None:
    """Send bytes, end our side, and read until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        writer.write(raw)
        if not tls:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS if not tls else 0.3):
            await reader.read()
    except (ConnectionError, TimeoutError, ssl.SSLError):
        return
    finally:
        writer.transport.abort()


async def send_all(site: Site) -> None:
    chance = random.Random(SEED)
    requests = list(templates())
    requests += [mutated(chance.choice(templates()), chance) for _ in range(MUTATIONS - len(requests))]
    jobs = iter(enumerate(requests))

    async def work() -> None:
        for number, raw in jobs:
            by_tls = number < 24 or number % 20 == 0
            await send(site.daemon.ports[0 if by_tls else 1], raw, site.trust if by_tls else None)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_A_TIME):
            tasks.create_task(work())


def spellings(marker: bytes) -> Iterator[bytes]:
    """Every spelling of every run of a marker that may not be in the log."""
    for start in range(len(marker) - RUN + 1):
        run = marker[start : start + RUN]
        yield run
        for text in (run.hex(), run.hex(" "), run.hex(":")):
            yield from (text.encode(), text.upper().encode())
        yield "".join(f"\\x{byte:02x}" for byte in run).encode()
        yield "".join(f"\\\\x{byte:02x}" for byte in run).encode()
        yield "".join(f"\\udc{byte:02x}" for byte in run).encode()
        yield "".join(f"\\u00{byte:02x}" for byte in run).encode()
        yield "".join(f"\\{byte:03o}" for byte in run).encode()
        yield from ("".join(f"%{byte:{form}}" for byte in run).encode() for form in ("02x", "02X"))
        yield run.decode("latin-1").encode()
        for shift in range(3):
            # Leave out the characters that depend on what stands before or after.
            encoded = base64.b64encode(bytes(shift) + run)
            yield encoded[-(-shift * 8 // 6) : (shift + RUN) * 8 // 6]
            yield base64.urlsafe_b64encode(bytes(shift) + run)[-(-shift * 8 // 6) : (shift + RUN) * 8 // 6]


def test_search_finds_a_run_in_every_encoding() -> None:
    run = TEXT[5:11]
    for text in (run, run.hex().encode(), base64.b64encode(b"ab" + run + b"c"), b"%" + run.hex("%").encode()):
        assert any(spelling in text for spelling in spellings(TEXT)), text
    assert any(spelling in repr(BINARY[3:9]).encode() for spelling in spellings(BINARY))


def test_no_run_of_a_secret_is_in_the_log(secret_site: Site) -> None:
    before = len(secret_site.daemon.lines)
    with secret_site.log() as lines:
        asyncio.run(send_all(secret_site))
        outcomes = [line["outcome"] for line in lines() if line["event"] == "exchange"]
    text = "\n".join(secret_site.daemon.lines[before:]).encode()
    assert not [spelling for marker in MARKERS for spelling in spellings(marker) if spelling in text]
    assert len(outcomes) > MUTATIONS / 2
    details = {
        parse_line(line)["detail"]
        for line in secret_site.daemon.lines[before:]
        if is_exchange(line) and "malformed_http" in line
    }
    assert len(details) > 25, details
    assert "malformed" not in details
    assert not any("bug" in line for line in secret_site.daemon.lines)
