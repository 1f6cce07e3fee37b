"""Certificates and revocation lists outside their dates, as an administrator or a wrong clock has them."""

import contextlib
import datetime
import http.client
import json
import os
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.authority import Authority, CertificateFiles
from lab.daemon import Daemon
from lab.program import Completed, run
from tests.supervisor.house import event_of
from tests.support.waiting import wait_until

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A kkdcpd with its certificate, and the socket for its notifications to systemd."""

    folder: Path
    authority: Authority
    daemon: Daemon
    notifications: socket.socket

    @property
    def pair(self) -> CertificateFiles:
        return CertificateFiles(certificate=self.folder / "server.pem", key=self.folder / "server.key")

    def command(self, *arguments: str) -> Completed:
        config = str(self.daemon.config)
        return run(sys.executable, "-m", "kkdcpd", *arguments, "--config", config, environment=os.environ)

    def get(self, path: str) -> tuple[int, str]:
        port = self.daemon.ports[-1]
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        ) as client:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/status")[1])
        return found

    def valid_metric(self) -> list[float]:
        lines = self.get("/metrics")[1].splitlines()
        return [float(line.split()[-1]) for line in lines if line.startswith("kkdcpd_certificate_valid{")]

    def served_certificate(self) -> bytes:
        """The certificate that a client is shown."""
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", self.daemon.ports[0])))

    def renew(self, pair: CertificateFiles) -> None:
        """Replace certificate and key, each by a rename."""
        for new, old in ((pair.key, self.pair.key), (pair.certificate, self.pair.certificate)):
            shutil.copy(new, old.with_suffix(".new"))
            old.with_suffix(".new").rename(old)

    def wait_for(self, event: str, after: int = 0) -> str:
        return self.daemon.wait_for_line(
            lambda line: event_of(line) == event, after=after, timeout=PATIENCE_SECONDS
        )


@contextlib.contextmanager
def run_site(folder: Path, authority: Authority, *, tls: str = "", listen: str = "") -> Iterator[Site]:
    """Serve `server.pem` of the authority's folder."""
    text = f"""
        [[listen]]
        address = "127.0.0.1:0"
        {listen}
        [tls]
        certificate = "{folder}/server.pem"
        key = "{folder}/server.key"
        {tls}
        [realms."EXAMPLE.COM"]
        kdc = ["192.0.2.1"]
        [process]
        workers = 1
        control = "{folder}/control.sock"
        [admin]
        address = "127.0.0.1:0"
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.settimeout(PATIENCE_SECONDS)
        notifications.bind(str(folder / "notify.sock"))
        environment = {"NOTIFY_SOCKET": str(folder / "notify.sock")}
        with Daemon(folder / "daemon", text, environment=environment) as daemon:
            yield Site(folder=folder, authority=authority, daemon=daemon, notifications=notifications)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def soon(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)


def issue_outside_dates(authority: Authority, which: str, file_name: str = "server") -> CertificateFiles:
    if which == "expired":
        return authority.issue("127.0.0.1", file_name=file_name, is_expired=True)
    return authority.issue("127.0.0.1", file_name=file_name, begins=soon(3600))


@pytest.mark.parametrize(("which", "words"), [("expired", "expired on"), ("future", "is not valid before")])
def test_certificate_outside_its_dates_is_served_and_shown_everywhere(
    tmp_path: Path, authority: Authority, which: str, words: str
) -> None:
    pair = issue_outside_dates(authority, which)
    with run_site(tmp_path, authority) as site:
        assert b"READY=1" in site.notifications.recv(4096)
        line = site.wait_for("certificate_outside_dates")
        assert " error " in line
        assert words in line
        wait_until(lambda: site.get("/readyz")[0] == 200, timeout=PATIENCE_SECONDS)
        (certificate,) = site.status()["certificates"]
        assert (certificate["file"], certificate["valid"], words in certificate["problem"]) == (
            str(pair.certificate),
            False,
            True,
        )
        assert certificate["names"] == ["ip:127.0.0.1"]
        assert site.valid_metric() == [0.0]
        assert site.served_certificate()
        done = site.command("check")
        assert (
            done.exit_code,
            f"error: tls.certificate: the certificate in {pair.certificate} {words}" in done.output,
        ) == (
            78,
            True,
        )


def test_certificate_that_is_valid_is_kept_until_the_new_one_is_within_its_dates(
    tmp_path: Path, authority: Authority
) -> None:
    authority.issue("127.0.0.1")
    with run_site(tmp_path, authority) as site:
        before = site.served_certificate()
        site.renew(issue_outside_dates(authority, "expired", "new"))
        assert 'expired on 2001-01-02 00:00 UTC" remedy="renew it' in site.wait_for("reload_failed")
        done = site.command("reload")
        assert (done.exit_code, "generation 1 serves on" in done.output) == (78, True)
        assert site.served_certificate() == before
        assert site.valid_metric() == [1.0]
        after = len(site.daemon.lines)
        site.renew(authority.issue("127.0.0.1", file_name="new", begins=soon(4)))
        assert "is not valid before" in site.wait_for("reload_failed", after)
        assert site.served_certificate() == before
        site.wait_for("reloaded", after)
        wait_until(lambda: site.served_certificate() != before, timeout=PATIENCE_SECONDS)


def test_certificate_that_has_expired_may_be_replaced_by_another_that_has(
    tmp_path: Path, authority: Authority
) -> None:
    """The reload does not replace a valid certificate, and other settings can be changed."""
    issue_outside_dates(authority, "expired")
    with run_site(tmp_path, authority) as site:
        before = site.served_certificate()
        site.command("reload").expect_ok()
        site.renew(issue_outside_dates(authority, "expired", "new"))
        changed = site.wait_for("certificate_changed")
        assert f"file={site.pair.certificate} " in changed
        assert "names=ip:127.0.0.1" in changed
        assert "expires=2001-01-02T00:00:00Z" in changed
        wait_until(lambda: site.served_certificate() != before, timeout=PATIENCE_SECONDS)
        site.renew(authority.issue("127.0.0.1", file_name="new"))
        wait_until(lambda: site.valid_metric() == [1.0], timeout=PATIENCE_SECONDS)


def test_authority_and_list_outside_their_dates_are_no_reason_not_to_start(
    tmp_path: Path, authority: Authority
) -> None:
    authority.issue("127.0.0.1")
    authority.revocation_list(is_expired=True)
    tls = f'client_ca = "{authority.certificate}"\nclient_crl = "{tmp_path}/crl.pem"'
    with run_site(tmp_path, authority, tls=tls, listen='client_certificates = "optional"') as site:
        assert "client_crl" in site.wait_for("certificate_outside_dates")
        wait_until(lambda: site.get("/readyz")[0] == 200, timeout=PATIENCE_SECONDS)
        valid = {each["kind"]: each["valid"] for each in site.status()["certificates"]}
        assert valid == {"server": True, "client_ca": True, "client_crl": False}
        done = site.command("check")
        assert (done.exit_code, "tls.client_crl: the revocation list of " in done.output) == (78, True)
        authority.revocation_list()
        wait_until(lambda: site.valid_metric() == [1.0] * 3, timeout=PATIENCE_SECONDS)
        after = len(site.daemon.lines)
        authority.revocation_list(is_expired=True)
        assert "revocation list" in site.wait_for("reload_failed", after)
        assert site.valid_metric() == [1.0] * 3
