"""Each fenced block of README and docs works as printed with the program that reads it.

The blocks run on a machine with systemd, kkdcpd's package and MIT's client programs, in a network where DNS
knows example.com and a KDC answers at dc1.example.com.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from kkdcpd.commands.krb5_texts import AgentService, LocalAddress, heimdal_text, java_text, mit_text
from kkdcpd.config.problems import Location
from kkdcpd.config.reader import Table
from kkdcpd.config.sections import upstream
from lab.authority import Authority
from lab.dns import KnotServer
from lab.namespace import NetworkNamespace
from lab.program import Completed, run
from lab.realm import MitRealm, Principal
from tests.deploy.conftest import PIP_CONF, REPOSITORY, RootMaker, clone
from tests.deploy.debian import Machine
from tests.deploy.printed import Block, block, blocks, commands

pytestmark = pytest.mark.timeout(900)

PASSWORD = "as-it-is-printed"
ZONE = """\
kerberos A 127.0.0.1
dc1 A 127.0.0.1
dc2 A 127.0.0.1
"""
OPERATIONS = "docs/operations.md"
CONFIG = block(OPERATIONS, "toml", "aliases = ")


class Site:
    """The machine. The realm's servers and DNS have their standard ports."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.etc = machine.root.path / "etc"

    def run(self, text: str) -> Completed:
        """Run shell commands in the clone; a prompt for a password gets alice's password."""
        return self.machine.run("sh", "-euc", f"cd /srv/clone\n{text}", stdin=f"{PASSWORD}\n")

    def sh(self, text: str) -> str:
        """Run shell commands that must succeed; return their output."""
        return self.run(text).expect_ok().output

    def configure(self, text: str) -> None:
        (self.etc / "kkdcpd/config.toml").write_text(text)


def use_usual_ports(realm: MitRealm, dns: KnotServer) -> None:
    """Redirect the ports 53, 88 and 464 to the ports of the lab's servers."""
    kpasswd = int(realm.kpasswd_endpoint.rpartition(":")[2])
    for command in (
        "add table ip usual",
        "add chain ip usual output { type nat hook output priority -100; }",
        *(
            f"add rule ip usual output {transport} dport {usual} redirect to :{ours}"
            for usual, ours in ((53, dns.port), (88, realm.kdc.port), (464, kpasswd))
            for transport in ("tcp", "udp")
        ),
    ):
        run("nft", command, environment=os.environ).expect_ok()
    run("ip", "address", "add", "192.0.2.1/32", "dev", "lo", environment=os.environ).expect_ok()


