"""Real clients and real KDCs, after a first KDC with a fault.

The fake's sockets and the logs of the real KDCs count the messages that each server received.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from kkdcpd.endpoints import KDC_TRANSPORTS, Transport
from kkdcpd.protocol.resending import is_repeatable
from lab.client import KerberosClient
from lab.dns import KnotServer
from lab.namespace import NetworkNamespace
from lab.realm import MitRealm, Principal
from tests.interop.conftest import (
    PASSWORD,
    REALM,
    SERVICE,
    FrontMaker,
    Site,
    Witness,
    relay_byte_by_byte,
)
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import DROP, REFUSE, FakeKdcThread, Link, Script, Unserved
from tests.support.http_client import HttpClient, post
from tests.support.upstream import request_of

NEW_PASSWORD = "battery staple"
TRICKLE_SECONDS = 0.1
UNAVAILABLE = fake_kdc.reply(messages.krb_error(29, realm=REALM))
# Long enough to give up a connect, short enough for a test.
IMPATIENT = """
    [upstream]
    connect_timeout = 0.5
    reach_timeout = 1.5
    reply_timeout = 1.5
    [locate]
    dns_timeout = 1
"""


def trickle() -> Script:
    """Announce a reply and send it so slowly that no proxy waits for its end."""

    async def script(link: Link) -> None:
        await link.message()
        await link.write((1000).to_bytes(4, "big"))
        while True:
            await link.write(b"x")
            await asyncio.sleep(TRICKLE_SECONDS)

    return script


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The fault of the first KDC; `takes` is whether the KDC receives messages, unlike an unreachable KDC."""

    tcp: Script | Unserved
    takes: bool = True


FAULTS: Mapping[str, Fault] = {
    "drops packets": Fault(tcp=DROP, takes=False),
    "refuses": Fault(tcp=REFUSE, takes=False),
    "is silent": Fault(tcp=fake_kdc.silent()),
    "closes": Fault(tcp=fake_kdc.close_after_message()),
    "closes at once": Fault(tcp=fake_kdc.close_at_once()),
    "resets": Fault(tcp=fake_kdc.reset_after_message()),
    "answers garbage": Fault(tcp=fake_kdc.garbage()),
    "is unavailable": Fault(tcp=UNAVAILABLE),
    "sends one byte at a time": Fault(tcp=trickle()),
    "announces 4 GiB": Fault(tcp=fake_kdc.announce(0xFFFFFFFF)),
    "streams without end": Fault(tcp=fake_kdc.flood()),
}
TAKING = [name for name, fault in FAULTS.items() if fault.takes]
ENDS = [name for name in TAKING if name != "is unavailable"]


@pytest.fixture(params=FAULTS)
def faulty(request: pytest.FixtureRequest) -> Iterator[FakeKdcThread]:
    with FakeKdcThread(tcp=FAULTS[request.param].tcp) as fake:
        yield fake


@pytest.fixture
def witness(replicas: MitRealm) -> Witness:
    return Witness(replicas)


def kdcs_after(fake: FakeKdcThread, realm: MitRealm) -> list[str]:
    """Return the fake and two real KDCs."""
    return [f"tcp://127.0.0.1:{fake.port}", *(f"tcp://{kdc.endpoints[0]}" for kdc in realm.kdcs[:2])]


def sent_once(fake: FakeKdcThread) -> list[bytes]:
    """Return the messages of the fake that only one KDC may receive."""
    return [message for message in fake.messages if not is_repeatable(request_of(message))]


def armored(site: Site, name: str, tickets: KerberosClient) -> KerberosClient:
    """Log on with FAST from the first AS-REQ on, with another client's tickets as armor."""
    client = site.clients()
    client.kinit(name, PASSWORD, "-T", tickets.credential_cache).expect_ok()
    return client


def test_healthy_kdcs_see_each_message_once(
    replicas: MitRealm, user: str, witness: Witness, make_front: FrontMaker
) -> None:
    site = make_front(replicas)
    tickets = site.clients()
    tickets.kinit(user, PASSWORD).expect_ok()
    tickets.kvno(SERVICE).expect_ok()
    armored(site, user, tickets)
    site.clients().kpasswd(user, PASSWORD, NEW_PASSWORD).expect_ok()
    exchanges = site.wait_for_exchanges(8)
    assert {line["attempts"] for line in exchanges} == {"1"}
    assert len(exchanges) == len(witness.seen()) + len(witness.password_changes()) == 8


