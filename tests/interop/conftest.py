"""Makes real MIT realms and a real kkdcpd in front of them, once in a run if no test breaks them."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from kkdcpd.endpoints import KDC_TRANSPORTS, Transport
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon, is_exchange
from lab.forwarder import Forwarder
from lab.heimdal import unpack_heimdal
from lab.program import Program
from lab.realm import Kdc, MitRealm, Principal, ServerOptions, oversized_tickets
from lab.samba import SambaDomain
from tests.support import messages
from tests.support.fake_kdc import Link, Script
from tests.support.http_client import HttpClient, Response, post

REALM = "KK.TEST"
USERS = ("alice", "bob", "carol")
PASSWORD = "correct horse"
SERVICE = "HTTP/www.kk.test"
HOST = "host/client.kk.test"

AD_REALM = "AD.TEST"
AD_FLAT_NAME = "AD"
AD_PASSWORD = "Correct horse 1"
AD_USERS = ("anna", "bert", "carl", "dora", "emil")
AD_GUESSED_USERS = ("nadia", "lena", "olaf")
"""Users for tests of failed log-ons; no other test uses them."""

_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')
# krb5kdc's log line of a message; the second form is for a repeated message.
_SEEN_BY_KDC = re.compile(r"\b(?:AS_REQ|TGS_REQ) \(|DISPATCH: repeated")
_PROBE = re.compile(r"krbtgt/\S+ for krbtgt/")
_SEEN_BY_KADMIND = "chpw request"

_markers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A realm, the kkdcpd in front of it, and clients that know only its URL.

    `clients` makes a client with another `url` or further `libdefaults` for its krb5.conf.
    """

    realm: MitRealm
    daemon: Daemon
    authority: Authority
    url: str
    clients: Callable[..., KerberosClient]
    trust: ssl.SSLContext

    def connect(self, port: int | None = None) -> HttpClient:
        """Connect by TLS, without a Kerberos client."""
        return HttpClient(port or self.daemon.ports[0], tls=self.trust)

    def ask(self, payload: bytes, *, port: int | None = None, realm: str = REALM) -> Response:
        """Send one message over its own connection."""
        with self.connect(port) as client:
            return client.ask(post(messages.envelope(payload, realm)))

    def exchanges(self, after: int = 0) -> list[dict[str, str]]:
        """Return the exchange lines after the first `after` lines of the log, as fields."""
        return exchanges_of(self.daemon, after)

    def all_exchanges(self, after: int = 0) -> list[dict[str, str]]:
        """Return the exchange lines of all exchanges that have ended, as fields."""
        return ended_exchanges(self.daemon, self.trust, after)

    def mark(self) -> int:
        """Return the number of log lines, after the lines of all ended exchanges."""
        self.all_exchanges()
        return len(self.daemon.lines)

    def wait_for_exchanges(self, count: int, after: int = 0) -> list[dict[str, str]]:
        """Wait for `count` exchange lines: another thread reads the log."""
        return [fields_of(line) for line in self.daemon.wait_for_lines(is_exchange, count=count, after=after)]


def exchanges_of(daemon: Daemon, after: int = 0) -> list[dict[str, str]]:
    """Return the exchange lines after the first `after` lines of the log, as fields."""
    return [fields_of(line) for line in daemon.lines[after:] if is_exchange(line)]


def ended_exchanges(daemon: Daemon, trust: ssl.SSLContext, after: int = 0) -> list[dict[str, str]]:
    """Return the exchange lines of all exchanges that have ended, as fields.

    A request of this function follows these exchanges in the log; its line is left out.
    """
    with HttpClient(daemon.ports[0], tls=trust) as client:
        request_id = client.ask(post(b"", method="OPTIONS")).request_id
    daemon.wait_for_line(lambda line: f" id={request_id} " in line)
    return [line for line in exchanges_of(daemon, after) if line.get("detail") != "OPTIONS"]


def fields_of(line: str) -> dict[str, str]:
    return {
        name: json.loads(value) if value.startswith('"') else value for name, value in _FIELD.findall(line)
    }


