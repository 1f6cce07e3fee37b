"""Clients that find the KDC proxy in a real DNS server, by the records of `kkdcpd dns-records`."""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from kkdcpd.cli import main
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon
from lab.dns import KnotServer
from lab.namespace import NetworkNamespace
from lab.program import Completed
from lab.realm import MitRealm, Principal, oversized_tickets

REALM = "KK.TEST"
PASSWORD = "correct horse"
PROXY = "proxy.kk.test"
DNS_ADDRESS = "127.0.0.54"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A realm behind a proxy, a DNS server, and a client that knows only the DNS server."""

    realm: MitRealm
    daemon: Daemon
    knot: KnotServer
    client: KerberosClient
    directory: Path

    def url(self, host: str = PROXY) -> str:
        return f"https://{host}:{self.daemon.ports[0]}/KdcProxy"

    def set_zone(self, text: str) -> None:
        self.knot.set_zone("kk.test", f"proxy A 127.0.0.1\nkdc A 127.0.0.1\n{text}")

    def publish(self, *arguments: str, more: str = "") -> None:
        """Publish the output of `kkdcpd dns-records` and the addresses of the hosts."""
        with redirect_stdout(StringIO()) as output:
            assert main(["dns-records", REALM, *arguments]) == 0
        self.set_zone(f"{output.getvalue()}\n{more}")

    def run(self, *command: str, stdin: str) -> Completed:
        """Run a program of the client, with a trace, at a host that asks the DNS server."""
        resolv_conf, hosts = self.directory / "resolv.conf", self.directory / "hosts"
        resolv_conf.write_text(f"nameserver {DNS_ADDRESS}\n")
        hosts.write_text("127.0.0.1 localhost\n")
        script = (
            f"mount --bind {resolv_conf} /etc/resolv.conf && mount --bind {hosts} /etc/hosts"
            ' && KRB5_TRACE=/dev/stdout exec "$@"'
        )
        return self.client.run("unshare", "--mount", "sh", "-c", script, "sh", *command, stdin=stdin)

    def kinit(self) -> Completed:
        return self.run("kinit", "alice", stdin=f"{PASSWORD}\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Programs of this network namespace reach no other DNS server. Each test publishes its own records."""
    tmp_path = tmp_path_factory.mktemp("place")
    with ExitStack() as running:
        running.enter_context(NetworkNamespace(tmp_path))
        realm = running.enter_context(
            MitRealm(
                tmp_path / "realm",
                name=REALM,
                principals=[
                    Principal(name=name, password=PASSWORD, options=("+requires_preauth",))
                    for name in ("alice", "bob")
                ],
                options=oversized_tickets(),
            )
        )
        authority = Authority(tmp_path / "tls")
        pair = authority.issue(PROXY)
        config = f"""
            [[listen]]
            address = "127.0.0.1:0"
            [tls]
            certificate = "{pair.certificate}"
            key = "{pair.key}"
            [realms."{REALM}"]
            kdc = ["tcp://{realm.kdc.endpoints[0]}"]
            kpasswd = ["{realm.kpasswd_endpoint}"]
        """
        daemon = running.enter_context(Daemon(tmp_path / "daemon", config))
        knot = KnotServer(tmp_path / "knot", {"kk.test": ""}, address=DNS_ADDRESS, port=53)
        running.enter_context(knot)
        client = KerberosClient(
            tmp_path / "client", {REALM: RealmServers(kdc=())}, http_anchors=authority.certificate
        )
        krb5_conf = client.krb5_conf.read_text()
        client.krb5_conf.write_text(krb5_conf.replace("dns_lookup_kdc = false", "dns_lookup_kdc = true"))
        yield Place(realm=realm, daemon=daemon, knot=knot, client=client, directory=tmp_path)


def _sent(trace: str) -> list[str]:
    """Return the transport of each request in a trace, in order, such as HTTPS or TCP."""
    return re.findall(r"Sending (?:initial )?(HTTPS|TCP|UDP) request to ", trace)


