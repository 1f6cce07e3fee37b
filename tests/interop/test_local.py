"""The local way in with real programs that cannot use a KDC proxy: MIT's, Heimdal's and Java's.

The servers of the realm are real. Their replies to programs take as long as the test wants, and the test
counts the messages at the sockets of the servers.
"""

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.messages import classify_bare
from kkdcpd.values import MessageKind
from lab.client import KerberosClient, RealmServers, krb5_conf
from lab.heimdal import HeimdalClient
from lab.program import Completed, environment, run
from lab.realm import MitRealm, Principal, oversized_tickets
from tests.frontends.local.running import Local, config_for, fields_of, running_local
from tests.interop.conftest import PASSWORD, REALM, SERVICE
from tests.support.fake_kdc import FakeKdc, Link, Script
from tests.support.messages import prefixed

USERS = ("mit", "mit-changer", "heimdal", "heimdal-changer", "java")
NEW_PASSWORD = "Correct horse 2"
DELAYS = (1.2, 2.5, 6.0, 12.0)
LOGIN = Path(__file__).parent / "java" / "Login.java"
PROGRAM_SECONDS = 90.0

JAVA_TIMEOUT = "kdc_timeout = 5s"
"""Java then sends a copy from a new port every five seconds, three times."""


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    users = [Principal(name=user, password=PASSWORD, options=("+requires_preauth",)) for user in USERS]
    services = [Principal(name=SERVICE)]
    with MitRealm(tmp_path_factory.mktemp("realm"), name=REALM, principals=[*users, *services]) as realm:
        yield realm


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "kkdcpd")
    return caplog


@dataclass(slots=True, kw_only=True)
class Servers:
    """The sockets in front of the real servers, and the messages that have arrived there, without probes.

    `delay` is the time that a reply takes if the message must not be sent twice. The password changers'
    log-ons take none, so that only the change itself is slow.
    """

    delay: float
    messages: Counter[bytes]

    @property
    def sent_once(self) -> list[int]:
        """How often each message has arrived that must not be sent twice."""
        return [count for message, count in self.messages.items() if _is_sent_once(message)]

    def relay_to(self, port: int) -> Script:
        """Return a script that takes the time, and then lets the real server answer."""

        async def script(link: Link) -> None:
            payload = await link.message()
            if not _is_probe(payload):
                self.messages[payload] += 1
                if _is_sent_once(payload) and not _is_log_on_of_a_changer(payload):
                    await asyncio.sleep(self.delay)
            await link.reply(await _ask(port, payload))
            await link.hold()

        return script


async def _ask(port: int, payload: bytes) -> bytes:
    """Ask a real server from another address than the programs have: it sees the proxy's address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
    with contextlib.closing(writer):
        writer.write(prefixed(payload))
        return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def _is_probe(payload: bytes) -> bool:
    return _cname(payload).startswith("krbtgt/")


def _is_log_on_of_a_changer(payload: bytes) -> bool:
    return _cname(payload).endswith("-changer")


def _cname(payload: bytes) -> str:
    with contextlib.suppress(MalformedError):
        return str(classify_bare(prefixed(payload)).cname)
    return ""


def _is_sent_once(payload: bytes) -> bool:
    request = classify_bare(prefixed(payload))
    return request.kind is MessageKind.KPASSWD_REQ or 2 in request.padata_types


@contextlib.asynccontextmanager
async def in_front_of(
    realm: MitRealm, directory: Path, *, delay: float = 0.0, **options: Any
) -> AsyncIterator[tuple[Local, Servers]]:
    servers = Servers(delay=delay, messages=Counter())
    kpasswd_port = int(realm.kpasswd_endpoint.rpartition(":")[2])
    async with (
        FakeKdc(tcp=servers.relay_to(realm.kdc.port)) as kdc,
        FakeKdc(tcp=servers.relay_to(kpasswd_port)) as kpasswd,
        running_local(directory, config_for(kdc.port, kpasswd=kpasswd.port, name=REALM), **options) as local,
    ):
        yield local, servers


T = TypeVar("T")


@contextlib.contextmanager
def in_a_thread(context: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Run an asynchronous context in an event loop of its own, while the test runs programs."""
    entered: Future[T] = Future()
    may_end: Future[None] = Future()

    async def run_context() -> None:
        try:
            async with context as value:
                entered.set_result(value)
                await asyncio.wrap_future(may_end)
        except BaseException as error:
            if not entered.done():
                entered.set_exception(error)
            raise

    def run_loop() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_context())

    with ThreadPoolExecutor(1, "local way in") as thread:
        ended = thread.submit(run_loop)
        try:
            yield entered.result(PROGRAM_SECONDS)
        finally:
            may_end.set_result(None)
        ended.result()


