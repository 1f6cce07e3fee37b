"""The admin listener's answers and bounds."""

import asyncio
import contextlib
import datetime
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import DatedItem, DatedKind
from kkdcpd.frontends.admin import CONNECTIONS, HTTP
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import make_metrics
from kkdcpd.values import MessageKind, Outcome, RequestResult
from tests.frontends.inside import Talk, listening
from tests.support.admin import PLAIN, running_admin

SETTINGS = f'{PLAIN}[realms."EXAMPLE.COM"]\nkdc = ["tcp://192.0.2.1"]\n'
CERTIFICATE = DatedItem(
    kind=DatedKind.SERVER,
    key="tls.certificate",
    path=Path("/etc/kkdcpd/tls/certificate.pem"),
    subject="CN=kdc.example.com",
    names=("dns:kdc.example.com",),
    start=datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    end=datetime.datetime(9999, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
)
LABELS = f'{{certificate="{CERTIFICATE.path}",kind="server",subject="CN=kdc.example.com"}}'


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    metrics = make_metrics(2)
    metrics.take_row(1)
    served = RequestResult(outcome=Outcome.ANSWERED, realm="EXAMPLE.COM")
    Counters(metrics.row(1)).request_ended(served, MessageKind.AS_REQ, 0.1)
    async with (
        listening() as listener,
        running_admin(SETTINGS, listener, metrics, dated=(CERTIFICATE,)),
    ):
        yield listener


async def ask(
    listener: Listener, line: str, *headers: str, body: str = "", host: str = "127.0.0.1:9088"
) -> tuple[int, str]:
    async with Talk.to(listener) as talk:
        await talk.send("\r\n".join((f"{line} HTTP/1.1", f"Host: {host}", *headers, "", body)).encode())
        status, answer = await talk.response()
    return status, answer.decode()


async def test_metrics_are_those_of_all_processes(listener: Listener) -> None:
    status, text = await ask(listener, "GET /metrics")
    assert status == 200
    lines = text.splitlines()
    assert 'kkdcpd_requests_total{kind="AS_REQ",outcome="answered",realm="EXAMPLE.COM"} 1.0' in lines
    assert "kkdcpd_workers 2.0" in lines
    (expiry,) = [line for line in lines if line.startswith("kkdcpd_certificate_expiry_timestamp_seconds{")]
    assert expiry.startswith(f"kkdcpd_certificate_expiry_timestamp_seconds{LABELS} ")
    assert CERTIFICATE.end
    assert float(expiry.split()[1]) == CERTIFICATE.end.timestamp()
    assert f"kkdcpd_certificate_valid{LABELS} 1.0" in lines


async def test_format_is_agreed_on(listener: Listener) -> None:
    _, text = await ask(listener, "GET /metrics", "Accept: application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize(("path", "text"), [("/livez", "alive\n"), ("/readyz", "ready\n")])
async def test_health_is_a_word(listener: Listener, path: str, text: str) -> None:
    assert await ask(listener, f"GET {path}") == (200, text)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:9088", "[::1]:9088", "192.0.2.1", ""])
async def test_it_is_asked_by_an_address(listener: Listener, host: str) -> None:
    assert (await ask(listener, "GET /livez", host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["rebound.example", "localhost.example:9088", "127.0.0.1.example", "[x", "a:b"]
)
async def test_name_that_may_be_a_stranger_s_is_not_answered(listener: Listener, host: str) -> None:
    status, text = await ask(listener, "GET /status", host=host)
    assert status == 421
    assert "EXAMPLE.COM" not in text


async def test_names_are_taken_where_anybody_may_connect() -> None:
    settings = f"{SETTINGS}[admin]\nanywhere = true\n"
    async with listening() as listener, running_admin(settings, listener, make_metrics(1)):
        assert (await ask(listener, "GET /livez", host="kdc.example.com"))[0] == 200


async def test_status_is_json(listener: Listener) -> None:
    status, text = await ask(listener, "GET /status")
    logged: dict[str, Any] = json.loads(text)
    assert (status, logged["ready"], logged["workers"]) == (200, True, {"ready": 2, "wanted": 2})
    (certificate,) = logged["certificates"]
    assert certificate.pop("seconds_left") > 0
    assert certificate == {
        "setting": "tls.certificate",
        "file": str(CERTIFICATE.path),
        "kind": "server",
        "subject": "CN=kdc.example.com",
        "names": ["dns:kdc.example.com"],
        "begins": "2020-01-02T03:04:05Z",
        "expires": "9999-01-02T03:04:05Z",
        "valid": True,
        "problem": None,
    }


async def test_head_has_no_body(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head, _, body = (await talk.rest()).partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 200 "), body) == (True, b"")
    assert b"\r\nServer: kkdcpd\r\n" in head


@pytest.mark.parametrize("path", ["/", "/metrics/", "/METRICS", "/KdcProxy", "/status/../metrics"])
async def test_other_paths_are_not_found(listener: Listener, path: str) -> None:
    status, text = await ask(listener, f"GET {path}")
    assert (status, text) == (404, "the pages are /metrics, /livez, /readyz, /status\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_not_allowed(listener: Listener, method: str) -> None:
    assert await ask(listener, f"{method} /metrics") == (405, "use GET or HEAD\n")


async def test_body_is_of_no_use(listener: Listener) -> None:
    assert (await ask(listener, "GET /livez", "Content-Length: 5", body="hello"))[0] == 200


@pytest.mark.parametrize("raw", [b"hello\r\n\r\n", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n"])
async def test_what_is_no_http_is_answered_and_closed(listener: Listener, raw: bytes) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(raw)
        assert await talk.response() == (400, b"malformed HTTP\n")
        assert await talk.rest() == b""


async def test_connection_is_kept_for_the_next_scrape(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        for _ in range(3):
            await talk.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await talk.response() == (200, b"alive\n")


async def test_connections_have_a_bound(listener: Listener) -> None:
    async with contextlib.AsyncExitStack() as stack:
        hosts = [f"127.0.0.{2 + number // CONNECTIONS.per_client}" for number in range(CONNECTIONS.maximum)]
        talks = [await stack.enter_async_context(Talk.to(listener, host=host)) for host in hosts]
        await talks[-1].send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await talks[-1].response())[0] == 200
        one_more = await stack.enter_async_context(Talk.to(listener))
        assert await one_more.rest() == b""


async def test_no_client_keeps_others_out(listener: Listener) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CONNECTIONS.maximum):
            talk = await stack.enter_async_context(Talk.to(listener, host="127.0.0.2"))
            await talk.send(b"GET /livez HT")
        assert await ask(listener, "GET /livez") == (200, "alive\n")


async def test_head_has_little_time(listener: Listener) -> None:
    async with Talk.to(listener) as talk, asyncio.timeout(HTTP.head_timeout + 2):
        await talk.send(b"GET /livez HT")
        assert await talk.rest() == b""


async def test_stop_ends_idle_connections_at_once() -> None:
    async with listening() as listener, contextlib.AsyncExitStack() as stack:
        async with running_admin(SETTINGS, listener, make_metrics(1)):
            talk = await stack.enter_async_context(Talk.to(listener))
            await talk.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await talk.response()
        assert await talk.rest() == b""


IDLE_CONNECTIONS = 80
ONE_REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("is_unix", [False, True])
@pytest.mark.parametrize(
    ("raw", "has_response"), [(b"", False), (b"GET /livez HTTP/1.1\r\nX:", False), (ONE_REQUEST, True)]
)
async def test_waiting_connections_make_room_for_a_health_check(
    tmp_path: Path, raw: bytes, *, has_response: bool, is_unix: bool
) -> None:
    """More than there may be, of one local client, and none of them has reached its deadline."""
    assert CONNECTIONS.maximum < IDLE_CONNECTIONS
    async with (
        listening(unix_path=tmp_path / "admin.sock" if is_unix else None) as listener,
        running_admin(SETTINGS, listener, make_metrics(1)),
        contextlib.AsyncExitStack() as stack,
    ):
        waiting = []
        for _ in range(IDLE_CONNECTIONS):
            waiting.append(await stack.enter_async_context(Talk.to(listener)))
            await waiting[-1].send(raw)
            if has_response:
                assert (await waiting[-1].response())[0] == 200
        for _ in range(3):
            assert (await ask(listener, "GET /livez"))[0] == 200
        # The oldest had to go, the youngest are still there.
        assert await waiting[0].rest() == b""
        if not raw or has_response:
            await waiting[-1].send(ONE_REQUEST)
            assert (await waiting[-1].response())[0] == 200
