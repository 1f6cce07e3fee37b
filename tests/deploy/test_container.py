"""The image, built from the Containerfile and run as a container runs it: its program alone, as PID 1.

It is systemd-nspawn that runs it: as PID 1, on a root that can't be written to, without any capability.
"""

import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.namespace import NetworkNamespace
from lab.program import Completed, Program, run
from lab.realm import MitRealm, Principal
from tests.deploy.conftest import BUILDING_SECONDS, REPOSITORY

pytestmark = pytest.mark.timeout(240)

PASSWORD = "nothing-but-python"
SECONDS_TO_STOP = 10.0
USER = "10443"

CONFIG = """\
[[listen]]
address = "*:8443"
[tls]
certificate = "tls/certificate.pem"
key = "tls/key.pem"
[realms."{realm.name}"]
kdc = ["tcp://{realm.kdc.endpoints[0]}"]
kpasswd = ["{realm.kpasswd_endpoint}"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What came of the build: the root folder, and what the image says of itself."""

    root: Path
    config: Mapping[str, Any]


@pytest.fixture(scope="module")
def image(workshop: Path, base: Path, wheels: Path) -> Iterator[Image]:
    store = workshop / "images"
    # No file of pip's outside the test's reach: only these wheels are to be had inside.
    pip_conf = workshop / "pip.conf"
    pip_conf.write_text("[global]\nno-index = true\nfind-links = /wheels\nno-compile = true\n")

    def buildah(*words: str) -> str:
        options = (f"--root={store}/root", f"--runroot={store}/run", "--storage-driver=overlay")
        environment = {**os.environ, "PIP_NO_INDEX": "1"}
        done = run("buildah", *options, *words, environment=environment, timeout=BUILDING_SECONDS)
        return done.expect_ok().output.strip()

    container = buildah("from", "scratch")
    run(
        "cp",
        "--archive",
        f"{base}/.",
        buildah("mount", container),
        environment=os.environ,
        timeout=BUILDING_SECONDS,
    ).expect_ok()
    buildah("commit", "--quiet", "--disable-compression", "--rm", container, "localhost/base")
    buildah(
        "build",
        "--quiet",
        "--format=docker",
        "--isolation=chroot",
        "--build-arg=BASE=localhost/base",
        f"--volume={wheels}:/wheels:ro",
        f"--volume={pip_conf}:/etc/pip.conf:ro",
        f"--file={REPOSITORY}/deploy/container/Containerfile",
        "--tag=localhost/kkdcpd",
        str(REPOSITORY),
    )
    told = json.loads(buildah("inspect", "--type=image", "localhost/kkdcpd"))
    container = buildah("from", "localhost/kkdcpd")
    yield Image(root=Path(buildah("mount", container)), config=told["Docker"]["config"])
    buildah("rm", "--all")


class Container(Program):
    """The image as it runs: all it says is its log."""

    def __init__(self, image: Image, etc: Path) -> None:
        config = image.config
        super().__init__(
            "container",
            "systemd-nspawn",
            "--quiet",
            f"--directory={image.root}",
            "--read-only",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--resolv-conf=off",
            "--timezone=off",
            f"--kill-signal={config['StopSignal']}",
            f"--bind-ro={etc}:/etc/kkdcpd",
            f"--tmpfs=/run/kkdcpd:uid={USER},gid={USER},mode=0755",
            *(f"--setenv={setting}" for setting in config["Env"]),
            # It goes on as the program, so that is PID 1.
            *unprivileged(config["User"]),
            *program(config, *config["Cmd"]),
            environment=os.environ,
        )

    def pids(self) -> list[int]:
        """Return the processes inside as they are called outside, PID 1 first."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        (leader,) = children
        return [int(leader), *map(int, Path(f"/proc/{leader}/task/{leader}/children").read_text().split())]

    def run(self, image: Image, *command: str) -> Completed:
        """Run another program inside, as `docker exec` does."""
        inside = ("nsenter", f"--target={self.pids()[0]}", "--all", "env", *image.config["Env"])
        return run(*inside, *unprivileged(image.config["User"]), *command, environment=os.environ)


def unprivileged(user: str) -> tuple[str, ...]:
    uid, gid = user.split(":")
    ids = (f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
    return "/usr/bin/setpriv", *ids, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"


def program(config: Mapping[str, Any], *words: str) -> tuple[str, ...]:
    return *config["Entrypoint"], *words


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A container, and who logs in through it."""

    container: Container
    client: KerberosClient
    etc: Path