class Witness:
    """The messages in the logs of a realm's servers since this object was made, without probes."""

    def __init__(self, realm: MitRealm) -> None:
        self._realm = realm
        _make_kadmind_complain(realm)
        self._changes_before = len(realm.kadmind.lines)
        self._before: dict[Program, int] = {}
        self._before = {kdc.program: len(self._log_of(kdc)) for kdc in realm.kdcs}

    def seen_by(self, kdc: Kdc) -> list[str]:
        """Return a line for each message that the KDC received."""
        return [line for line in self._log_of(kdc) if not _PROBE.search(line)]

    def probes_of(self, kdc: Kdc) -> list[str]:
        """Return a line for each probe that the KDC received."""
        return [line for line in self._log_of(kdc) if _PROBE.search(line)]

    def seen(self) -> list[str]:
        """Return a line for each message that the KDCs received."""
        return [line for kdc in self._realm.kdcs for line in self.seen_by(kdc)]

    def password_changes(self) -> list[str]:
        """Return a line for each password change that kadmind received."""
        _make_kadmind_complain(self._realm)
        lines = self._realm.kadmind.lines[self._changes_before :]
        return [line for line in lines if _SEEN_BY_KADMIND in line]

    def _log_of(self, kdc: Kdc) -> list[str]:
        """Return the KDC's lines of messages since this object was made."""
        marker = _ask_for_marker(kdc)
        # The KDC logs in order, so the lines of earlier messages precede the marker.
        kdc.program.wait_for_line(lambda line: marker in line)
        lines = [line for line in kdc.program.lines if _SEEN_BY_KDC.search(line) and "marker-" not in line]
        return lines[self._before.get(kdc.program, 0) :]


def _make_kadmind_complain(realm: MitRealm) -> None:
    """Let kadmind log an error. It logs in order, so its log then has the lines of earlier changes."""
    before = len(realm.kadmind.lines)
    host, _, port = realm.kpasswd_endpoint.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(messages.kpasswd_frame(b"", b""), (host.strip("[]"), int(port)))
    realm.kadmind.wait_for_line(lambda line: "Message stream modified" in line, after=before)


def _ask_for_marker(kdc: Kdc) -> str:
    marker = f"marker-{next(_markers)}"
    request = messages.as_req(realm=REALM, cname=(1, (marker,)))
    is_tcp = Transport.TCP in kdc.transports
    family = socket.AF_INET6 if ":" in kdc.addresses[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM) as sock:
        sock.connect((kdc.addresses[0], kdc.port))
        sock.sendall(messages.prefixed(request) if is_tcp else request)
    return f"{marker}@"


def relay_byte_by_byte(port: int) -> Script:
    """Let a fake KDC forward to a real KDC by TCP, and return its reply in segments of one byte."""

    async def script(link: Link) -> None:
        payload = await link.message()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(messages.prefixed(payload))
        for byte in await reader.read():
            await link.write(bytes((byte,)))
        writer.close()
        await link.hold()

    return script


SiteMaker = Callable[..., Site]


@pytest.fixture(scope="session")
def make_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteMaker]:
    """Make sites that exist until the end of the run."""
    running: list[Daemon | MitRealm] = []

    def make(
        *,
        endpoint: str = "{}",
        transports: frozenset[Transport] = frozenset(KDC_TRANSPORTS),
        options: ServerOptions | None = None,
        addresses: tuple[str, ...] = ("127.0.0.1",),
    ) -> Site:
        directory = tmp_path_factory.mktemp("site")
        realm = MitRealm(
            directory / "realm",
            name=REALM,
            principals=[
                *(Principal(name=user, password=PASSWORD, options=("+requires_preauth",)) for user in USERS),
                Principal(name=SERVICE),
            ],
            addresses=addresses,
            transports=transports,
            options=options,
        ).__enter__()
        running.append(realm)
        authority = Authority(directory / "tls")
        config = _config(
            [endpoint.format(kdc) for kdc in realm.kdc.endpoints],
            [endpoint.format(realm.kpasswd_endpoint)],
            authority,
        )
        site = _site(directory, realm, authority, config)
        running.append(site.daemon)
        return site

    yield make
    for part in reversed(running):
        part.__exit__(None, None, None)


