"""Permissions for the scripts of web pages, from a real server with a KDC behind it."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from kkdcpd.config import read_config
from kkdcpd.frontends.kdc_proxy import KdcProxyFrontend
from kkdcpd.guard.guard import Guard
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.pipeline import Pipeline
from tests.frontends.inside import Talk, listening, running_acceptor
from tests.frontends.site import GOOD_BODY, REPLY_PAYLOAD
from tests.support.fake_kdc import FakeKdc, reply
from tests.support.http_client import post
from tests.support.shared import own_counts, own_table
from tests.support.upstream import running_relay

SETTINGS = """
[[listen]]
address = "127.0.0.1:0"
tls = false
[realms."EXAMPLE.COM"]
kdc = ["tcp://127.0.0.1:{port}"]
"""

PAGE = "https://desktop.example.com"
ASKS_FOR_POST = "Access-Control-Request-Method: POST"


async def responses_of(origins: tuple[str, ...], *requests: bytes) -> list[tuple[int, Mapping[str, str]]]:
    """Send the requests over one connection to a proxy with these origins; return statuses and headers."""
    async with FakeKdc(tcp=reply(REPLY_PAYLOAD)) as kdc:
        settings = SETTINGS.format(port=kdc.port)
        config = read_config(settings, source=Path("/nowhere/config.toml"))
        config = replace(config, http=replace(config.http, cors_origins=origins))
        async with running_relay(config) as relay:
            counters = Counters.discarding()
            guard = Guard(config, own_table(), own_counts(), time.monotonic)
            pipeline = Pipeline(guard=guard, relay=relay, counters=counters, config=config.guard)
            frontend = KdcProxyFrontend(config, pipeline, counters)
            async with (
                listening() as listener,
                running_acceptor(listener, make_connection=frontend.connection, counters=counters),
                Talk.to(listener) as talk,
            ):
                found = []
                for request in requests:
                    await talk.send(request)
                    found.append(await response(talk))
            await frontend.stop()
            return found


async def response(talk: Talk) -> tuple[int, Mapping[str, str]]:
    head = (await talk.read_until(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    await talk.read(int(headers["content-length"]))
    return int(head[0].split()[1]), headers


def preflight(origin: str, *headers: str) -> bytes:
    return post(b"", f"Origin: {origin}", *headers, method="OPTIONS")


async def test_script_of_a_listed_origin_may_send_and_read() -> None:
    request = post(GOOD_BODY, f"Origin: {PAGE}")
    asked, answered = await responses_of((PAGE,), preflight(PAGE, ASKS_FOR_POST), request)
    assert asked[0] == answered[0] == 200
    assert asked[1]["access-control-allow-origin"] == answered[1]["access-control-allow-origin"] == PAGE
    assert asked[1]["access-control-allow-methods"] == "post"
    assert asked[1]["access-control-allow-headers"] == "content-type"
    assert "retry-after" in answered[1]["access-control-expose-headers"]
    assert asked[1]["vary"] == answered[1]["vary"] == "origin"
    assert "access-control-allow-credentials" not in asked[1]


async def test_script_of_a_listed_origin_may_read_a_refusal() -> None:
    ((status, headers),) = await responses_of((PAGE,), post(b"garbage", f"Origin: {PAGE}"))
    assert (status, headers["access-control-allow-origin"]) == (400, PAGE)


@pytest.mark.parametrize(
    "origin",
    ["https://other.example.com", "http://desktop.example.com", f"{PAGE}:444", f"{PAGE}.test", "null", ""],
)
async def test_script_of_another_origin_may_not_read(origin: str) -> None:
    ((status, answered),) = await responses_of((PAGE,), post(GOOD_BODY, f"Origin: {origin}"))
    assert (status, answered["vary"]) == (200, "origin")
    ((status, asked),) = await responses_of((PAGE,), preflight(origin, ASKS_FOR_POST))
    assert status == 405
    assert not [name for name in (*answered, *asked) if name.startswith("access-control-")]


@pytest.mark.parametrize("asks", ["Access-Control-Request-Method: PUT", "Accept: */*"])
async def test_only_a_post_is_permitted(asks: str) -> None:
    ((status, _),) = await responses_of((PAGE,), preflight(PAGE, asks))
    assert status == 405


async def test_no_origin_is_permitted_by_default() -> None:
    ((status, answered),) = await responses_of((), post(GOOD_BODY, f"Origin: {PAGE}"))
    ((refused, asked),) = await responses_of((), preflight(PAGE, ASKS_FOR_POST))
    assert (status, refused) == (200, 405)
    assert not [name for name in (*answered, *asked) if name.startswith(("access-control-", "vary"))]
