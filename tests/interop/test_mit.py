"""MIT's clients and MIT's KDC, with only kkdcpd between them."""

import os
from pathlib import Path

import pytest

from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.program import Completed
from lab.realm import oversized_tickets
from tests.interop.conftest import PASSWORD, REALM, SERVICE, Site, SiteMaker


@pytest.fixture(params=["tcp_site", "udp_site"])
def one_transport(request: pytest.FixtureRequest) -> tuple[Site, str]:
    site: Site = request.getfixturevalue(request.param)
    return site, str(request.param).partition("_")[0]


def test_login_and_service_ticket_work_over_either_transport(one_transport: tuple[Site, str]) -> None:
    site, transport = one_transport
    before = site.mark()
    client = site.clients()
    client.kinit("alice", PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()
    assert SERVICE in client.klist().output
    exchanges = site.all_exchanges(before)
    assert [line["kind"] for line in exchanges] == ["AS_REQ", "AS_REQ", "TGS_REQ"]
    assert [line["reply"] for line in exchanges] == ["KRB_ERROR", "AS_REP", "TGS_REP"]
    assert {line["transport"] for line in exchanges} == {transport}
    assert {line["attempts"] for line in exchanges} == {"1"}
    assert {line["cname"] for line in exchanges} == {"alice"}


def test_password_change_works_over_either_transport(one_transport: tuple[Site, str]) -> None:
    site, transport = one_transport
    before = site.mark()
    site.clients().kpasswd("bob", PASSWORD, "battery staple").expect_ok()
    assert site.clients().kinit("bob", "battery staple").is_ok
    refused = site.clients().kinit("bob", PASSWORD)
    assert not refused.is_ok
    assert "Password incorrect" in refused.output
    [change] = [line for line in site.all_exchanges(before) if line["kind"] == "KPASSWD_REQ"]
    assert (change["reply"], change["transport"], change["version"]) == ("KPASSWD_REP", transport, "0x0001")


def test_bare_host_gets_requests_over_tcp(site: Site) -> None:
    before = site.mark()
    site.clients().kinit("alice", PASSWORD).expect_ok()
    assert {line["transport"] for line in site.all_exchanges(before)} == {"tcp"}


@pytest.mark.parametrize("size", [48_000, 62_000], ids=["MaxTokenSize", "the largest"])
def test_user_to_user_ticket_is_issued_with_large_tickets(make_site: SiteMaker, size: int) -> None:
    """The request contains the TGT three times: as its proof, as an additional ticket, and within FAST."""
    site = make_site(endpoint="tcp://{}", options=oversized_tickets(size=size))
    client = site.clients()
    client.kinit("alice", PASSWORD).expect_ok()
    before = site.mark()
    client.kvno("alice", "--u2u", client.credential_cache).expect_ok()
    [exchange] = site.wait_for_exchanges(1, before)
    assert (exchange["kind"], exchange["reply"]) == ("TGS_REQ", "TGS_REP")
    assert int(exchange["in"]) > 3 * size


def test_wrong_password_is_an_error_of_the_kdc_and_in_the_log(site: Site) -> None:
    before = site.mark()
    assert "Password incorrect" in site.clients().kinit("carol", "wrong").output
    last = site.all_exchanges(before)[-1]
    assert (last["cname"], last["error"], last["error_name"]) == ("carol", "24", "KDC_ERR_PREAUTH_FAILED")


def test_unknown_user_is_an_error_of_the_kdc(site: Site) -> None:
    assert "not found in Kerberos database" in site.clients().kinit("mallory", "x").output


def test_ticket_too_big_for_udp_comes_by_tcp_and_the_client_never_knows(big_ticket_site: Site) -> None:
    before = big_ticket_site.mark()
    client = big_ticket_site.clients()
    client.kinit("alice", PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()
    exchanges = big_ticket_site.all_exchanges(before)
    assert "52" not in [line.get("error") for line in exchanges]
    [big] = [line for line in exchanges if line["reply"] == "AS_REP"]
    assert (big["transport"], big["attempts"]) == ("tcp", "2")
    assert int(big["out"]) > 4096


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_certificate_is_accepted_by_name_and_by_address(site: Site, tmp_path: Path, host: str) -> None:
    port = site.daemon.ports[1 if host == "[::1]" else 0]
    client = _client(tmp_path, f"https://{host}:{port}/KdcProxy", site.authority.certificate)
    client.kinit("alice", PASSWORD).expect_ok()


def test_certificate_is_chosen_by_server_name(site: Site, tmp_path: Path) -> None:
    _kinit_at(site, tmp_path / "other", "other.kk.test").expect_ok()


def test_client_that_asks_for_an_unknown_name_refuses_the_default_certificate(
    site: Site, tmp_path: Path
) -> None:
    before = site.mark()
    assert "Cannot contact any KDC" in _kinit_at(site, tmp_path / "unknown", "unknown.kk.test").output
    site.daemon.wait_for_line(lambda line: "handshake failed" in line.replace("_", " "), after=before)


def _kinit_at(site: Site, directory: Path, name: str) -> Completed:
    """Log on by a name that only this client's /etc/hosts has."""
    client = _client(directory, f"https://{name}:{site.daemon.ports[0]}/KdcProxy", site.authority.certificate)
    hosts = directory / "hosts"
    hosts.write_text(f"127.0.0.1 {name}\n")
    unshare = ("unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]))
    command = f"mount --bind {hosts} /etc/hosts && exec kinit alice"
    return client.run(*unshare, "sh", "-c", command, stdin=f"{PASSWORD}\n")


def test_certificate_of_an_unknown_authority_is_refused_by_the_client_and_the_log_has_the_reason(
    site: Site, tmp_path: Path
) -> None:
    before = site.mark()
    stranger = Authority(tmp_path / "stranger")
    client = _client(tmp_path, site.url, stranger.certificate)
    assert not client.kinit("alice", PASSWORD).is_ok
    line = site.daemon.wait_for_line(lambda line: "tls_handshake_failed" in line, after=before)
    assert "http_anchors" in line
    assert not site.all_exchanges(before)


def test_name_that_is_not_in_the_certificate_is_logged_with_advice(site: Site, tmp_path: Path) -> None:
    before = site.mark()
    assert not _kinit_at(site, tmp_path, "kdc.other.example").is_ok
    line = site.daemon.wait_for_line(lambda line: "tls_handshake_failed" in line, after=before)
    assert "reason=TLSV1_ALERT_INTERNAL_ERROR" in line
    assert "the name in its URL is not among the certificate's names" in line


def _client(directory: Path, url: str, anchors: Path) -> KerberosClient:
    return KerberosClient(directory / "client", {REALM: RealmServers.behind(url)}, http_anchors=anchors)
