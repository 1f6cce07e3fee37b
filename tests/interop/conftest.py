"""Real MIT realms and a real kkdcpd in front of them: made once a run, but for what a test is to break."""

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

from kkdcpd.values import Transport
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon, is_exchange
from lab.forwarder import Forwarder
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
"""Users whose failed log-ons nothing depends on."""

_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')
# What krb5kdc says of each message: the second kind is of one that it got before.
_SEEN_BY_KDC = re.compile(r"\b(?:AS_REQ|TGS_REQ) \(|DISPATCH: repeated")
_PROBE = re.compile(r"krbtgt/\S+ for krbtgt/")
_SEEN_BY_KADMIND = "chpw request"

_markers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A realm, the kkdcpd before it, and clients that know only its URL.

    `clients` makes one; what it takes is another `url`, and further lines of its krb5.conf's `libdefaults`.
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
        """Send one message over a connection of its own."""
        with self.connect(port) as client:
            return client.ask(post(messages.envelope(payload, realm)))

    def exchanges(self, after: int = 0) -> list[dict[str, str]]:
        """The exchange lines past the first `after` lines of the log, as fields."""
        return [_fields(line) for line in self.daemon.lines[after:] if is_exchange(line)]

    def all_exchanges(self, after: int = 0) -> list[dict[str, str]]:
        """The same, and none of those that have ended is missing.

        A request of our own comes after them; it is left out.
        """
        with self.connect() as client:
            request_id = client.ask(post(b"", method="OPTIONS")).request_id
        self.daemon.wait_for_line(lambda line: f" id={request_id} " in line)
        return [line for line in self.exchanges(after) if line.get("detail") != "OPTIONS"]

    def mark(self) -> int:
        """Return the count of log lines, those of all exchanges that have ended among them."""
        self.all_exchanges()
        return len(self.daemon.lines)

    def wait_for_exchanges(self, count: int, after: int = 0) -> list[dict[str, str]]:
        """The same once there are so many: the log is read in a thread of its own."""
        return [_fields(line) for line in self.daemon.wait_for_lines(is_exchange, count=count, after=after)]


def _fields(line: str) -> dict[str, str]:
    return {
        name: json.loads(value) if value.startswith('"') else value for name, value in _FIELD.findall(line)
    }


class Witness:
    """What the servers of a realm were sent since it was made, from their own logs; probes don't count."""

    def __init__(self, realm: MitRealm) -> None:
        self._realm = realm
        _make_kadmind_complain(realm)
        self._changes_before = len(realm.kadmind.lines)
        self._before: dict[Program, int] = {}
        self._before = {kdc.program: len(self._log_of(kdc)) for kdc in realm.kdcs}

    def seen_by(self, kdc: Kdc) -> list[str]:
        """A line for each message that the KDC got."""
        return [line for line in self._log_of(kdc) if not _PROBE.search(line)]

    def probes_of(self, kdc: Kdc) -> list[str]:
        """A line for each time that it was probed."""
        return [line for line in self._log_of(kdc) if _PROBE.search(line)]

    def seen(self) -> list[str]:
        """A line for each message that any of the KDCs got."""
        return [line for kdc in self._realm.kdcs for line in self.seen_by(kdc)]

    def password_changes(self) -> list[str]:
        """A line for each password change that kadmind was asked for."""
        _make_kadmind_complain(self._realm)
        lines = self._realm.kadmind.lines[self._changes_before :]
        return [line for line in lines if _SEEN_BY_KADMIND in line]

    def _log_of(self, kdc: Kdc) -> list[str]:
        """What it logged of messages since we know it."""
        marker = _ask_for_marker(kdc)
        # It logs in order, so what it got before the marker stands before it.
        kdc.program.wait_for_line(lambda line: marker in line)
        lines = [line for line in kdc.program.lines if _SEEN_BY_KDC.search(line) and "marker-" not in line]
        return lines[self._before.get(kdc.program, 0) :]


def _make_kadmind_complain(realm: MitRealm) -> None:
    """It logs in order, so what it did before stands in its log when this returns."""
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
    """Let a fake KDC ask a real one by TCP, and pass its reply on with one byte a segment."""

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
    """Make sites that live until the end of the run."""
    running: list[Daemon | MitRealm] = []

    def make(
        *,
        endpoint: str = "{}",
        transports: frozenset[Transport] = frozenset(Transport),
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
    """Put a kkdcpd before a realm that there is: by default it knows all of its servers, by TCP.

    `sections` are further ones of its config.toml, `tls` and `of_realm` further lines of [tls] and of the
    realm's section. With another `discovery`, KDCs are not listed.
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
    """Make ways to a site from other addresses."""
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
    """A realm with all that a guard is to tell apart: see the principals.

    Anonymous PKINIT works by the authority in its folder `pkinit`; the keytab there, `keytab`, is the host's
    and the service's.
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
        # This and allow_rc4, or the KDC makes no ticket with an RC4 session key.
        realm.kadmin("setstr", f"krbtgt/{REALM}", "session_enctypes", "aes256-cts arcfour-hmac")
        yield realm


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaDomain]:
    """A domain with a real domain controller. Provisioned once a run: it takes 8 s at least."""
    users = dict.fromkeys(AD_USERS + AD_GUESSED_USERS, AD_PASSWORD)
    with SambaDomain(
        tmp_path_factory.mktemp("samba"), name=AD_REALM, netbios_name=AD_FLAT_NAME, users=users
    ) as running:
        yield running


@pytest.fixture
def user(replicas: MitRealm, request: pytest.FixtureRequest) -> str:
    """Somebody in the replicas' realm whom no other test knows."""
    name = f"user-{hashlib.md5(request.node.nodeid.encode()).hexdigest()[:12]}"
    replicas.kadmin("addprinc", "-pw", PASSWORD, "+requires_preauth", name)
    return name


@pytest.fixture(scope="session")
def site(make_site: SiteMaker) -> Site:
    """A site whose KDC takes both transports, named without one."""
    return make_site()


@pytest.fixture(scope="session")
def tcp_site(make_site: SiteMaker) -> Site:
    """A site whose KDC speaks TCP alone."""
    return make_site(transports=frozenset({Transport.TCP}), endpoint="tcp://{}")


@pytest.fixture(scope="session")
def udp_site(make_site: SiteMaker) -> Site:
    """A site whose KDC speaks UDP alone."""
    return make_site(transports=frozenset({Transport.UDP}), endpoint="udp://{}")


@pytest.fixture(scope="session")
def big_ticket_site(make_site: SiteMaker) -> Site:
    """A site whose tickets are too big for its KDC's UDP, which it is asked by."""
    return make_site(endpoint="udp://{}", options=oversized_tickets())