@pytest.fixture(scope="module")
def site(image: Image, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("container")
    with ExitStack() as running:
        running.enter_context(NetworkNamespace(folder))
        alice = Principal(name="alice", password=PASSWORD, options=("+requires_preauth",))
        realm = running.enter_context(MitRealm(folder / "realm", principals=[alice]))
        etc = folder / "etc"
        (etc / "tls").mkdir(parents=True)
        (etc / "config.toml").write_text(CONFIG.format(realm=realm))
        pair = authority.issue("localhost", file_name="container")
        (etc / "tls/certificate.pem").write_bytes(pair.certificate.read_bytes())
        key = etc / "tls/key.pem"
        key.write_bytes(pair.key.read_bytes())
        key.chmod(0o400)
        os.chown(key, int(USER), int(USER))
        container = running.enter_context(Container(image, etc))
        container.wait_for_line(lambda line: " ready " in line)
        client = KerberosClient(
            folder / "client",
            {realm.name: RealmServers.behind("https://localhost:8443/KdcProxy")},
            http_anchors=authority.certificate,
        )
        yield Site(container=container, client=client, etc=etc)


def test_user_logs_in_through_the_container(site: Site) -> None:
    site.client.kinit("alice", PASSWORD).expect_ok()


def test_daemon_is_the_first_process_without_any_privilege(site: Site) -> None:
    status = Path(f"/proc/{site.container.pids()[0]}/status").read_text()
    assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
    assert re.search(rf"^Uid:\t{USER}\t", status, re.MULTILINE)
    assert set(re.findall(r"^Cap(?:Prm|Eff|Bnd|Amb|Inh):\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}


def test_root_is_read_only(site: Site, image: Image) -> None:
    tried = site.container.run(image, "python3", "-c", "open('/opt/kkdcpd/x', 'w')")
    assert "Read-only file system" in tried.output


def test_health_is_asked_without_curl(site: Site, image: Image) -> None:
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    site.container.run(image, *command).expect_ok()
    assert not list(image.root.glob("usr/bin/curl"))


def test_reload_is_asked_from_inside(site: Site, image: Image) -> None:
    told = site.container.run(image, *program(image.config, "reload")).expect_ok()
    assert told.output.startswith("reloaded: ")


def test_dead_worker_is_buried_and_replaced(site: Site) -> None:
    """PID 1 gets every orphan, and must not take it for its own."""
    before = site.container.pids()
    mark = len(site.container.lines)
    os.kill(before[-1], signal.SIGKILL)
    site.container.wait_for_line(lambda line: "worker_died" in line, after=mark)
    site.client.kinit("alice", PASSWORD).expect_ok()


def test_container_stops_by_its_signal_in_time(site: Site, image: Image) -> None:
    # To PID 1 itself, as docker stop does; without a handler of its own it would not even notice.
    os.kill(site.container.pids()[0], signal.Signals[image.config["StopSignal"]])
    assert site.container.wait(timeout=SECONDS_TO_STOP) == 0


def test_image_has_nothing_that_builds(image: Image) -> None:
    assert not list(image.root.glob("build"))
    assert not list(image.root.glob("opt/kkdcpd/lib/python3*/site-packages/pip"))
    assert not list(image.root.glob("opt/kkdcpd/lib/python3*/site-packages/hatchling"))