def test_first_as_req_of_mit_is_repeatable(replicas: MitRealm, user: str, make_front: FrontMaker) -> None:
    with FakeKdcThread(tcp=relay_byte_by_byte(replicas.kdc.port)) as fake:
        site = make_front(replicas, f"tcp://127.0.0.1:{fake.port}")
        for options in ([], ["-S", "kadmin/changepw"], ["-C"], ["-E"], ["-r", "1d", "-p"]):
            before = len(fake.messages)
            site.clients().kinit(user, PASSWORD, *options)
            first, *rest = fake.messages[before:]
            assert is_repeatable(request_of(first))
            assert not any(is_repeatable(request_of(message)) for message in rest)


def test_login_ticket_and_password_change_succeed_past_a_faulty_kdc(
    faulty: FakeKdcThread, replicas: MitRealm, user: str, witness: Witness, make_front: FrontMaker
) -> None:
    site = make_front(replicas, *kdcs_after(faulty, replicas))
    client = site.clients()
    client.kinit(user, PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()
    site.clients().kpasswd(user, PASSWORD, NEW_PASSWORD).expect_ok()
    assert sent_once(faulty) == []
    exchanges = site.wait_for_exchanges(6)
    assert len(exchanges) == 6
    assert len(witness.seen()) == 5
    assert len(witness.password_changes()) == 1


def test_armored_login_succeeds_once_the_fault_is_noticed(
    faulty: FakeKdcThread, replicas: MitRealm, user: str, witness: Witness, make_front: FrontMaker
) -> None:
    site = make_front(replicas, *kdcs_after(faulty, replicas))
    tickets = site.clients()
    tickets.kinit(user, PASSWORD).expect_ok()
    client = armored(site, user, tickets)
    client.kvno(SERVICE).expect_ok()
    assert sent_once(faulty) == []
    exchanges = site.wait_for_exchanges(5)
    assert [line.get("armor") for line in exchanges if line["kind"] == "AS_REQ"] == [
        None,
        None,
        "fast",
        "fast",
    ]
    assert len(witness.seen()) == len(exchanges)


@pytest.mark.parametrize("fault", FAULTS)
def test_armored_message_to_a_fault_unnoticed_is_seen_by_one_kdc_once(
    fault: str, replicas: MitRealm, user: str, make_front: FrontMaker
) -> None:
    tickets = make_front(replicas).clients()
    tickets.kinit(user, PASSWORD).expect_ok()
    witness = Witness(replicas)
    with FakeKdcThread(tcp=FAULTS[fault].tcp) as fake:
        site = make_front(replicas, *kdcs_after(fake, replicas), sections=IMPATIENT)
        done = site.clients().kinit(user, PASSWORD, "-T", tickets.credential_cache)
        # KDC_ERR_SVC_UNAVAILABLE says that the KDC did nothing.
        assert done.is_ok == (fault not in ENDS)
        assert len(sent_once(fake)) == (0 if fault == "closes at once" else int(FAULTS[fault].takes))
        assert len(witness.seen()) == (2 if done.is_ok else 0)


@pytest.mark.parametrize("fault", [name for name, fault in FAULTS.items() if not fault.takes])
def test_password_changes_past_a_kpasswd_server_that_cannot_be_reached(
    fault: str, replicas: MitRealm, user: str, witness: Witness, make_front: FrontMaker
) -> None:
    with FakeKdcThread(tcp=FAULTS[fault].tcp) as fake:
        site = make_front(replicas, kpasswd=[f"127.0.0.1:{fake.port}", replicas.kpasswd_endpoint])
        site.clients().kpasswd(user, PASSWORD, NEW_PASSWORD).expect_ok()
        assert len(witness.password_changes()) == 1


@pytest.mark.parametrize("fault", TAKING)
def test_password_change_is_seen_by_one_server_once_and_the_next_one_is_done(
    fault: str, replicas: MitRealm, user: str, witness: Witness, make_front: FrontMaker
) -> None:
    with FakeKdcThread(tcp=FAULTS[fault].tcp) as fake:
        servers = [f"tcp://127.0.0.1:{fake.port}", f"tcp://{replicas.kpasswd_endpoint}"]
        site = make_front(replicas, kpasswd=servers, sections=IMPATIENT)
        assert not site.clients().kpasswd(user, PASSWORD, NEW_PASSWORD).is_ok
        assert len(fake.messages) == (0 if fault == "closes at once" else 1)
        assert witness.password_changes() == []
        site.clients().kpasswd(user, PASSWORD, NEW_PASSWORD).expect_ok()
        assert len(fake.messages) <= 1
        assert len(witness.password_changes()) == 1


def test_clients_that_leave_leave_no_socket_of_theirs_behind(
    replicas: MitRealm, make_front: FrontMaker
) -> None:
    body = messages.envelope(messages.as_req(realm=REALM, padata=[(2, b"\x30\x00")]), REALM)
    # No endpoint is suspect, so no probe is open now.
    sections = "[upstream]\nhedge_delay = 20"
    with FakeKdcThread(tcp=fake_kdc.silent()) as fake, ExitStack() as clients:
        site = make_front(replicas, f"tcp://127.0.0.1:{fake.port}", sections=sections)
        context = ssl.create_default_context(cafile=site.authority.certificate)
        before = _sockets(site)
        for _ in range(200):
            client = clients.enter_context(HttpClient(site.daemon.ports[0], tls=context))
            client.send(post(body))
        fake.wait_for_messages(200)
        assert _sockets(site) == before + 400
        clients.close()
        ends = site.wait_for_exchanges(200)
        assert {line["outcome"] for line in ends} == {"client_gone"}
        assert _sockets(site) == before


def _sockets(site: Site) -> int:
    """Return the number of open sockets of the daemon's workers."""
    links = (link for pid in site.daemon.workers for link in Path(f"/proc/{pid}/fd").iterdir())
    return sum(link.readlink().name.startswith("socket:") for link in links)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkNamespace]:
    with NetworkNamespace(tmp_path) as network:
        yield network


