"""A kkdcpd with the default limits, a real MIT realm and clients at any address, for attacks on the guard.

The attacker is the trusted proxy `ATTACKER` and names client addresses in X-Forwarded-For. So one host can
use all the IPv6 networks that an attack needs. The honest client connects from another network.
"""

import http.client
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.attack.honest import HonestClient
from lab.armor import Armor
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon
from lab.realm import MitRealm, Principal, ServerOptions
from tests.support import messages

__all__ = ["ATTACKER", "PASSWORD", "REALM", "WITHIN", "GuardedSite", "guarded_site", "tries_of"]

REALM = "KK.TEST"
PASSWORD = "correct horse"
ATTACKER = "127.66.0.1"

WITHIN = 20
"""The most tries that an attack may get."""

_ARMORER = "armorer"
_HONEST = "honest"
_PREAUTH = "+requires_preauth"
_ONE_KEY = ServerOptions(realm=("supported_enctypes = aes256-cts-hmac-sha1-96:normal",))
"""One key for each principal. Each key of a password costs 4096 rounds of a hash (RFC 3962 4)."""
_WRONG_TIMESTAMP = bytes.fromhex("3041a003020112a23a0438") + bytes(56)
"""EncryptedData of AES-256 that no key decrypts (RFC 4120 5.2.9)."""


@dataclass(slots=True, kw_only=True)
class GuardedSite:
    """A realm, its kkdcpd, and armor from one ticket."""

    realm: MitRealm
    daemon: Daemon
    armor: Armor
    _connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", self.daemon.ports[0], timeout=30, source_address=(ATTACKER, 0)
        )

    def send(self, payload: bytes, client: str, realm: str = REALM) -> int:
        """Send one message in the name of a client's address; return the HTTP status."""
        self._connection.request(
            "POST",
            "/KdcProxy",
            messages.envelope(payload, realm),
            {"Content-Type": "application/kerberos", "X-Forwarded-For": client},
        )
        response = self._connection.getresponse()
        response.read()
        return response.status

    def send_all(self, payloads: Iterable[bytes], client: str) -> list[int]:
        """Send messages one after the other."""
        return [self.send(payload, client) for payload in payloads]

    def honest_client(self) -> HonestClient:
        """Make a client in another network that requests a ticket without a proof."""
        body = messages.envelope(as_req(_HONEST), REALM)
        head = (
            "POST /KdcProxy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/kerberos\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return HonestClient(head.encode() + body, port=self.daemon.ports[0], tls=None, interval=0.2)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def as_req(user: str, *, sname: str | None = None, padata: Sequence[messages.PaData] = ()) -> bytes:
    """Build an AS-REQ with this padata, by default without a proof."""
    service = (1, sname.split("/")) if sname else "krbtgt"
    return messages.as_req(realm=REALM, cname=(1, user.split("/")), sname=service, padata=padata)


def guess(user: str) -> bytes:
    """Build an AS-REQ with a wrong password, without armor."""
    return as_req(user, padata=[(messages.PA_ENC_TIMESTAMP, _WRONG_TIMESTAMP)])


def tries_of(statuses: Sequence[int]) -> int:
    """Return the number of requests that reached the KDC."""
    return sum(status == 200 for status in statuses)


@contextmanager
def guarded_site(
    directory: Path, *, users: Sequence[str] = (), lax: Sequence[str] = (), sections: str = ""
) -> Iterator[GuardedSite]:
    """Start a site. `users` need preauthentication and have `PASSWORD`; `lax` principals do not need it.

    `sections` is added to the configuration.
    """
    principals = [
        Principal(name=_ARMORER, password=PASSWORD),
        Principal(name=_HONEST, password=PASSWORD, options=(_PREAUTH,)),
    ]
    with ExitStack() as running:
        realm = running.enter_context(
            MitRealm(directory / "realm", name=REALM, principals=principals, options=_ONE_KEY)
        )
        realm.add_users(users, PASSWORD, _PREAUTH)
        realm.add_users(lax, PASSWORD)
        client = KerberosClient(directory / "client", {REALM: RealmServers(kdc=realm.kdc.endpoints)})
        client.kinit(_ARMORER, PASSWORD).expect_ok()
        daemon = running.enter_context(Daemon(directory / "kkdcpd", _config(realm) + sections))
        site = GuardedSite(realm=realm, daemon=daemon, armor=Armor(client.credential_cache, REALM))
        running.callback(site.close)
        yield site


def _config(realm: MitRealm) -> str:
    return f"""
        [[listen]]
        address = "127.0.0.1:0"
        tls = false
        [connections]
        trusted_proxies = ["{ATTACKER}"]
        forwarded = "x-forwarded-for"
        [realms."{REALM}"]
        kdc = ["tcp://{realm.kdc.endpoints[0]}"]
        kpasswd = ["{realm.kpasswd_endpoint}"]
        discovery = "none"
    """
