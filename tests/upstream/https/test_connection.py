"""One connection to a KDC proxy, and the bytes that have left over it. test_attempt.py has the rest."""

import asyncio

from kkdcpd.config import HttpsConfig
from kkdcpd.upstream.https.client_tls import build_client_context
from kkdcpd.upstream.https.connection import Connection, Failure, Setup
from kkdcpd.upstream.https.web_proxy import WebProxies
from kkdcpd.upstream.sockets import Readiness
from kkdcpd.values import FailureReason
from lab.authority import CertificateFiles
from tests.support import messages
from tests.support.fake_kdc_proxy import FakeKdcProxy, answer, hold
from tests.support.upstream import request_of

REQUEST = request_of(messages.as_req())


class User:
    """Records the events of a connection."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.has_response = asyncio.Event()
        self.responses: list[object] = []
        self.failures: list[Failure] = []

    def opened(self) -> None:
        self.is_open.set()

    def answered(self, response: object) -> None:
        self.responses.append(response)
        self.has_response.set()

    def ended(self, failure: Failure) -> None:
        self.failures.append(failure)


async def open_connection(proxy: FakeKdcProxy, user: User, options: HttpsConfig) -> Connection:
    setup = Setup(
        readiness=Readiness(),
        sources={},
        context=build_client_context(options),
        pins={},
        web_proxies=WebProxies(),
        max_reply_bytes=65536,
    )
    connection = Connection(proxy.endpoint, setup, user, None)
    connection.open()
    async with asyncio.timeout(10):
        await user.is_open.wait()
    return connection


async def test_bytes_of_the_handshake_are_no_bytes_of_a_message(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    user = User()
    async with FakeKdcProxy(files, script=answer(messages.as_rep())) as proxy:
        connection = await open_connection(proxy, user, options)
        assert (connection.is_usable, connection.has_sent) == (True, False)
        connection.send(REQUEST)
        assert (connection.is_usable, connection.has_sent) == (False, True)
        async with asyncio.timeout(10):
            await user.has_response.wait()
        assert connection.is_usable
        assert connection.session
        connection.close()


async def test_message_on_a_connection_that_is_gone_has_not_left(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    user = User()
    async with FakeKdcProxy(files, script=hold()) as proxy:
        connection = await open_connection(proxy, user, options)
        assert connection._stream
        connection._stream._socket.shutdown(1)  # as if the kernel had lost the connection
        connection.send(REQUEST)
        assert [failure.reason for failure in user.failures] == [FailureReason.RESET]
        assert not connection.has_sent


async def test_closed_connection_has_no_events(options: HttpsConfig, files: CertificateFiles) -> None:
    user = User()
    async with FakeKdcProxy(files, script=hold()) as proxy:
        connection = await open_connection(proxy, user, options)
        connection.send(REQUEST)
        await proxy.wait_for_requests()
        connection.close()
        connection.close()
        proxy.stop()
        await asyncio.sleep(0)
        assert (user.responses, user.failures) == ([], [])
