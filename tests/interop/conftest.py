"""A real MIT realm for each way of listening, and a real kkdcpd in front of each: made once a run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kkdcpd.values import Transport
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon, is_exchange
from lab.realm import MitRealm, Principal, ServerOptions, oversized_tickets

REALM = "KK.TEST"
USERS = ("alice", "bob", "carol")
PASSWORD = "correct horse"
SERVICE = "HTTP/www.kk.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A realm, the kkdcpd before it, and clients that know only its URL."""

    realm: MitRealm
    daemon: Daemon
    authority: Authority
    url: str
    clients: Callable[[], KerberosClient]

    def exchanges(self, after: int = 0) -> list[dict[str, str]]:
        """The exchange lines past the first `after` lines of the log, as fields."""
        lines = self.daemon.lines[after:]
        return [dict(word.split("=", 1) for word in line.split()[3:]) for line in lines if is_exchange(line)]


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
        kdcs = ", ".join(f'"{endpoint.format(kdc)}"' for kdc in realm.kdc.endpoints)
        daemon = Daemon(
            directory / "kkdcpd", _config(kdcs, endpoint.format(realm.kpasswd_endpoint), authority)
        )
        running.append(daemon)
        url = f"https://localhost:{daemon.ports[0]}/KdcProxy"
        return Site(
            realm=realm,
            daemon=daemon,
            authority=authority,
            url=url,
            clients=_client_maker(directory, url, authority.certificate),
        )

    yield make
    for part in reversed(running):
        part.__exit__(None, None, None)


def _config(kdcs: str, kpasswd: str, authority: Authority) -> str:
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
        [[tls.additional]]
        certificate = "{other.certificate}"
        key = "{other.key}"
        [realms."{REALM}"]
        kdc = [{kdcs}]
        kpasswd = ["{kpasswd}"]
    """


def _client_maker(directory: Path, url: str, anchors: Path) -> Callable[[], KerberosClient]:
    def make() -> KerberosClient:
        number = len(list(directory.glob("client-*")))
        return KerberosClient(
            directory / f"client-{number}", {REALM: RealmServers.behind(url)}, http_anchors=anchors
        )

    return make


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