def at(local: Local) -> Mapping[str, RealmServers]:
    """Return what a program's krb5.conf says of the realm."""
    return {REALM: RealmServers.behind(f"127.0.0.1:{local.port}")}


def java(directory: Path, local: Local, user: str, *libdefaults: str) -> Completed:
    """Log in by Java, and get a ticket for the service."""
    directory.mkdir()
    config = directory / "krb5.conf"
    config.write_text(krb5_conf(at(local), libdefaults=libdefaults))
    service = SERVICE.replace("/", "@")
    return run(
        *(
            "java",
            f"-Djava.security.krb5.conf={config}",
            "-XX:TieredStopAtLevel=1",
            str(LOGIN),
            user,
            service,
        ),
        environment=environment(directory),
        stdin=f"{PASSWORD}\n",
        timeout=PROGRAM_SECONDS,
    )


def side_by_side(*programs: Callable[[], Completed]) -> list[Completed]:
    """Run programs at the same time."""
    with ThreadPoolExecutor(len(programs)) as threads:
        return list(threads.map(lambda program: program(), programs))


@pytest.mark.parametrize("delay", DELAYS)
def test_slow_kdc_gets_each_proof_once_and_every_program_succeeds(
    realm: MitRealm, heimdal_root: Path, tmp_path: Path, log: pytest.LogCaptureFixture, delay: float
) -> None:
    with in_a_thread(in_front_of(realm, tmp_path, delay=delay)) as (local, servers):
        mit = KerberosClient(tmp_path / "mit", at(local))
        mit_changer = KerberosClient(tmp_path / "mit-changer", at(local))
        heimdal = HeimdalClient(tmp_path / "heimdal", heimdal_root, at(local))
        changer = HeimdalClient(tmp_path / "heimdal-changer", heimdal_root, at(local))
        results = side_by_side(
            lambda: mit.kinit("mit", PASSWORD, timeout=PROGRAM_SECONDS),
            lambda: heimdal.kinit("heimdal", PASSWORD, timeout=PROGRAM_SECONDS),
            lambda: java(tmp_path / "java", local, "java", JAVA_TIMEOUT),
            lambda: mit_changer.kpasswd("mit-changer", PASSWORD, NEW_PASSWORD, timeout=PROGRAM_SECONDS),
            lambda: changer.kpasswd("heimdal-changer", PASSWORD, NEW_PASSWORD, timeout=PROGRAM_SECONDS),
        )
        outputs = [result.output for result in results]
        assert [result.exit_code for result in results] == [0] * len(results), outputs
        assert "has a ticket" in outputs[2]
        assert "Password changed." in outputs[3]
        assert "Success" in outputs[4]
        # Two log-ons and Java's; and a log-on and a change of each changer.
        assert servers.sent_once == [1] * 7
    lines = fields_of(log)
    assert {line["outcome"] for line in lines} == {"answered"}
    if delay > 2:  # Heimdal's kpasswd sends a newer request after two seconds, and MIT a copy after one
        assert sum(line.get("copies", 0) for line in lines) >= 2
    for user in ("mit-changer", "heimdal-changer"):
        realm.kadmin("cpw", "-pw", PASSWORD, user)


def test_programs_get_tickets_for_services(realm: MitRealm, heimdal_root: Path, tmp_path: Path) -> None:
    with in_a_thread(in_front_of(realm, tmp_path)) as (local, servers):
        mit = KerberosClient(tmp_path / "mit", at(local))
        heimdal = HeimdalClient(tmp_path / "heimdal", heimdal_root, at(local))
        side_by_side(lambda: mit.kinit("mit", PASSWORD), lambda: heimdal.kinit("heimdal", PASSWORD))
        results = side_by_side(lambda: mit.kvno(SERVICE), lambda: heimdal.kgetcred(SERVICE))
        assert [result.exit_code for result in results] == [0, 0], results
        assert set(servers.messages.values()) == {1}