RealmMaker = Callable[..., MitRealm]


@pytest.fixture
def make_realm(tmp_path: Path) -> Iterator[RealmMaker]:
    realms: list[MitRealm] = []

    def make(*addresses: str, transports: frozenset[Transport] = frozenset(KDC_TRANSPORTS)) -> MitRealm:
        realm = MitRealm(
            tmp_path / "realm",
            name=REALM,
            principals=[
                Principal(name="alice", password=PASSWORD, options=("+requires_preauth",)),
                Principal(name=SERVICE),
            ],
            addresses=addresses,
            transports=transports,
        ).__enter__()
        realms.append(realm)
        return realm

    yield make
    for realm in realms:
        realm.__exit__(None, None, None)


def log_in_and_change_password(site: Site) -> None:
    client = site.clients()
    client.kinit("alice", PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()
    client.kpasswd("alice", PASSWORD, NEW_PASSWORD).expect_ok()


def test_kdc_with_ipv6_alone_serves(make_realm: RealmMaker, make_front: FrontMaker) -> None:
    realm = make_realm("::1")
    log_in_and_change_password(make_front(realm))


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_dual_stack_kdc_serves_when_one_family_is_black_holed(
    family: str, network: NetworkNamespace, make_realm: RealmMaker, make_front: FrontMaker, tmp_path: Path
) -> None:
    realm = make_realm("::1", "127.0.0.1")
    zone = "kdc A 127.0.0.1\nkdc AAAA ::1"
    with KnotServer(tmp_path / "dns", {"kk.test": zone}) as dns:
        port = realm.kdc.port
        sections = f'[locate]\nnameservers = ["{dns.endpoint}"]'
        site = make_front(realm, f"kdc.kk.test:{port}", sections=sections)
        network.filter("input", f"meta nfproto {'ipv4' if family == 'ip' else 'ipv6'} tcp dport {port} drop")
        log_in_and_change_password(site)
        assert {line["transport"] for line in site.wait_for_exchanges(6)} == {"tcp"}


def test_bare_host_that_refuses_tcp_gets_requests_over_udp(
    make_realm: RealmMaker, make_front: FrontMaker
) -> None:
    realm = make_realm("127.0.0.1", transports=frozenset({Transport.UDP}))
    site = make_front(realm, *realm.kdc.endpoints)
    witness = Witness(realm)
    log_in_and_change_password(site)
    transports = {line["kind"]: line["transport"] for line in site.wait_for_exchanges(6)}
    assert transports == {"AS_REQ": "udp", "TGS_REQ": "udp", "KPASSWD_REQ": "tcp"}
    assert len(witness.seen()) == 5


@pytest.mark.parametrize("verdict", ["reject with tcp reset", "drop"])
def test_kpasswd_server_with_udp_alone_changes_passwords(
    verdict: str, network: NetworkNamespace, make_realm: RealmMaker, make_front: FrontMaker
) -> None:
    # As Heimdal's kpasswd server, which has no TCP.
    realm = make_realm("127.0.0.1")
    port = realm.kpasswd_endpoint.rpartition(":")[2]
    witness = Witness(realm)
    network.filter("input", f"tcp dport {port} {verdict}")
    network.count("changes", f"udp dport {port}")
    site = make_front(realm)
    log_in_and_change_password(site)
    assert site.wait_for_exchanges(6)[-1]["transport"] == "udp"
    assert network.counted("changes") == len(witness.password_changes()) == 1
