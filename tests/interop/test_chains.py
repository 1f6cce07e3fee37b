"""Real clients, a kkdcpd that forwards to a real kkdcpd or a real kdcproxy, and a real KDC behind it."""

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon
from lab.ports import free_port
from lab.program import Program
from lab.realm import MitRealm
from tests.interop.conftest import PASSWORD, REALM, SERVICE, FrontMaker, Site, Witness, ended_exchanges
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import FakeKdcThread
from tests.support.http_client import HttpClient, Response, post

PATIENT = "[upstream]\nhedge_delay = 15.0"
PATIENCE_SECONDS = 20.0
PROOF = messages.as_req(padata=[(2, b"\x30\x00"), (149, b"")], realm=REALM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """A kkdcpd that forwards to KDC proxies. `client` makes clients that know only this kkdcpd."""

    daemon: Daemon
    authority: Authority
    client: Callable[[], KerberosClient]

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.certificate))

    def all_exchanges(self) -> list[dict[str, str]]:
        """Return the exchange lines of all exchanges that have ended, as fields."""
        return ended_exchanges(self.daemon, self.trust)

    def ask(self, payload: bytes, *headers: str) -> Response:
        with HttpClient(self.daemon.ports[0], tls=self.trust) as client:
            return client.ask(post(messages.envelope(payload, REALM), *headers))


OuterMaker = Callable[..., Outer]


@contextmanager
def _outers(parent: Path) -> Iterator[OuterMaker]:
    """Start a kkdcpd in front of KDC proxies whose certificates are of the authority `trusted`."""
    with ExitStack() as running:

        def make(trusted: Path, *urls: str, sections: str = "", **environment: str) -> Outer:
            directory = parent / f"outer-{len(list(parent.glob('outer-*')))}"
            authority = Authority(directory / "tls")
            pair = authority.issue("localhost", "127.0.0.1")
            config = f"""
                [[listen]]
                address = "127.0.0.1:0"
                [tls]
                certificate = "{pair.certificate}"
                key = "{pair.key}"
                [realms."{REALM}"]
                kdc = {json.dumps(urls)}
                kpasswd = {json.dumps(urls)}
                {sections}
            """
            variables = {"SSL_CERT_FILE": str(trusted), **environment}
            daemon = running.enter_context(Daemon(directory / "kkdcpd", config, environment=variables))
            url = f"https://localhost:{daemon.ports[0]}/KdcProxy"
            names = iter(range(1000))

            def client() -> KerberosClient:
                return KerberosClient(
                    directory / f"client-{next(names)}",
                    {REALM: RealmServers.behind(url)},
                    http_anchors=authority.certificate,
                )

            return Outer(daemon=daemon, authority=authority, client=client)

        yield make


@pytest.fixture(scope="module")
def make_lasting_outer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OuterMaker]:
    with _outers(tmp_path_factory.mktemp("outers")) as make:
        yield make