@pytest.fixture(scope="module")
def site(
    make_root: RootMaker,
    deb: Path,
    wheels: Path,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("printed")
    root = make_root()
    root.install(deb)
    srv, etc = root.path / "srv", root.path / "etc"
    clone(srv / "clone")
    shutil.copytree(wheels, srv / "wheels")
    pair = authority.issue("kerberos.example.com", file_name="printed")
    (srv / "clone/fullchain.pem").write_bytes(pair.certificate.read_bytes())
    (srv / "clone/privkey.pem").write_bytes(pair.key.read_bytes())
    for trusted in ("ssl/certs/our-ca.pem", "ssl/certs/ca-certificates.crt"):
        (etc / trusted).write_bytes(authority.certificate.read_bytes())
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    with ExitStack() as running:
        running.enter_context(NetworkNamespace(folder))
        alice = Principal(name="alice", password=PASSWORD, options=("+requires_preauth",))
        realm = running.enter_context(MitRealm(folder / "realm", name="EXAMPLE.COM", principals=[alice]))
        dns = running.enter_context(KnotServer(folder / "dns", {"example.com": ZONE}))
        use_usual_ports(realm, dns)
        site = Site(running.enter_context(Machine(root)))
        site.sh(block(OPERATIONS, "sh", "privkey.pem").text)
        site.configure(CONFIG.text)
        site.sh(block(OPERATIONS, "sh", "systemctl enable").text)
        yield site


def take_toml(site: Site, printed: Block) -> None:
    """`kkdcpd check` accepts a configuration or a part of one."""
    whole = printed.text
    if "[realms." not in whole:
        whole += CONFIG.text
    (site.etc / "kkdcpd/printed.toml").write_text(whole)
    result = site.sh("kkdcpd check --config /etc/kkdcpd/printed.toml")
    assert ": valid; realms: EXAMPLE.COM" in result


def take_ini(site: Site, printed: Block) -> None:
    """A krb5.conf, or a drop-in for a unit."""
    section = re.match(r"\[(\w+)\]", printed.text)
    assert section
    INI[section[1]](site, printed)


def log_in_with(site: Site, printed: Block) -> None:
    """Use both services through kkdcpd: kinit at the KDC, kpasswd at the password server."""
    (site.etc / "krb5.conf").write_text(printed.text)
    site.sh("kdestroy -A\nkinit alice@EXAMPLE.COM\nklist")
    changed = f"{PASSWORD}\n{PASSWORD}-2\n{PASSWORD}-2\n"
    site.machine.run("kpasswd", "alice@EXAMPLE.COM", stdin=changed).expect_ok()
    site.machine.run(
        "kpasswd", "alice@EXAMPLE.COM", stdin=f"{PASSWORD}-2\n{PASSWORD}\n{PASSWORD}\n"
    ).expect_ok()
    log = site.machine.output_of("journalctl", "--unit=kkdcpd", "--output=cat")
    assert len(re.findall(r"kind=KPASSWD_REQ .*?outcome=answered", log)) >= 2


def drop_in(unit: str) -> Callable[[Site, Block], None]:
    def take(site: Site, printed: Block) -> None:
        """systemd accepts a drop-in, and the service still starts."""
        folder = site.etc / f"systemd/system/{unit}.d"
        folder.mkdir(exist_ok=True)
        config = site.etc / "kkdcpd/config.toml"
        before = config.read_text()
        (folder / "printed.conf").write_text(printed.text)
        try:
            if listen := re.search(r"^ListenStream=(\d.*)$", printed.text, re.MULTILINE):
                config.write_text(f'[[listen]]\naddress = "{listen[1]}"\n{before}')
            site.sh("systemctl daemon-reload\nsystemctl restart kkdcpd.socket kkdcpd.service")
            assert site.machine.output_of("systemd-analyze", "verify", "--man=no", unit) == ""
            assert site.machine.output_of("systemctl", "is-active", unit) == "active"
        finally:
            (folder / "printed.conf").unlink()
            config.write_text(before)
            site.sh("systemctl daemon-reload\nsystemctl restart kkdcpd.socket kkdcpd.service")

    return take


def take_agent_text(_site: Site, printed: Block) -> None:
    """The agent writes this text. tests/interop/test_krb5_texts.py gives such texts to their programs."""
    folder = Path("/run/user/1000/kkdcpd")
    by_port, by_socket = (
        AgentService(realms=("EXAMPLE.COM",), kdc=kdc, kpasswd=kpasswd)
        for kdc, kpasswd in (
            (LocalAddress(host="127.0.0.1", port=10088), LocalAddress(host="127.0.0.1", port=10464)),
            (LocalAddress(socket=folder / "kdc"), LocalAddress(socket=folder / "kpasswd")),
        )
    )
    assert printed.text in {
        mit_text(by_port),
        mit_text(by_socket),
        java_text(by_port),
        heimdal_text(by_port),
    }


INI: Mapping[str, Callable[[Site, Block], None]] = {
    "libdefaults": take_agent_text,
    "realms": log_in_with,
    "Socket": drop_in("kkdcpd.socket"),
    "Service": drop_in("kkdcpd.service"),
}


def take_shell(site: Site, printed: Block) -> None:
    """Each command succeeds; a search in the log may find nothing."""
    if any(words in printed.text for words in BLOCKS_TRIED_ELSEWHERE):
        return
    for command in commands(printed.text):
        if any(words in command for words in COMMANDS_TRIED_ELSEWHERE):
            continue
        done = site.run(command)
        assert done.is_ok or ("| grep" in command and done.exit_code == 1), (command, done.output)


# Words of blocks, and the tests of these blocks.
BLOCKS_TRIED_ELSEWHERE = {
    "apt-get install ./dist/": "test_operations",
    "python3 -m venv /opt/kkdcpd": "test_operations",
    "make demo": "test_quick_start_shows_a_demo",
    "/opt/kkdcpd/bin/kkdcpd": "test_readme_commands_run_it_in_a_venv",
    "openssl req": "test_readme_commands_run_it_in_a_venv",
    "podman run": "test_container",
    "kkdcpd agent https": "tests/interop/test_agent.py",
    "kkdcpd-agent.socket": "test_units",
    "systemctl --user": "test_units checks the unit; no user manager runs in the machine",
    ".venv/bin/": "what `make lint` and `make test` run; CONTRIBUTING.md",
}
COMMANDS_TRIED_ELSEWHERE = {
    "certbot": "test_units has the hook; Let's Encrypt can't be asked here",
    "RENEWED_LINEAGE=": "test_units runs the hook in this way",
}


def take_cmd_exe(_site: Site, printed: Block) -> None:
    """Without Windows, check the form of the group policy's value and of the commands."""
    values = re.findall(r'/d "(<.*>)"$', printed.text, re.MULTILINE)
    assert values == [windows_value(OPERATIONS)]
    assert re.fullmatch(r"(set \w=HKLM\\[\w\\]+\n)?(reg add %K%\S* /v \S+ /t REG_\w+ /d .+\n)+", printed.text)


def take_nothing(_site: Site, _printed: Block) -> None:
    """A diagram, or input of a dialogue; see test_windows_value_has_the_form_that_windows_reads."""


def take_python(_site: Site, printed: Block) -> None:
    """Execute the block in a section's module, and read a value by it."""
    names = dict(vars(upstream))
    exec(printed.text, names)
    section = Table(form=names["UpstreamConfig"]).read({"connect_timeout": 2}, Location())
    assert section.connect_timeout == 2.0


CONSUMERS: Mapping[str, Callable[[Site, Block], None]] = {
    "bat": take_cmd_exe,
    "ini": take_ini,
    "python": take_python,
    "sh": take_shell,
    "text": take_nothing,
    "toml": take_toml,
}


@pytest.mark.parametrize("printed", blocks(), ids=lambda printed: printed.place)
def test_printed_block_is_accepted_unchanged(site: Site, printed: Block) -> None:
    assert printed.language in CONSUMERS, (
        f"{printed.place}: say which program reads it, and let it do so here"
    )
    CONSUMERS[printed.language](site, printed)


def windows_value(document: str) -> str:
    """Return the value of *Specify KDC proxy servers for Kerberos clients* that a document prints."""
    return block(document, "text", "<https").text.strip()


@pytest.mark.parametrize("document", ["README.md", OPERATIONS])
def test_windows_value_has_the_form_that_windows_reads(document: str) -> None:
    """A blank precedes the slash, colons precede port and path, as the policy's help says."""
    assert re.fullmatch(r"<https [\w.-]+:\d+:\w+ />", windows_value(document))


def test_no_value_is_followed_by_a_comment_that_its_reader_takes_for_a_part_of_it() -> None:
    for printed in blocks("ini"):
        assert not re.search(r"^[^#;\n]*\S\s+[#;]", printed.text, re.MULTILINE), printed.place


def test_readme_commands_run_it_in_a_venv(site: Site) -> None:
    (site.etc / "pip.conf").write_text(PIP_CONF.format(wheels="/srv/wheels"))
    site.sh(block("README.md", "sh", "python3 -m venv /opt/kkdcpd").text)
    site.configure(block("README.md", "toml", "[tls]").text)
    *checks, serve = commands(block("README.md", "sh", "bin/kkdcpd locate").text)
    for check in checks:
        site.sh(check)
    site.sh("systemctl stop kkdcpd.socket kkdcpd.service")
    tls, anchor = site.etc / "kkdcpd/tls", site.etc / "ssl/certs/our-ca.pem"
    before = {path: path.read_bytes() for path in (tls / "certificate.pem", tls / "key.pem", anchor)}
    try:
        site.sh(block("README.md", "sh", "openssl req").text)
        shutil.copy(tls / "certificate.pem", anchor)
        (site.etc / "krb5.conf").write_text(block("README.md", "ini", "[realms]").text)
        output = site.sh(
            f"{serve.partition('#')[0]} &\nserver=$!\n"
            "for i in $(seq 50); do /opt/kkdcpd/bin/kkdcpd healthcheck && break; sleep 0.1; done\n"
            "kinit alice@EXAMPLE.COM\nkill $server\nwait $server"
        )
    finally:
        for path, content in before.items():
            path.write_bytes(content)
        site.sh("systemctl start kkdcpd.socket kkdcpd.service")
    assert " ready " in output
    assert "outcome=answered" in output


def test_quick_start_shows_a_demo() -> None:
    (demo,) = (
        it for it in commands(block("README.md", "sh", "make demo").text) if it.startswith("make demo")
    )
    # Otherwise make would replace the environment of these tests after a change of pyproject.toml.
    (REPOSITORY / ".venv/.complete").touch()
    run("sh", "-ec", f"cd {REPOSITORY}\n{demo}", environment=os.environ, timeout=100).expect_ok()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", OPERATIONS])
def test_targets_of_make_that_are_printed_are_there(document: str) -> None:
    page = (REPOSITORY / document).read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)\b", page, re.MULTILINE))
    there = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= there
