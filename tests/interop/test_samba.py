"""A real Active Directory domain, Samba's: found by DNS and LDAP ping, served through kkdcpd."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kkdcpd.config import LocateConfig, Nameserver
from kkdcpd.locate.active_directory import ActiveDirectory
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import CandidateFinder, FoundCandidates
from kkdcpd.locate.cldap_ping import CldapPinger
from kkdcpd.locate.dns import DnsClient
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.host_resolver import HostResolver
from kkdcpd.protocol.cldap import DomainControllerFlags
from kkdcpd.protocol.kkdcp import decode_proxy_message, encode_proxy_message
from kkdcpd.protocol.messages import inspect_reply
from kkdcpd.protocol.probe import build_probe
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery, MessageKind, ProxyMessage
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon, is_exchange
from lab.samba import SambaDomain
from tests.frontends.site import parse_line
from tests.interop.conftest import AD_FLAT_NAME as FLAT_NAME
from tests.interop.conftest import AD_PASSWORD as PASSWORD
from tests.interop.conftest import AD_REALM as REALM
from tests.support import messages
from tests.support.fake_kdc import FakeKdcThread, Link, Script
from tests.support.http_client import HttpClient, post

SITE = "Default-First-Site-Name"
OTHER_NAME_OF_EMIL = "e.mil@ad.test"
NONE = DcLocatorFlags(0)

KDC_ERR_PREAUTH_REQUIRED = 25


# Found by DNS and LDAP ping -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Discoverer:
    """The locator for Active Directory over real sockets, and the pings' answers."""

    locator: ActiveDirectory

    async def discover(
        self, flags: DcLocatorFlags = NONE, *, service: KdcService = KdcService.KDC, site: str = ""
    ) -> FoundCandidates:
        query = LocateQuery(target_domain=REALM, service=service, flags=flags)
        return await self.locator.discover(REALM, query, site)


@pytest.fixture
async def discoverer(domain: SambaDomain) -> AsyncIterator[Discoverer]:
    client = DnsClient([Nameserver(host=domain.address)], timeout=2.0)
    dns = DnsCache(client.query, LocateConfig(), time.monotonic, lambda _: None)
    finder = CandidateFinder(HostResolver(dns, hosts_file=""), time.monotonic)
    address_filter = AddressFilter(ports=(88, 464))
    locator = ActiveDirectory(dns, finder, address_filter, CldapPinger().ping, time.monotonic)
    yield Discoverer(locator=locator)
    await locator.close()
    await dns.close()


async def test_ping_returns_the_properties_of_the_controller(domain: SambaDomain) -> None:
    deadline = asyncio.get_running_loop().time() + 2
    answers = await CldapPinger().ping([domain.address], REALM, deadline)
    facts = answers[domain.address]
    assert (facts.domain, facts.host, facts.netbios_domain) == ("ad.test", "dc1.ad.test", FLAT_NAME)
    assert facts.site == facts.client_site == SITE
    assert (
        DomainControllerFlags.PDC
        | DomainControllerFlags.KDC
        | DomainControllerFlags.WRITABLE
        | DomainControllerFlags.CLOSEST
    ) in facts.flags


async def test_ping_for_another_domain_is_no_sign_of_life(domain: SambaDomain) -> None:
    deadline = asyncio.get_running_loop().time() + 2
    assert await CldapPinger().ping([domain.address], "other.test", deadline) == {}


async def test_controller_is_found_by_the_site_that_it_says_we_are_in(discoverer: Discoverer) -> None:
    found = await discoverer.discover()
    [candidate] = found.candidates
    assert str(candidate.endpoint) == "tcp://dc1.ad.test:88"
    assert candidate.source == f"SRV _kerberos._tcp.{SITE}._sites.dc._msdcs.ad.test"
    assert found.refused == ()


async def test_controller_is_found_from_a_site_that_has_none(
    discoverer: Discoverer, domain: SambaDomain
) -> None:
    found = await discoverer.discover(site="Nowhere")
    assert [each.endpoint.address for each in found.candidates] == [domain.address]
    assert found.candidates[0].source == "SRV _kerberos._tcp.dc._msdcs.ad.test"


@pytest.mark.parametrize(
    "flags",
    [
        DcLocatorFlags.WRITABLE_REQUIRED,
        DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED,
        DcLocatorFlags.FORCE_REDISCOVERY,
    ],
)
async def test_controller_is_all_that_may_be_required(discoverer: Discoverer, flags: DcLocatorFlags) -> None:
    assert len((await discoverer.discover(flags)).candidates) == 1