@pytest.fixture
def make_outer(make_front: FrontMaker, tmp_path: Path) -> Iterator[OuterMaker]:
    """Make an outer kkdcpd that ends before the fronts, which wait for its idle connections."""
    del make_front
    with _outers(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def kdcproxy(guarded: MitRealm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a real kdcproxy in front of the realm, and the certificate of its authority."""
    directory = tmp_path_factory.mktemp("kdcproxy")
    authority = Authority(directory)
    pair = authority.issue("localhost")
    config = directory / "kdcproxy.conf"
    config.write_text(f"""\
[global]
use_dns = false
[{REALM}]
kerberos = kerberos+tcp://{guarded.kdc.endpoints[0]}
kpasswd = kpasswd+tcp://{guarded.kpasswd_endpoint}
""")
    environment = {**os.environ, "KDCPROXY_CONFIG": str(config)}
    command = (sys.executable, "-m", "tests.support.kdcproxy_server", str(pair.certificate), str(pair.key))
    with Program("kdcproxy", *command, environment=environment) as program:
        port = program.wait_for_line(lambda line: line.startswith("ready ")).split()[1]
        yield f"https://localhost:{port}/KdcProxy", authority.certificate


@pytest.fixture(scope="module")
def inner(guarded: MitRealm, make_lasting_front: FrontMaker) -> Site:
    return make_lasting_front(guarded)


@pytest.fixture(scope="module")
def behind_kkdcpd(inner: Site, make_lasting_outer: OuterMaker) -> Outer:
    return make_lasting_outer(inner.authority.certificate, inner.url)


@pytest.fixture(scope="module")
def behind_kdcproxy(kdcproxy: tuple[str, Path], make_lasting_outer: OuterMaker) -> Outer:
    return make_lasting_outer(kdcproxy[1], kdcproxy[0])


@pytest.fixture(params=["behind_kkdcpd", "behind_kdcproxy"])
def outer(request: pytest.FixtureRequest) -> Outer:
    made: Outer = request.getfixturevalue(request.param)
    return made


def test_login_and_service_ticket_work_through_two_proxies(outer: Outer, guarded: MitRealm) -> None:
    witness = Witness(guarded)
    client = outer.client()
    client.kinit("alice", PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()
    assert len(witness.seen()) == 3
    outer.daemon.wait_for_line(lambda line: " kind=TGS_REQ " in line)
    assert {line["transport"] for line in outer.all_exchanges()} == {"https"}
    assert {line["outcome"] for line in outer.all_exchanges()} == {"answered"}


def test_password_change_works_through_two_proxies(outer: Outer, guarded: MitRealm) -> None:
    guarded.kadmin("addprinc", "-pw", PASSWORD, "changer")
    try:
        witness = Witness(guarded)
        outer.client().kpasswd("changer", PASSWORD, "battery staple").expect_ok()
        assert outer.client().kinit("changer", "battery staple").is_ok
        assert len(witness.password_changes()) == 1
    finally:
        guarded.kadmin("delprinc", "changer")


def test_wrong_password_is_the_kdcs_error_through_two_proxies(outer: Outer) -> None:
    assert "Password incorrect" in outer.client().kinit("bob", "wrong").output


@pytest.mark.parametrize("form", ["http", "krb_error"])
def test_refusal_of_the_inner_proxy_reaches_the_client_in_both_forms(
    form: str, guarded: MitRealm, make_front: FrontMaker, make_outer: OuterMaker
) -> None:
    policy = f'[guard]\nrefusal = "{form}"\n[policy]\ncname = "enforce"\ncname_deny = ["carol"]\n'
    refusing = make_front(guarded, sections=policy)
    outer = make_outer(refusing.authority.certificate, refusing.url)
    output = outer.client().kinit("carol", PASSWORD).output
    [first, *_] = outer.all_exchanges()
    if form == "http":
        assert "Cannot contact any KDC" in output
        assert (first["outcome"], first["status"]) == ("no_kdc_reached", "503")
        assert "proxy_refused" in first["detail"]
        assert "reason=proxy_refused status=403" in "\n".join(outer.daemon.lines)
    else:
        assert "policy" in output.lower()
        assert (first["outcome"], first["error"]) == ("answered", "12")


def test_kkdcpd_says_over_two_hops_whether_a_kdc_may_have_the_message(
    guarded: MitRealm, make_front: FrontMaker, make_outer: OuterMaker
) -> None:
    dead = f"tcp://127.0.0.1:{free_port(['127.0.0.1'])}"
    cut_off = make_front(guarded, dead)
    outer = make_outer(cut_off.authority.certificate, cut_off.url)
    response = outer.ask(PROOF)
    assert (response.status, response.headers["kdc-has-message"]) == (503, "no")


def test_proof_goes_on_to_the_next_proxy_if_the_first_reaches_no_kdc(
    inner: Site, guarded: MitRealm, make_front: FrontMaker, make_outer: OuterMaker, tmp_path: Path
) -> None:
    dead = f"tcp://127.0.0.1:{free_port(['127.0.0.1'])}"
    cut_off = make_front(guarded, dead)
    trusted = tmp_path / "both.pem"
    trusted.write_bytes(cut_off.authority.certificate.read_bytes() + inner.authority.certificate.read_bytes())
    outer = make_outer(trusted, cut_off.url, inner.url)
    response = outer.ask(PROOF)
    assert response.status == 200
    assert [line["attempts"] for line in outer.all_exchanges()] == ["2"]


def test_request_that_comes_round_is_stopped_and_no_kdc_gets_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("localhost", "127.0.0.1")
    ports = [free_port(["127.0.0.1"]), free_port(["127.0.0.1"])]
    with ExitStack() as running:
        daemons = []
        for number in range(2):
            config = f"""
                [[listen]]
                address = "127.0.0.1:{ports[number]}"
                [tls]
                certificate = "{pair.certificate}"
                key = "{pair.key}"
                [realms."{REALM}"]
                kdc = ["https://localhost:{ports[1 - number]}/KdcProxy"]
            """
            environment = {"SSL_CERT_FILE": str(authority.certificate)}
            daemon = Daemon(tmp_path / str(number), config, environment=environment)
            daemons.append(running.enter_context(daemon))
        trust = ssl.create_default_context(cafile=str(authority.certificate))
        with HttpClient(ports[0], tls=trust) as client:
            response = client.ask(post(messages.envelope(PROOF, REALM)))
        assert (response.status, response.headers["kdc-has-message"]) == (503, "no")
        daemons[0].wait_for_line(lambda line: "outcome=loop_detected" in line)
        daemons[1].wait_for_line(lambda line: "https://localhost" in line and "proxy_loop" in line)


@pytest.mark.parametrize(
    ("payload", "reply", "copies"),
    [(messages.tgs_req(realm=REALM), messages.tgs_rep(), 2), (PROOF, messages.as_rep(), 1)],
    ids=["repeatable", "sent once"],
)
def test_proxy_that_is_killed_in_the_exchange_costs_no_second_copy_of_a_proof(
    payload: bytes,
    reply: bytes,
    copies: int,
    guarded: MitRealm,
    make_front: FrontMaker,
    make_outer: OuterMaker,
) -> None:
    may_answer = asyncio.Event()
    with FakeKdcThread(tcp=fake_kdc.reply(reply, when=may_answer)) as kdc, ThreadPoolExecutor() as threads:
        url = f"tcp://127.0.0.1:{kdc.port}"
        # The first KDC proxy waits for its KDC however long it is silent, and so does the one before it.
        sites = [make_front(guarded, url, sections=PATIENT) for _ in range(2)]
        trusted = sites[0].authority.certificate.parent / "both.pem"
        trusted.write_bytes(b"".join(site.authority.certificate.read_bytes() for site in sites))
        outer = make_outer(trusted, *(site.url for site in sites), sections=PATIENT)
        asking = threads.submit(outer.ask, payload)
        kdc.wait_for_messages()
        for pid in (sites[0].daemon.pid, *sites[0].daemon.workers):
            os.kill(pid, signal.SIGKILL)
        kdc.set(may_answer)
        response = asking.result(PATIENCE_SECONDS)
        assert len(kdc.messages) == copies
    if copies == 1:
        assert (response.status, response.headers["kdc-has-message"]) == (503, "maybe")
    else:
        assert response.status == 200


def test_proxy_over_its_rate_rests_and_the_next_one_gets_every_request(
    guarded: MitRealm, make_front: FrontMaker, make_outer: OuterMaker
) -> None:
    narrow = make_front(guarded, sections="[guard.rates]\nclient_rate = 0.1\nclient_burst = 1")
    wide = make_front(guarded)
    trusted = narrow.authority.certificate.parent / "both.pem"
    trusted.write_bytes(b"".join(site.authority.certificate.read_bytes() for site in (narrow, wide)))
    outer = make_outer(trusted, narrow.url, wide.url)
    assert [outer.ask(PROOF).status for _ in range(10)] == [200] * 10
    outer.daemon.wait_for_line(lambda line: "reason=proxy_rate_limited status=429" in line)
    # One request was served, one was over the rate, and then the proxy had its rest.
    assert len(narrow.all_exchanges()) <= 3


def test_connection_between_proxies_is_used_again(behind_kkdcpd: Outer, inner: Site) -> None:
    before = inner.mark()
    client = behind_kkdcpd.client()
    client.kinit("alice", PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()
    exchanges = inner.all_exchanges(before)
    assert len(exchanges) == 3
    assert len({line["port"] for line in exchanges}) < 3
