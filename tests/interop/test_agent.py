"""`kkdcpd agent` with real programs that cannot use a KDC proxy, in another network than the KDC.

The programs and the agent are in one network namespace, and kkdcpd and the KDC in another. A firewall between
them lets only the port of kkdcpd pass.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from kkdcpd.commands.krb5_texts import AgentService, LocalAddress, heimdal_text, java_text, mit_text
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon
from lab.heimdal import HeimdalClient
from lab.namespace import NetworkNamespace
from lab.program import Program, environment, run
from lab.realm import MitRealm, Principal
from tests.interop.conftest import PASSWORD, REALM, SERVICE, exchanges_of

PROXY = "10.9.0.1"
PROGRAMS = "10.9.0.2"
NEW_PASSWORD = "Correct horse 2"
LOGIN = Path(__file__).parent / "java" / "Login.java"
SCHEMES = ("https", "wss")
USERS = (
    "bystander",
    *(f"{program}-{scheme}" for program in ("mit", "heimdal", "java") for scheme in SCHEMES),
)

AGENT = AgentService(
    realms=(REALM,),
    kdc=LocalAddress(host="127.0.0.1", port=10088),
    kpasswd=LocalAddress(host="127.0.0.1", port=10464),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """Both networks. The thread is in the network of the programs."""

    daemon: Daemon
    authority: Authority

    def url(self, scheme: str) -> str:
        path = {"https": "KdcProxy", "wss": "KdcTunnel"}[scheme]
        return f"{scheme}://{PROXY}:{self.daemon.ports[0]}/{path}"

    def exchanges(self, after: int) -> list[dict[str, str]]:
        return exchanges_of(self.daemon, after)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory, heimdal_root: Path) -> Iterator[Networks]:
    del heimdal_root  # it is downloaded from the real network
    directory = tmp_path_factory.mktemp("networks")
    authority = Authority(directory / "tls")
    pair = authority.issue(PROXY)
    users = [Principal(name=user, password=PASSWORD, options=("+requires_preauth",)) for user in USERS]
    with ExitStack() as stack:
        inside = stack.enter_context(NetworkNamespace(directory))
        realm = stack.enter_context(
            MitRealm(directory / "realm", name=REALM, principals=[*users, Principal(name=SERVICE)])
        )
        realm.start_kdc(addresses=("0.0.0.0",), port=88)
        config = f"""
            [[listen]]
            address = "0.0.0.0:8443"
            [tls]
            certificate = "{pair.certificate}"
            key = "{pair.key}"
            [tunnel]
            paths = ["/KdcTunnel"]
            [realms."{REALM}"]
            kdc = ["127.0.0.1:88"]
            kpasswd = ["{realm.kpasswd_endpoint}"]
        """
        daemon = stack.enter_context(Daemon(directory / "kkdcpd", config))
        for protocol in ("tcp", "udp"):
            inside.filter("input", f"iifname company {protocol} dport != 8443 drop")
        outside = stack.enter_context(NetworkNamespace(directory))
        outside.link_to(inside, "company", ours=f"{PROGRAMS}/24", theirs=f"{PROXY}/24")
        yield Networks(daemon=daemon, authority=authority)


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def agent(networks: Networks, scheme: str, tmp_path: Path) -> Iterator[Program]:
    with running_agent(
        tmp_path, networks, networks.url(scheme), "--realm", REALM, "--listen", "127.0.0.1:10088"
    ) as agent:
        yield agent


def running_agent(home: Path, networks: Networks, *arguments: str) -> Program:
    agent = Program(
        "agent",
        *(sys.executable, "-m", "kkdcpd", "agent", *arguments),
        environment=environment(home, SSL_CERT_FILE=networks.authority.certificate),
    )
    try:
        agent.wait_for_line(lambda line: " agent_ready " in line)
    except BaseException:
        agent.stop()
        raise
    return agent


def test_program_cannot_reach_the_kdc_itself(networks: Networks, tmp_path: Path) -> None:
    del networks
    servers = RealmServers(kdc=(f"tcp/{PROXY}:88",))
    client = KerberosClient(tmp_path, {REALM: servers}, libdefaults=("max_retries = 1", "kdc_timeout = 1"))
    assert "Cannot contact any KDC" in client.kinit("mit-https", PASSWORD).output


def test_mit_programs_log_on_and_change_a_password(
    networks: Networks, agent: Program, scheme: str, tmp_path: Path
) -> None:
    del agent
    before = len(networks.daemon.lines)
    client = KerberosClient(tmp_path / "client", {REALM: RealmServers(kdc=())})
    client.krb5_conf.write_text(mit_text(AGENT, is_whole=True))
    user = f"mit-{scheme}"
    client.kinit(user, PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()
    client.kpasswd(user, PASSWORD, NEW_PASSWORD).expect_ok()
    client.kinit(user, NEW_PASSWORD).expect_ok()
    networks.daemon.wait_for_line(lambda line: "KPASSWD" in line, after=before)
    exchanges = networks.exchanges(before)
    assert {(line["client"], line["outcome"]) for line in exchanges} == {(PROGRAMS, "answered")}


def test_heimdals_programs_log_on_and_change_a_password(
    networks: Networks, agent: Program, scheme: str, heimdal_root: Path, tmp_path: Path
) -> None:
    del networks, agent
    client = HeimdalClient(tmp_path / "client", heimdal_root, {REALM: RealmServers(kdc=())})
    (tmp_path / "client" / "krb5.conf").write_text(heimdal_text(AGENT))
    user = f"heimdal-{scheme}"
    client.kinit(user, PASSWORD).expect_ok()
    client.kgetcred(SERVICE).expect_ok()
    assert "Success" in client.kpasswd(user, PASSWORD, NEW_PASSWORD).output
    client.kinit(user, NEW_PASSWORD).expect_ok()


def test_java_logs_on_and_gets_a_ticket(
    networks: Networks, agent: Program, scheme: str, tmp_path: Path
) -> None:
    del networks, agent
    krb5_conf = tmp_path / "krb5.conf"
    krb5_conf.write_text(java_text(AGENT))
    command = (
        *("java", f"-Djava.security.krb5.conf={krb5_conf}", str(LOGIN)),
        *(f"java-{scheme}@{REALM}", SERVICE.replace("/", "@")),
    )
    done = run(*command, environment=environment(tmp_path), stdin=f"{PASSWORD}\n")
    assert "has a ticket" in done.expect_ok().output


@pytest.mark.parametrize("dead", ["https://10.9.0.1:9/KdcProxy", "wss://10.9.0.1:9/KdcTunnel"])
def test_proxy_behind_a_silent_firewall_costs_no_log_on_and_no_second_proof(
    dead: str, networks: Networks, scheme: str, tmp_path: Path
) -> None:
    """The firewall drops packets to the first proxy of the agent."""
    before = len(networks.daemon.lines)
    arguments = (dead, networks.url(scheme), "--realm", REALM, "--listen", "127.0.0.1:10088")
    with running_agent(tmp_path, networks, *arguments):
        client = KerberosClient(tmp_path / "client", {REALM: RealmServers(kdc=())})
        client.krb5_conf.write_text(mit_text(AGENT, is_whole=True))
        client.kinit("bystander", PASSWORD).expect_ok()
        networks.daemon.wait_for_line(lambda line: "reply=AS_REP" in line, after=before)
        replies = [line["reply"] for line in networks.exchanges(before)]
        assert replies == ["KRB_ERROR", "AS_REP"]


def test_drop_in_is_there_while_the_agent_runs_and_only_then(networks: Networks, tmp_path: Path) -> None:
    folder = tmp_path / "krb5.conf.d"
    folder.mkdir()
    drop_in = folder / "kkdcpd-agent.conf"
    sockets = tmp_path / "sockets"
    agent = running_agent(
        *(tmp_path, networks, networks.url("https"), "--realm", REALM),
        *("--socket", str(sockets), "--write-krb5-conf", str(drop_in)),
    )
    with agent:
        assert f"kdc = {sockets}/kdc" in drop_in.read_text()
        assert (sockets / "kdc").is_socket()
    assert not drop_in.exists()
    assert not (sockets / "kdc").exists()
    assert not any("[realms]" in line for line in agent.lines)


def test_program_ends_at_once_if_the_proxy_is_unreachable(networks: Networks, tmp_path: Path) -> None:
    arguments = (f"https://{PROXY}:9/KdcProxy", "--realm", REALM, "--listen", "127.0.0.1:10088")
    with running_agent(tmp_path, networks, *arguments):
        client = KerberosClient(tmp_path / "client", {REALM: RealmServers(kdc=())})
        client.krb5_conf.write_text(mit_text(AGENT, is_whole=True))
        assert "Generic error" in client.kinit("mit-https", PASSWORD).output