FrontMaker = Callable[..., Site]


@contextlib.contextmanager
def _fronts(parent: Path) -> Iterator[FrontMaker]:
    """Start a kkdcpd in front of an existing realm; by default it knows all servers, by TCP.

    `sections` are further sections of its config.toml, `tls` and `of_realm` further lines of [tls] and of the
    realm's section. With another `discovery`, the configuration has no KDCs.
    """
    with ExitStack() as running:

        def make(
            realm: MitRealm,
            *kdcs: str,
            kpasswd: Sequence[str] = (),
            discovery: str = "none",
            sections: str = "",
            tls: str = "",
            of_realm: str = "",
        ) -> Site:
            directory = parent / f"front-{len(list(parent.glob('front-*')))}"
            authority = Authority(directory / "tls")
            everyone = [f"tcp://{endpoint}" for kdc in realm.kdcs for endpoint in kdc.endpoints]
            config = _config(
                () if discovery != "none" else kdcs or everyone,
                kpasswd or [realm.kpasswd_endpoint],
                authority,
                discovery=discovery,
                sections=sections,
                tls=tls,
                of_realm=of_realm,
            )
            site = _site(directory, realm, authority, config)
            running.enter_context(site.daemon)
            return site

        yield make


@pytest.fixture
def make_front(tmp_path: Path) -> Iterator[FrontMaker]:
    """Make fronts that end with the test."""
    with _fronts(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def make_lasting_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontMaker]:
    """Make fronts that end with the module."""
    with _fronts(tmp_path_factory.mktemp("fronts")) as make:
        yield make


ForwarderMaker = Callable[[Site], Forwarder]


@pytest.fixture
def make_forwarder() -> Iterator[ForwarderMaker]:
    """Make forwarders to a site from other addresses."""
    with ExitStack() as running:
        yield lambda site: running.enter_context(Forwarder(site.daemon.ports[0]))


def _site(directory: Path, realm: MitRealm, authority: Authority, config: str) -> Site:
    daemon = Daemon(directory / "kkdcpd", config)
    url = f"https://localhost:{daemon.ports[0]}/KdcProxy"
    return Site(
        realm=realm,
        daemon=daemon,
        authority=authority,
        url=url,
        clients=_client_maker(directory, url, authority.certificate),
        trust=ssl.create_default_context(cafile=str(authority.certificate)),
    )


def _config(
    kdcs: Sequence[str],
    kpasswd: Sequence[str],
    authority: Authority,
    *,
    discovery: str = "none",
    sections: str = "",
    tls: str = "",
    of_realm: str = "",
) -> str:
    pair = authority.issue("localhost", "127.0.0.1", "::1")
    other = authority.issue("other.kk.test", file_name="other")
    return f"""
        [[listen]]
        address = "127.0.0.1:0"
        [[listen]]
        address = "[::1]:0"
        [tls]
        certificate = "{pair.certificate}"
        key = "{pair.key}"
        {tls}
        [[tls.additional]]
        certificate = "{other.certificate}"
        key = "{other.key}"
        [realms."{REALM}"]
        {f"kdc = {json.dumps(kdcs)}" if kdcs else ""}
        discovery = "{discovery}"
        kpasswd = {json.dumps(kpasswd)}
        {of_realm}
        {sections}
    """


def _client_maker(directory: Path, usual_url: str, anchors: Path) -> Callable[..., KerberosClient]:
    numbers = itertools.count()

    def make(url: str = usual_url, libdefaults: Sequence[str] = ()) -> KerberosClient:
        return KerberosClient(
            directory / f"client-{next(numbers)}",
            {REALM: RealmServers.behind(url)},
            http_anchors=anchors,
            libdefaults=libdefaults,
        )

    return make


