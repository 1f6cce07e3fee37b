"""systemd's units with a real systemd: a machine installs, starts, uses and upgrades the package."""

import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from lab.authority import Authority, CertificateFiles
from lab.client import KerberosClient, RealmServers
from lab.namespace import NetworkNamespace
from lab.program import run
from lab.realm import MitRealm, Principal
from tests.deploy.conftest import REPOSITORY, RootMaker
from tests.deploy.debian import Machine
from tests.support.http_client import HttpClient, post
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(900)

PASSWORD = "sandboxed-but-alive"
NAME = "localhost"  # the clients' name of the machine
MAX_EXPOSURE = 1.5
SECONDS_TO_HAPPEN = 10.0
MANY_STARTS_SECONDS = 60.0

# journald multiplies the burst by a factor that grows with the free disk (about 4 at 5 GiB, at most 6).
JOURNALD_OF_A_SMALL_DISK = "[Journal]\nRateLimitIntervalSec=30s\nRateLimitBurst=50\n"
FLOOD = 1000

CONFIG = """\
[realms."{realm.name}"]
kdc = ["tcp://{realm.kdc.endpoints[0]}"]
kpasswd = ["{realm.kpasswd_endpoint}"]
"""


class Site:
    """A machine with kkdcpd, in its own network with a realm."""

    def __init__(self, machine: Machine, realm: MitRealm, authority: Authority, folder: Path) -> None:
        self.machine = machine
        self.realm = realm
        self.authority = authority
        self.etc = machine.root.path / "etc"
        self.client = KerberosClient(
            folder / "client",
            {realm.name: RealmServers.behind(f"https://{NAME}/KdcProxy")},
            http_anchors=authority.certificate,
        )
        self.trust = ssl.create_default_context(cafile=str(authority.certificate))

    @property
    def config(self) -> Path:
        return self.etc / "kkdcpd/config.toml"

    def renew(self, lineage: str = "/etc/letsencrypt/live/kerberos.example.com") -> None:
        """Let certbot have a new certificate, and run the example of a deploy hook."""
        live = self.machine.root.path / lineage.lstrip("/")
        live.mkdir(parents=True, exist_ok=True)
        pair = issue(self.authority)
        (live / "fullchain.pem").write_bytes(pair.certificate.read_bytes())
        (live / "privkey.pem").write_bytes(pair.key.read_bytes())
        (live / "privkey.pem").chmod(0o600)
        hook = self.machine.root.copy_in(REPOSITORY / "systemd/examples/certbot-deploy-hook")
        self.machine.output_of("env", f"RENEWED_LINEAGE={lineage}", "sh", hook)

    def served_certificate(self) -> int:
        """Return the serial number of the served certificate."""
        with connect(self.trust) as tls:
            found = tls.getpeercert()
        assert found
        return int(str(found["serialNumber"]), 16)

    def log(self) -> str:
        return self.machine.output_of("journalctl", "--unit=kkdcpd.service", "--no-pager", "--output=cat")

    def property(self, name: str) -> str:
        return self.machine.output_of("systemctl", "show", f"--property={name}", "--value", "kkdcpd.service")

    def drop_in(self, text: str) -> None:
        folder = self.etc / "systemd/system/kkdcpd.service.d"
        folder.mkdir(exist_ok=True)
        (folder / "test.conf").write_text(text)
        self.machine.output_of("systemctl", "daemon-reload")
        self.machine.output_of("systemctl", "restart", "kkdcpd.service")

    def drop_nothing_in(self) -> None:
        self.drop_in("")


def issue(authority: Authority) -> CertificateFiles:
    return authority.issue(NAME, "127.0.0.1", "::1", file_name="machine")