async def test_pdc_is_found_by_its_own_record(discoverer: Discoverer) -> None:
    [candidate] = (await discoverer.discover(DcLocatorFlags.PDC_REQUIRED)).candidates
    assert str(candidate.endpoint) == "tcp://dc1.ad.test:88"
    assert candidate.source == "SRV _ldap._tcp.pdc._msdcs.ad.test"


async def test_kpasswd_service_is_found(discoverer: Discoverer) -> None:
    [candidate] = (await discoverer.discover(service=KdcService.KPASSWD)).candidates
    assert str(candidate.endpoint) == "tcp://dc1.ad.test:464"


# Served through kkdcpd -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Site:
    """A kkdcpd in front of the domain, which knows only the realm's name and its name server."""

    daemon: Daemon
    authority: Authority
    clients: Callable[[], KerberosClient]

    def exchanges(self, after: int = 0) -> list[dict[str, str]]:
        return [parse_line(line) for line in self.daemon.lines[after:] if is_exchange(line)]

    def wait_for_exchanges(self, count: int, after: int = 0) -> list[dict[str, str]]:
        """Wait for `count` exchange lines: another thread reads the log."""
        return [
            parse_line(line) for line in self.daemon.wait_for_lines(is_exchange, count=count, after=after)
        ]

    def ask(self, message: ProxyMessage) -> ProxyMessage:
        """Send a message of the test, and return the reply."""
        tls = ssl.create_default_context(cafile=str(self.authority.certificate))
        with HttpClient(self.daemon.ports[0], tls=tls) as client:
            response = client.ask(post(encode_proxy_message(message)))
        assert response.status == 200
        return decode_proxy_message(response.body)


@contextlib.contextmanager
def _served(
    domain: SambaDomain, directory: Path, sections: str = "", *, discovery: str = "active_directory"
) -> Iterator[Site]:
    """Start a kkdcpd in front of the domain."""
    authority = Authority(directory / "tls")
    pair = authority.issue("localhost", "127.0.0.1")
    config = f"""
        [[listen]]
        address = "127.0.0.1:0"
        [tls]
        certificate = "{pair.certificate}"
        key = "{pair.key}"
        [locate]
        nameservers = ["{domain.address}"]
        [realms."{REALM}"]
        discovery = "{discovery}"
        aliases = ["{FLAT_NAME}"]
        {sections}
    """
    with Daemon(directory / "kkdcpd", config) as daemon:
        behind = RealmServers.behind(f"https://localhost:{daemon.ports[0]}/KdcProxy")

        def client() -> KerberosClient:
            number = len(list(directory.glob("client-*")))
            realms = {REALM: behind, FLAT_NAME: behind}
            return KerberosClient(directory / f"client-{number}", realms, http_anchors=authority.certificate)

        yield Site(daemon=daemon, authority=authority, clients=client)