def test_heimdals_own_http_serves_heimdals_kinit(
    realm: MitRealm, heimdal_root: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    with in_a_thread(in_front_of(realm, tmp_path, heimdal_http=True)) as (local, _):
        servers = RealmServers(kdc=(f"http/127.0.0.1:{local.port}",))
        client = HeimdalClient(tmp_path / "heimdal", heimdal_root, {REALM: servers})
        client.kinit("heimdal", PASSWORD).expect_ok()
        client.kgetcred(SERVICE).expect_ok()
    assert [line["reply"] for line in fields_of(log)] == ["KRB_ERROR", "AS_REP", "TGS_REP"]


def test_wrong_password_is_the_error_of_the_kdc(realm: MitRealm, heimdal_root: Path, tmp_path: Path) -> None:
    with in_a_thread(in_front_of(realm, tmp_path)) as (local, _):
        mit = KerberosClient(tmp_path / "mit", at(local))
        heimdal = HeimdalClient(tmp_path / "heimdal", heimdal_root, at(local))
        first, second = side_by_side(
            lambda: mit.kinit("mit", "wrong"), lambda: heimdal.kinit("heimdal", "wrong")
        )
        assert "Password incorrect" in first.output
        assert "Password incorrect" in second.output


def test_ticket_that_is_too_big_for_a_datagram_reaches_the_program_by_tcp(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    """The copy by TCP gets the kept reply: the KDC has seen one message."""
    directory = tmp_path / "realm"
    alice = Principal(name="alice", password=PASSWORD, options=("+requires_preauth",))
    spake = "spake_preauth_groups = edwards25519"
    with (
        MitRealm(directory, name=REALM, principals=[alice], options=oversized_tickets()) as realm,
        in_a_thread(in_front_of(realm, tmp_path)) as (local, servers),
    ):
        client = KerberosClient(
            tmp_path / "mit", at(local), libdefaults=(spake, "udp_preference_limit = 32700")
        )
        trace = tmp_path / "trace"
        client.environment["KRB5_TRACE"] = str(trace)
        (result,) = side_by_side(lambda: client.kinit("alice", PASSWORD))
        assert result.is_ok, result.output
        assert set(servers.messages.values()) == {1}
    assert "Request or response is too big for UDP; retrying with TCP" in trace.read_text()
    assert {line["outcome"] for line in fields_of(log)} == {"answered"}


def test_programs_without_another_kdc_end_at_once_and_show_why(heimdal_root: Path, tmp_path: Path) -> None:
    """MIT's kinit shows no text of a KRB-ERROR, whatever its code."""
    with in_a_thread(running_local(tmp_path, config_for(1, name=REALM), has_next_kdc=False)) as local:
        mit = KerberosClient(tmp_path / "mit", at(local))
        heimdal = HeimdalClient(tmp_path / "heimdal", heimdal_root, at(local))
        results = side_by_side(
            lambda: mit.kinit("mit", PASSWORD),
            lambda: heimdal.kinit("heimdal", PASSWORD),
            lambda: java(tmp_path / "java", local, "java"),
        )
    assert "Generic error (see e-text)" in results[0].output
    assert [result.exit_code for result in results] == [1, 1, 1]
    for result in results[1:]:
        assert "can't reach any server of the Kerberos realm" in result.output
        assert re.search(r"\(kkdcpd, request [0-9a-f]{8}\)", result.output)


def test_program_with_another_kdc_goes_on_to_it(realm: MitRealm, tmp_path: Path) -> None:
    with in_a_thread(running_local(tmp_path, config_for(1, name=REALM))) as local:
        kdcs = (f"127.0.0.1:{local.port}", *realm.kdc.endpoints)
        client = KerberosClient(tmp_path / "mit", {REALM: RealmServers(kdc=kdcs)})
        assert client.kinit("mit", PASSWORD).expect_ok().seconds < 10