@pytest.fixture(scope="session")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    """A realm with three KDCs over one database."""
    realm = MitRealm(tmp_path_factory.mktemp("replicas"), name=REALM, principals=[Principal(name=SERVICE)])
    with realm:
        for _ in range(2):
            realm.start_kdc()
        yield realm


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    """A realm with principals for all rules of the guard.

    Its authority for anonymous PKINIT is in its folder `pkinit`. Its file `keytab` has the keys of the host
    and the service.
    """
    directory = tmp_path_factory.mktemp("guarded")
    pair = Authority(directory / "pkinit").issue("kdc.kk.test", file_name="kdc", has_rsa_key=True)
    preauth = "+requires_preauth"
    realm = MitRealm(
        directory,
        name=REALM,
        principals=[
            *(
                Principal(name=user, password=PASSWORD, options=(preauth,))
                for user in (*USERS, "alice/admin")
            ),
            Principal(name="lax", password=PASSWORD),
            Principal(name="old", password=PASSWORD, options=(preauth, "-e", "arcfour-hmac:normal")),
            Principal(name=HOST, options=(preauth,)),
            Principal(name=SERVICE, options=(preauth, "+ok_to_auth_as_delegate")),
            *(Principal(name=f"HTTP/{number}.kk.test") for number in range(5)),
            Principal(name="WELLKNOWN/ANONYMOUS"),
        ],
        options=ServerOptions(
            libdefaults=("allow_rc4 = true",),
            realm=(
                "max_renewable_life = 7d",
                f"pkinit_identity = FILE:{pair.certificate},{pair.key}",
                f"pkinit_anchors = FILE:{directory / 'pkinit' / 'ca.pem'}",
            ),
        ),
    )
    with realm:
        realm.kadmin("ktadd", "-norandkey", "-k", str(directory / "keytab"), HOST, SERVICE)
        # Without this and allow_rc4, the KDC makes no ticket with an RC4 session key.
        realm.kadmin("setstr", f"krbtgt/{REALM}", "session_enctypes", "aes256-cts arcfour-hmac")
        yield realm


@pytest.fixture(scope="session")
def heimdal_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of Heimdal's programs. They are unpacked once in a run, because that takes seconds."""
    return unpack_heimdal(tmp_path_factory.mktemp("heimdal"))


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaDomain]:
    """A domain with a real domain controller. It is made once in a run, because that takes 8 s."""
    users = dict.fromkeys(AD_USERS + AD_GUESSED_USERS, AD_PASSWORD)
    with SambaDomain(
        tmp_path_factory.mktemp("samba"), name=AD_REALM, netbios_name=AD_FLAT_NAME, users=users
    ) as running:
        yield running


@pytest.fixture
def user(replicas: MitRealm, request: pytest.FixtureRequest) -> str:
    """A new user of the replicas' realm, which no other test uses."""
    name = f"user-{hashlib.md5(request.node.nodeid.encode()).hexdigest()[:12]}"
    replicas.kadmin("addprinc", "-pw", PASSWORD, "+requires_preauth", name)
    return name


@pytest.fixture(scope="session")
def site(make_site: SiteMaker) -> Site:
    """A site with a KDC that has both transports and is configured without a transport."""
    return make_site()


@pytest.fixture(scope="session")
def tcp_site(make_site: SiteMaker) -> Site:
    """A site with a KDC that has TCP only."""
    return make_site(transports=frozenset({Transport.TCP}), endpoint="tcp://{}")


@pytest.fixture(scope="session")
def udp_site(make_site: SiteMaker) -> Site:
    """A site with a KDC that has UDP only."""
    return make_site(transports=frozenset({Transport.UDP}), endpoint="udp://{}")


@pytest.fixture(scope="session")
def big_ticket_site(make_site: SiteMaker) -> Site:
    """A site with tickets that are too big for UDP, the configured transport of its KDC."""
    return make_site(endpoint="udp://{}", options=oversized_tickets())