def connect(trust: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection((NAME, 443), timeout=SECONDS_TO_HAPPEN)
    return trust.wrap_socket(plain, server_hostname=NAME)


class Visitors:
    """Send requests until the context ends; `failures` are the errors of requests without a response."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        self.failures: list[str] = []
        self.served = 0
        self._trust = trust
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._is_over.wait(0.01):
            try:
                with connect(self._trust) as tls:
                    tls.sendall(b"GET /KdcProxy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if not tls.recv(64).startswith(b"HTTP/1.1 405 "):
                        self.failures.append("another answer")
            except OSError as error:
                self.failures.append(repr(error))
            self.served += 1


@pytest.fixture(scope="module")
def site(
    make_root: RootMaker, deb: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("units")
    root = make_root()
    root.install(deb)
    limits = root.path / "etc/systemd/journald.conf.d/test.conf"
    limits.parent.mkdir()
    limits.write_text(JOURNALD_OF_A_SMALL_DISK)
    with ExitStack() as running:
        running.enter_context(NetworkNamespace(folder))
        alice = Principal(name="alice", password=PASSWORD, options=("+requires_preauth",))
        realm = running.enter_context(MitRealm(folder / "realm", principals=[alice]))
        machine = running.enter_context(Machine(root))
        site = Site(machine, realm, authority, folder)
        site.config.write_text(CONFIG.format(realm=realm))
        site.renew()
        machine.output_of("systemctl", "enable", "--now", "kkdcpd.socket", "kkdcpd.service")
        yield site


@pytest.mark.parametrize("name", ["kkdcpd.service", "kkdcpd-agent.service"])
def test_exposure_is_low(name: str) -> None:
    command = ("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}")
    unit = str(REPOSITORY / "systemd" / name)
    result = run(*command, unit, environment=os.environ).expect_ok()
    found = re.search(rf"Overall exposure level for {name}: ([\d.]+)", result.output)
    assert found
    assert float(found[1]) <= MAX_EXPOSURE


def test_systemd_finds_no_fault(site: Site) -> None:
    # The pages have their own test; this machine has no man to show them.
    for name in ("kkdcpd", "kkdcpd-agent"):
        units = (f"{name}.service", f"{name}.socket")
        assert site.machine.output_of("systemd-analyze", "verify", "--man=no", *units) == ""
    user = ("systemd-analyze", "--user", "verify", "--man=no", "/usr/lib/systemd/user/kkdcpd-agent.service")
    assert site.machine.output_of("env", "XDG_RUNTIME_DIR=/tmp", *user) == ""


def test_agent_serves_local_programs_at_the_sockets_of_systemd(site: Site, tmp_path: Path) -> None:
    (site.etc / "hosts").write_text(f"127.0.0.1 {NAME}\n")
    (site.etc / "kkdcpd/ca.pem").write_bytes(site.authority.certificate.read_bytes())
    (site.etc / "kkdcpd/agent.env").write_text(
        f"AGENT_ARGUMENTS=https://{NAME}/KdcProxy --realm {site.realm.name}\n"
        "SSL_CERT_FILE=/etc/kkdcpd/ca.pem\n"
    )
    site.machine.output_of("systemctl", "start", "kkdcpd-agent.socket")
    try:
        for address, preference in (("127.0.0.1", 1), ("[::1]", 4096)):
            servers = RealmServers(kdc=(f"{address}:88",))
            client = KerberosClient(
                tmp_path / f"client-{preference}",
                {site.realm.name: servers},
                libdefaults=(f"udp_preference_limit = {preference}",),
            )
            logged_on = client.kinit("alice", PASSWORD)
            assert logged_on.is_ok, site.machine.output_of("journalctl", "--unit=kkdcpd-agent.service")
        pid = site.machine.output_of("systemctl", "show", "--value", "--property=MainPID", "kkdcpd-agent")
        status = site.machine.output_of("cat", f"/proc/{pid.strip()}/status")
        assert re.search(r"CapEff:\t0{16}\n", status)
    finally:
        site.machine.output_of("systemctl", "stop", "kkdcpd-agent.socket", "kkdcpd-agent.service")


def test_user_logs_in_through_the_sandbox(site: Site) -> None:
    site.client.kinit("alice", PASSWORD).expect_ok()
    assert site.property("StatusText")


def test_service_has_no_privilege(site: Site) -> None:
    status = site.machine.output_of("cat", f"/proc/{site.property('MainPID')}/status")
    result = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(result["Uid"].split()[0]) >= 61184  # systemd's range for dynamic users
    assert {result[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (result["NoNewPrivs"], result["Seccomp"]) == ("1", "2")


def test_key_stays_roots_and_its_groups(site: Site) -> None:
    mode_and_owners = site.machine.output_of("stat", "--format=%a %U %G", "/etc/kkdcpd/tls/key.pem")
    assert mode_and_owners == "640 root kkdcpd-tls"


def test_check_run_by_root_reads_files_as_the_service_does(site: Site) -> None:
    key = "/etc/kkdcpd/tls/key.pem"
    assert "read as kkdcpd, the user of kkdcpd.service" in site.machine.output_of("kkdcpd", "check")
    site.machine.output_of(
        "systemctl", "stop", "kkdcpd.socket", "kkdcpd.service"
    )  # the user ends with the service
    try:
        site.machine.output_of("kkdcpd", "check")
        site.machine.output_of("chmod", "0600", key)
        checked = site.machine.run("kkdcpd", "check")
        assert checked.exit_code == 78
        assert f"let the service's user read it: chgrp kkdcpd-tls {key} && chmod 0640 {key}" in checked.output
        site.machine.output_of("kkdcpd", "check", "--user", "root")
    finally:
        site.machine.output_of("chmod", "0640", key)
        site.machine.output_of("systemctl", "start", "kkdcpd.socket", "kkdcpd.service")


def test_certbots_hook_hands_over_a_renewed_certificate(site: Site) -> None:
    before = site.served_certificate()
    with Visitors(site.trust) as visitors:
        site.renew()
        assert site.served_certificate() != before
    assert (visitors.failures, visitors.served > 0) == ([], True)


def test_reload_of_a_broken_configuration_fails_and_changes_nothing(site: Site) -> None:
    good = site.config.read_text()
    try:
        site.config.write_text(good.replace("kdc =", "kcd ="))
        assert site.machine.run("systemctl", "reload", "kkdcpd").exit_code != 0
    finally:
        site.config.write_text(good)
    assert "did you mean kdc?" in site.log()
    assert site.property("ActiveState") == "active"
    site.client.kinit("alice", PASSWORD).expect_ok()
    site.machine.output_of("systemctl", "reload", "kkdcpd")


def test_client_that_connects_during_a_restart_waits(site: Site) -> None:
    before = site.property("MainPID")
    with Visitors(site.trust) as visitors:
        site.machine.output_of("systemctl", "restart", "kkdcpd.service")
        site.served_certificate()
    assert (visitors.failures, visitors.served > 0) == ([], True)
    assert site.property("MainPID") != before


def test_client_that_connects_during_an_upgrade_waits(site: Site, deb: Path) -> None:
    before = site.property("MainPID")
    with Visitors(site.trust) as visitors:
        site.machine.output_of("dpkg", "--install", f"/srv/{deb.name}")
        site.served_certificate()
    assert (visitors.failures, visitors.served > 0) == ([], True)
    assert site.property("MainPID") != before


def test_health_and_metrics_can_be_read(site: Site) -> None:
    site.machine.output_of("kkdcpd", "healthcheck")
    result = site.client.run("curl", "--silent", "http://127.0.0.1:9088/metrics").expect_ok()
    assert "kkdcpd_requests_total" in result.output


def test_curl_gets_an_explanation(site: Site) -> None:
    anchors = str(site.authority.certificate)
    result = site.client.run(
        "curl", "--silent", "-i", "--cacert", anchors, f"https://{NAME}/KdcProxy"
    ).expect_ok()
    assert result.output.startswith("HTTP/1.1 405 ")


def ask_until_closed(trust: ssl.SSLContext, count: int) -> Iterator[str]:
    """Send a number of requests, or until a draining worker ends the connection; yield the requests' ids."""
    with HttpClient(443, tls=trust, host=NAME) as client:
        for _ in range(count):
            response = client.ask(post(b"", method="OPTIONS"))
            yield response.request_id
            if response.headers.get("connection") == "close":
                return


def test_journal_keeps_every_line_of_a_flood(site: Site) -> None:
    """The unit's limit applies, not journald's: zero in the unit would mean journald's limit."""
    asked: set[str] = set()
    while len(asked) < FLOOD:
        asked |= set(ask_until_closed(site.trust, FLOOD - len(asked)))
    site.machine.output_of("journalctl", "--sync")
    logged = set(re.findall(r"\bexchange (?:.* )?id=(\w+) ", site.log()))
    assert len(asked - logged) == 0
    assert "lines_lost" not in site.log()


def test_socket_may_be_elsewhere(site: Site) -> None:
    """As docs/operations.md says: in a drop-in and in config.toml."""
    config = site.config.read_text()
    drop_in = site.etc / "systemd/system/kkdcpd.socket.d/test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Socket]\nListenStream=\nListenStream=127.0.0.2:443\n")
    try:
        site.config.write_text(f'[[listen]]\naddress = "127.0.0.2:443"\n{config}')
        restart_all(site)
        socket.create_connection(("127.0.0.2", 443)).close()
        assert "listen=https://127.0.0.2:443 " in site.log()
    finally:
        drop_in.unlink()
        site.config.write_text(config)
        restart_all(site)
    site.client.kinit("alice", PASSWORD).expect_ok()


