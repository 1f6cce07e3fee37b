"""A password change and the next log-on, in a realm with masters that replicate late or not at all."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon
from lab.dns import KnotServer
from lab.program import PATIENCE_SECONDS, Completed
from lab.realm import MitRealm, Principal
from tests.interop.conftest import REALM, Witness
from tests.support.waiting import wait_until

OLD, NEW, NEWER = "correct horse", "battery staple", "paper clip"
ROUNDS = 15
AT_A_TIME = 3
OTHERS = 8
FAST_ROUNDS = 4
PREAUTH = "+requires_preauth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Two masters without replication, and a kkdcpd with two worker processes that finds both by DNS."""

    masters: tuple[MitRealm, MitRealm]
    daemon: Daemon
    directory: Path
    anchors: Path

    def client(self, name: str) -> KerberosClient:
        url = f"https://localhost:{self.daemon.ports[0]}/KdcProxy"
        realms = {REALM: RealmServers.behind(url)}
        return KerberosClient(self.directory / name, realms, http_anchors=self.anchors)

    def usual_masters_of(self, users: Sequence[str]) -> list[int]:
        """Return the master of each user while both masters are healthy.

        On a busy machine an endpoint may be suspect for a moment. Its users then go to the other master.
        """
        readings: list[list[int]] = [[]]

        def is_settled() -> bool:
            readings.append([self.master_of(user, OLD) for user in users])
            return readings[-1] == readings[-2] and set(readings[-1]) == {0, 1}

        wait_until(is_settled, timeout=PATIENCE_SECONDS)
        return readings[-1]

    def master_of(self, user: str, password: str) -> int:
        """Log on; return the number of the master that issued the ticket."""
        witnesses = [Witness(master) for master in self.masters]
        self.client(user).kinit(user, password).expect_ok()
        issued = [any("ISSUE" in line for line in witness.seen()) for witness in witnesses]
        return issued.index(True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("masters")
    principals = [
        *(
            Principal(name=f"forced-{n}", password=OLD, options=(PREAUTH, "+needchange"))
            for n in range(ROUNDS)
        ),
        *(Principal(name=f"user-{n}", password=OLD, options=(PREAUTH,)) for n in range(ROUNDS)),
        *(Principal(name=f"other-{n}", password=OLD, options=(PREAUTH,)) for n in range(OTHERS)),
        *(
            Principal(name=f"armored-{n}", password=OLD, options=(PREAUTH, "+needchange"))
            for n in range(FAST_ROUNDS)
        ),
        *(Principal(name=name, password=OLD, options=(PREAUTH,)) for name in ("pinned", "twice", "mover")),
    ]
    with MitRealm(directory / "a", name=REALM, principals=principals, addresses=("127.0.0.11",)) as one:
        other = MitRealm(directory / "b", name=REALM, addresses=("127.0.0.12",), copy_of=one)
        with other, KnotServer(directory / "dns", {"kk.test": _zone(one, other)}) as dns:
            authority = Authority(directory / "tls")
            with Daemon(directory / "kkdcpd", _config(authority, dns, one, other)) as daemon:
                yield Site(
                    masters=(one, other), daemon=daemon, directory=directory, anchors=authority.certificate
                )


def _zone(*masters: MitRealm) -> str:
    records = []
    for name, master in zip("ab", masters, strict=True):
        kpasswd_port = master.kpasswd_endpoint.rpartition(":")[2]
        records += [
            f"_kerberos._tcp SRV 0 100 {master.kdc.port} {name}",
            f"_kpasswd._tcp SRV 0 100 {kpasswd_port} {name}",
            f"{name} A {master.kdc.addresses[0]}",
        ]
    return "\n".join(records)


def _config(authority: Authority, dns: KnotServer, *masters: MitRealm) -> str:
    pair = authority.issue("localhost")
    ports = [
        int(port) for each in masters for port in (each.kdc.port, each.kpasswd_endpoint.rpartition(":")[2])
    ]
    return f"""
        [[listen]]
        address = "127.0.0.1:0"
        [tls]
        certificate = "{pair.certificate}"
        key = "{pair.key}"
        [process]
        workers = 2
        control = ""
        [locate]
        nameservers = ["{dns.endpoint}"]
        allowed_ports = {ports}
        allowed_networks = ["127.0.0.0/8"]
        [realms."{REALM}"]
    """


def _log_on_with_forced_change(site: Site, number: int) -> Completed:
    name = f"forced-{number}"
    client = site.client(name)
    return client.run("kinit", name, stdin=f"{OLD}\n{NEW}\n{NEW}\n")


def _change_and_log_on(site: Site, number: int) -> Completed:
    name = f"user-{number}"
    client = site.client(name)
    client.kpasswd(name, OLD, NEW).expect_ok()
    return client.kinit(name, NEW)


def test_every_log_on_after_a_password_change_reaches_the_host_of_the_change(site: Site) -> None:
    tasks = itertools.product((_log_on_with_forced_change, _change_and_log_on), range(ROUNDS))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        ends = list(pool.map(lambda task: task[0](site, task[1]), tasks))
    failed = [end.output for end in ends if not end.is_ok]
    assert not failed


def test_other_users_of_the_network_keep_their_masters(site: Site) -> None:
    others = [f"other-{number}" for number in range(OTHERS)]
    before = site.usual_masters_of(others)
    site.client("pinned").kpasswd("pinned", OLD, NEW).expect_ok()
    assert site.usual_masters_of(others) == before


def test_second_change_and_log_on_reach_the_same_host(site: Site) -> None:
    client = site.client("twice")
    client.kpasswd("twice", OLD, NEW).expect_ok()
    first = site.master_of("twice", NEW)
    client.kpasswd("twice", NEW, NEWER).expect_ok()
    assert site.master_of("twice", NEWER) == first


def test_log_on_with_fast_reaches_the_host_of_the_change(site: Site) -> None:
    armor = site.client("armor")
    armor.kinit("other-0", OLD).expect_ok()
    for number in range(FAST_ROUNDS):
        name = f"armored-{number}"
        kinit = ("kinit", "-T", armor.credential_cache, name)
        site.client(name).run(*kinit, stdin=f"{OLD}\n{NEW}\n{NEW}\n").expect_ok()


def test_host_that_fails_is_not_preferred(site: Site) -> None:
    site.client("mover").kpasswd("mover", OLD, NEW).expect_ok()
    master = site.masters[site.master_of("mover", NEW)]
    kdc = master.kdc
    kdc.kill()
    try:
        # The other master never gets the change.
        site.client("mover").kinit("mover", OLD).expect_ok()
    finally:
        master.restart_kdc(kdc)