@pytest.fixture(scope="session")
def site(domain: SambaDomain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with _served(domain, tmp_path_factory.mktemp("samba-site")) as running:
        yield running


def test_login_and_service_ticket_work(site: Site, domain: SambaDomain) -> None:
    before = len(site.daemon.lines)
    client = site.clients()
    client.kinit("anna", PASSWORD).expect_ok()
    client.kvno(f"cifs/{domain.host}").expect_ok()
    lines = site.wait_for_exchanges(3, before)
    assert [line["kind"] for line in lines] == ["AS_REQ", "AS_REQ", "TGS_REQ"]
    assert [line["reply"] for line in lines] == ["KRB_ERROR", "AS_REP", "TGS_REP"]


def test_login_armored_by_another_ticket_works(site: Site) -> None:
    armor = site.clients()
    armor.kinit("dora", PASSWORD).expect_ok()
    site.clients().kinit("anna", PASSWORD, "-T", armor.credential_cache).expect_ok()


def test_password_change_works(site: Site) -> None:
    before = len(site.daemon.lines)
    site.clients().kpasswd("bert", PASSWORD, "Battery staple 2").expect_ok()
    assert site.clients().kinit("bert", "Battery staple 2").is_ok
    change = parse_line(site.daemon.wait_for_line(lambda line: "kind=KPASSWD_REQ" in line, after=before))
    assert change["reply"] == "KPASSWD_REP"


def _relay_to(address: str) -> Script:
    """Let a fake KDC forward one message to a real KDC, and return its reply."""

    async def script(link: Link) -> None:
        request = await link.message()
        reader, writer = await asyncio.open_connection(address, KdcService.KDC.default_port)
        writer.write(messages.prefixed(request))
        length = await reader.readexactly(4)
        await link.write(length + await reader.readexactly(int.from_bytes(length, "big")))
        writer.close()
        await link.hold()

    return script


def test_log_on_after_a_password_change_reaches_the_controller_of_the_change(
    domain: SambaDomain, tmp_path: Path
) -> None:
    """The fake KDC forwards messages to the controller, so it looks like another host."""
    domain.tool("user", "create", "frida", PASSWORD)
    with FakeKdcThread(tcp=_relay_to(domain.address)) as relay:
        servers = f"""
            kdc = ["tcp://127.0.0.1:{relay.port}", "tcp://{domain.address}"]
            kpasswd = ["tcp://{domain.address}"]
        """
        with _served(domain, tmp_path, servers, discovery="none") as site:

            def hosts_met(user: str, password: str) -> set[str]:
                before = len(site.daemon.lines)
                site.clients().kinit(user, password).expect_ok()
                site.daemon.wait_for_line(lambda line: " reply=AS_REP " in line, after=before)
                return {line["kdc"].rpartition(":")[0] for line in site.exchanges(before)}

            assert hosts_met("frida", PASSWORD) == {"127.0.0.1"}
            site.clients().kpasswd("frida", PASSWORD, "Battery staple 2").expect_ok()
            assert hosts_met("FRIDA", "Battery staple 2") == {domain.address}
            assert hosts_met("dora", PASSWORD) == {"127.0.0.1"}


def test_flat_name_is_served_as_an_alias(site: Site) -> None:
    client = site.clients()
    # With canonicalization, as Windows: otherwise the client refuses the domain's name in the reply.
    client.kinit(f"anna@{FLAT_NAME}", PASSWORD, "-C").expect_ok()
    assert f"anna@{REALM}" in client.klist().output


@pytest.mark.parametrize("realm", [REALM, FLAT_NAME, "ad.test"])
@pytest.mark.parametrize(
    "hint",
    [
        pytest.param(0x600, id="by default"),
        pytest.param(0x200600, id="for FAST"),
        pytest.param(0x680, id="PDC"),
        pytest.param(0x1600, id="writable"),
        pytest.param(0x601, id="rediscovery"),
        pytest.param(-0x80000000 | 0x600, id="flat name to be returned"),
    ],
)
def test_hints_are_honoured(site: Site, realm: str, hint: int) -> None:
    request = build_probe(REALM, "anna").kerb_message
    reply = site.ask(ProxyMessage(kerb_message=request, target_domain=realm, dclocator_hint=hint))
    facts = inspect_reply(MessageKind.AS_REQ, reply.kerb_message[4:])
    assert facts.error_code == KDC_ERR_PREAUTH_REQUIRED


def test_each_wrong_password_counts_once(site: Site, domain: SambaDomain) -> None:
    assert domain.bad_password_count("carl") == 0
    for count in (1, 2, 3):
        assert "Password incorrect" in site.clients().kinit("carl", f"wrong {count}").output
        assert domain.bad_password_count("carl") == count
    site.clients().kinit("carl", PASSWORD).expect_ok()


# Guarded --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_principal_that_only_the_reply_names_is_denied_in_armor(
    site: Site, domain: SambaDomain, tmp_path: Path, mode: str
) -> None:
    """A client that logs on by UPN has the UPN in its request; the controller returns the account's name."""
    domain.tool("user", "rename", "emil", f"--upn={OTHER_NAME_OF_EMIL}")
    armor = site.clients()
    armor.kinit("dora", PASSWORD).expect_ok()
    policy = f'[policy]\ncname = "{mode}"\ncname_deny = ["emil"]'
    with _served(domain, tmp_path, policy) as guarded:
        login = guarded.clients().kinit(
            OTHER_NAME_OF_EMIL, PASSWORD, "-E", "-C", "-T", armor.credential_cache
        )
        last = parse_line(guarded.daemon.wait_for_line(lambda line: " reply=AS_REP " in line))
    assert (last["armor"], last["reply"], last["cname"]) == ("fast", "AS_REP", "e.mil\\@ad.test")
    if mode == "enforce":
        assert "Cannot contact any KDC" in login.output
        assert (last["outcome"], last["rule"], last["status"]) == ("refused", "cname", "403")
    else:
        login.expect_ok()
        assert (last["outcome"], last["monitored"]) == ("answered", "cname")