def restart_all(site: Site) -> None:
    site.machine.output_of("systemctl", "daemon-reload")
    site.machine.output_of("systemctl", "restart", "kkdcpd.socket", "kkdcpd.service")


def test_watchdog_replaces_a_parent_that_hangs(site: Site) -> None:
    site.drop_in("[Service]\nWatchdogSec=1\n")
    try:
        hung = site.property("MainPID")
        site.machine.output_of("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "kkdcpd.service")
        wait_for_another(site, hung)
    finally:
        site.drop_nothing_in()
    site.client.kinit("alice", PASSWORD).expect_ok()


def wait_for_another(site: Site, pid: str) -> None:
    deadline = time.monotonic() + SECONDS_TO_HAPPEN
    while site.property("MainPID") in {pid, "0"} or site.property("ActiveState") != "active":
        assert time.monotonic() < deadline, site.log()
        time.sleep(0.1)


def test_wrong_configuration_is_not_tried_again_and_again(site: Site) -> None:
    good = site.config.read_text()
    try:
        site.config.write_text("nonsense = 1\n")
        assert site.machine.run("systemctl", "restart", "kkdcpd.service").exit_code != 0
        assert site.property("Result") == "exit-code"
        assert site.property("ExecMainStatus") == "78"
        assert site.property("ActiveState") == "failed"
    finally:
        site.config.write_text(good)
        site.machine.output_of("systemctl", "reset-failed", "kkdcpd.service", "kkdcpd.socket")
        site.machine.output_of("systemctl", "start", "kkdcpd.socket", "kkdcpd.service")


class Impatient:
    """A service that fails for a temporary reason, and that systemd starts ten times a second."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._folder = site.etc / "systemd/system/kkdcpd.service.d"
        self._config = site.config.read_text()

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        (self._folder / "test.conf").write_text("[Service]\nRestartSec=100ms\n")
        self._site.machine.output_of("systemctl", "daemon-reload")
        return self

    def __exit__(self, *_: object) -> None:
        self._site.config.write_text(self._config)
        self._site.drop_nothing_in()

    def fail(self, exit_code: int) -> None:
        """Start the service, and wait for more failures than one; systemd sets no limit."""
        self._site.machine.output_of("systemctl", "stop", "kkdcpd.service")
        assert self._site.machine.run("systemctl", "start", "kkdcpd.service").exit_code != 0
        self._wait(lambda: int(self._site.property("NRestarts")) > 1)
        assert f"code=exited, status={exit_code}/" in self._site.log()
        assert self._site.property("StartLimitIntervalUSec") == "0"

    def recover(self) -> None:
        """Wait until systemd has started the service."""
        self._wait(lambda: self._site.property("ActiveState") == "active")

    def _wait(self, is_so: Callable[[], bool]) -> None:
        wait_until(is_so, timeout=MANY_STARTS_SECONDS)


def test_missing_file_is_waited_for(site: Site) -> None:
    """A file system that is mounted late."""
    key = site.etc / "kkdcpd/tls/key.pem"
    away = key.with_suffix(".away")
    with Impatient(site) as service:
        key.rename(away)
        try:
            service.fail(66)
        finally:
            away.rename(key)
        service.recover()


def test_missing_address_is_waited_for(site: Site) -> None:
    """An interface that comes up late."""
    listen = '[[listen]]\naddress = "*:443"\n[[listen]]\naddress = "192.0.2.77:8443"\n'
    with Impatient(site) as service:
        site.config.write_text(listen + site.config.read_text())
        service.fail(1)
        run("ip", "address", "add", "192.0.2.77/32", "dev", "lo", environment=os.environ).expect_ok()
        service.recover()


def test_certificate_outside_its_dates_does_not_prevent_the_start(site: Site) -> None:
    """A host without a battery for its clock, after a power cut."""
    pair = site.authority.issue(NAME, file_name="expired", is_expired=True)
    tls = site.etc / "kkdcpd/tls"
    kept = {name: (tls / name).read_bytes() for name in ("certificate.pem", "key.pem")}
    (tls / "certificate.pem").write_bytes(pair.certificate.read_bytes())
    (tls / "key.pem").write_bytes(pair.key.read_bytes())
    try:
        site.machine.output_of("systemctl", "restart", "kkdcpd.service")
        assert site.property("ActiveState") == "active"
        assert "certificate_outside_dates" in site.log()
        assert site.machine.run("kkdcpd", "check").exit_code == 78
    finally:
        for name, contents in kept.items():
            (tls / name).write_bytes(contents)
        site.machine.output_of("systemctl", "restart", "kkdcpd.service")


def test_key_may_come_as_a_credential(site: Site) -> None:
    config = site.config.read_text()
    example = (REPOSITORY / "systemd/examples/load-credential.conf").read_text()
    result = re.findall(r"^#   (.*)$", example, re.MULTILINE)
    before = site.served_certificate()
    site.renew()
    site.config.write_text("\n".join([*result, config]))
    try:
        # Not even the group may list the folder.
        site.machine.output_of("chmod", "0700", "/etc/kkdcpd/tls")
        site.drop_in(example)
        assert site.served_certificate() != before
        site.machine.output_of("kkdcpd", "check")
    finally:
        site.machine.output_of("chmod", "0750", "/etc/kkdcpd/tls")
        site.config.write_text(config)
        site.drop_nothing_in()


def test_removal_stops_it(site: Site, deb: Path) -> None:
    site.machine.output_of("dpkg", "--remove", "kkdcpd")
    try:
        state = site.machine.run("systemctl", "is-active", "kkdcpd.service").output.strip()
        assert state == "inactive", site.log()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((NAME, 443))
    finally:
        site.machine.output_of("dpkg", "--install", f"/srv/{deb.name}")
        site.machine.output_of("systemctl", "start", "kkdcpd.socket", "kkdcpd.service")