def test_mit_clients_without_a_kdc_line_log_in_and_change_a_password(place: Place) -> None:
    place.publish(place.url())
    before = place.knot.queries().get("SRV", 0)
    login = place.kinit().expect_ok()
    assert set(_sent(login.output)) == {"HTTPS"}
    new = "another correct horse"
    changed = place.run("kpasswd", "bob", stdin=f"{PASSWORD}\n{new}\n{new}\n").expect_ok()
    assert "Password changed." in changed.output
    assert set(_sent(changed.output)) == {"HTTPS"}
    # libkrb5 looks up no SRV record if it has found a URI record.
    assert place.knot.queries().get("SRV", 0) == before
    place.daemon.wait_for_line(lambda line: " kind=KPASSWD_REQ " in line)


def test_failed_login_causes_no_second_look_up_because_of_the_flag_m(place: Place) -> None:
    place.publish(place.url())
    failed = place.run("kinit", "alice", stdin="wrong\n")
    assert "Password incorrect" in failed.output
    assert len(_sent(failed.output)) == 2  # without and with the proof


def test_kdcs_for_inside_clients_come_before_the_proxy(place: Place) -> None:
    kdc = f"kdc.kk.test:{place.realm.kdc.port}"
    place.publish(place.url(), "--kdc", kdc)
    assert _sent(place.kinit().expect_ok().output)[0] == "UDP"


def test_tcp_record_alone_does_not_come_before_the_proxy(place: Place) -> None:
    """The reason why `dns-records --kdc` prints udp records too."""
    kdc = f"kdc.kk.test:{place.realm.kdc.port}"
    place.publish(place.url(), more=f'_kerberos URI 1 0 "krb5srv:m:tcp:{kdc}"')
    assert _sent(place.kinit().expect_ok().output)[0] == "HTTPS"


def test_client_inside_whose_ticket_is_too_big_for_udp_needs_the_tcp_record_of_the_kdc(place: Place) -> None:
    kdc = f"kdc.kk.test:{place.realm.kdc.port}"
    place.publish(place.url(), more=f'_kerberos URI 1 0 "krb5srv:m:udp:{kdc}"')
    lost = place.kinit()
    assert "Response too big for UDP" in lost.output
    assert not lost.is_ok
    place.publish(place.url(), "--kdc", kdc)
    login = place.kinit().expect_ok()
    assert "Response too big for UDP" in login.output
    assert _sent(login.output)[-1] == "TCP"


def test_mit_clients_skip_the_url_of_a_websocket(place: Place) -> None:
    place.publish(f"wss://{PROXY}:{place.daemon.ports[0]}/KdcTunnel", place.url())
    login = place.kinit().expect_ok()
    assert set(_sent(login.output)) == {"HTTPS"}


@pytest.mark.parametrize(
    "zone",
    [
        """
        _kerberos URI 40 0 "krb5srv:m:udp:kdc.kk.test:1001"
        _kerberos URI 20 0 "krb5srv:m:kkdcp:https://proxy.kk.test:1002/KdcProxy"
        _kerberos URI 10 0 "krb5srv:m:tcp:kdc.kk.test:1003"
        _kerberos URI 5 0 "krb5srv:m:kkdcp:wss://proxy.kk.test:1004/KdcTunnel"
        _kerberos URI 30 0 "krb5srv::tcp:kdc.kk.test:1005"
        _kerberos._udp SRV 0 0 1006 kdc
        """,
        """
        _kerberos URI 5 0 "krb5srv:m:kkdcp:http://proxy.kk.test:1004/"
        _kerberos URI 5 0 "krb5srv:m:sctp:kdc.kk.test:1005"
        _kerberos._udp SRV 20 0 1001 kdc
        _kerberos._udp SRV 10 0 1002 kdc
        _kerberos._tcp SRV 5 0 1003 kdc
        """,
    ],
    ids=["URI", "SRV"],
)
def test_mit_client_uses_the_servers_in_the_order_that_locate_shows(place: Place, zone: str) -> None:
    """No program listens at the ports, so the client goes through all servers."""
    place.set_zone(zone)
    trace = place.kinit().output
    used = re.findall(r" (?:dgram|stream|https) \S+:(\d+)", trace)
    program = (sys.executable, "-m", "kkdcpd", "locate", "--as", "mit", "--kdc", REALM)
    shown = place.run(*program, stdin="").expect_ok().output
    expected = re.findall(r"^  \d+  \w+://\S+:(\d+)", shown, re.MULTILINE)
    assert list(dict.fromkeys(used)) == expected
