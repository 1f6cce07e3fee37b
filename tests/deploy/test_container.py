"""Builds the image from the Containerfile on a Debian base without python3-venv, and runs it.

In most tests, systemd-nspawn runs the image: its program as PID 1, on a read-only root, without capabilities.
podman and podman-compose run the image by the commands of docs/operations.md and compose.yaml.
"""

import json
import os
import re
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.namespace import NetworkNamespace
from lab.program import Completed, Program, find_program, run
from lab.realm import MitRealm, Principal
from tests.deploy.conftest import BUILDING_SECONDS, PIP_CONF, REPOSITORY, clone
from tests.deploy.printed import block, commands

pytestmark = pytest.mark.timeout(900)

PASSWORD = "nothing-but-python"
OPERATIONS = "docs/operations.md"
SECONDS_TO_START = 20.0
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
    """The result of the build: the root folder, and the image's configuration."""

    root: Path
    config: Mapping[str, Any]


@pytest.fixture(scope="module")
def image(workshop: Path, base: Path, wheels: Path) -> Iterator[Image]:
    store = workshop / "images"
    # As Debian's image: dpkg knows python3-venv, because others suggest it, but it is not installed.
    assert run("chroot", str(base), "dpkg-query", "--show", "python3-venv", environment=os.environ).is_ok
    assert not (base / "usr/lib/python3.11/ensurepip").exists()
    # No configuration of pip from the host: the build finds only these wheels.
    pip_conf = workshop / "pip.conf"
    pip_conf.write_text(PIP_CONF.format(wheels="/wheels"))

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
        "--layers",  # podman then does not build the image again
        "--isolation=chroot",
        "--build-arg=BASE=localhost/base",
        f"--volume={wheels}:/wheels:ro",
        f"--volume={pip_conf}:/etc/pip.conf:ro",
        f"--file={REPOSITORY}/deploy/container/Containerfile",
        "--tag=localhost/kkdcpd",
        str(REPOSITORY),
    )
    result = json.loads(buildah("inspect", "--type=image", "localhost/kkdcpd"))
    container = buildah("from", "localhost/kkdcpd")
    yield Image(root=Path(buildah("mount", container)), config=result["Docker"]["config"])
    buildah("rm", "--all")


class Container(Program):
    """The running image, with its log."""

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
            # The shell executes the program, so that the program is PID 1.
            *unprivileged(config["User"]),
            *program(config, *config["Cmd"]),
            environment=os.environ,
        )

    def pids(self) -> list[int]:
        """Return the ids of the container's processes on the host, PID 1 first."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        (leader,) = children
        return [int(leader), *map(int, Path(f"/proc/{leader}/task/{leader}/children").read_text().split())]

    def run(self, image: Image, *command: str) -> Completed:
        """Run another program in the container, as `docker exec` does."""
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
    """A container, and a client that logs on through it."""

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


def test_health_check_needs_no_curl(site: Site, image: Image) -> None:
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    site.container.run(image, *command).expect_ok()
    assert not list(image.root.glob("usr/bin/curl"))


def test_reload_works_in_the_container(site: Site, image: Image) -> None:
    result = site.container.run(image, *program(image.config, "reload")).expect_ok()
    assert result.output.startswith("reloaded: ")


def test_dead_worker_is_reaped_and_replaced(site: Site) -> None:
    """PID 1 becomes the parent of each orphan, and must not take it for its own child."""
    before = site.container.pids()
    mark = len(site.container.lines)
    os.kill(before[-1], signal.SIGKILL)
    site.container.wait_for_line(lambda line: "worker_died" in line, after=mark)
    site.client.kinit("alice", PASSWORD).expect_ok()


def test_container_stops_by_its_signal_in_time(site: Site, image: Image) -> None:
    # The signal goes to PID 1, as by docker stop. The kernel ignores a signal to PID 1 without a handler.
    os.kill(site.container.pids()[0], signal.Signals[image.config["StopSignal"]])
    assert site.container.wait(timeout=SECONDS_TO_STOP) == 0


PODMAN = r"""#!/bin/sh
# podman, with a store of the test's own and what this machine needs: a build in the network outside, limits
# that may be set here, and a runtime that takes any kind of cgroups.
verb=$1
outside=
shift
for word; do
    shift
    case $word in nofile=*) word=nofile={descriptors} ;; esac
    set -- "$@" "$word"
done
case $verb in
    build) outside="nsenter --net={outside}"
        set -- --isolation=chroot --build-arg=BASE=localhost/base \
        --volume={workshop}/wheels:/wheels:ro --volume={workshop}/pip.conf:/etc/pip.conf:ro "$@" ;;
    run) set -- --ulimit=nproc=4096:4096 "$@" ;;
esac
exec $outside {podman} --root={workshop}/images/root --runroot={workshop}/images/run \
    --storage-driver=overlay --runtime=runc "$verb" "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host with a clone, in its own network, on which an administrator runs commands."""

    folder: Path
    environment: Mapping[str, str]
    trust: Path

    def sh(self, command: str) -> Completed:
        """Run a command in the clone."""
        inside = f"cd {self.folder}\n{command}"
        return run("sh", "-euc", inside, environment=self.environment, timeout=BUILDING_SECONDS)

    def output_of(self, command: str) -> str:
        """Run a command that has to succeed once the container is ready; return its output."""
        deadline = time.monotonic() + SECONDS_TO_START
        while not (done := self.sh(command)).is_ok and time.monotonic() < deadline:
            time.sleep(0.2)
        return done.expect_ok().output


@pytest.fixture
def host(image: Image, workshop: Path, authority: Authority, tmp_path: Path) -> Iterator[Host]:
    assert image.config["User"]  # the base is in the store
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    podman = tmp_path / "bin/podman"
    podman.parent.mkdir()
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    podman.write_text(
        PODMAN.format(
            workshop=workshop,
            podman=find_program("podman"),
            descriptors=f"{limit}:{limit}",
            outside=f"/proc/{os.getpid()}/fd/{outside}",
        )
    )
    podman.chmod(0o755)
    folder = tmp_path / "clone"
    clone(folder)
    (folder / "deploy/container/config/tls").mkdir(parents=True)
    pair = authority.issue("localhost", file_name="podman")
    (folder / "deploy/container/config/tls/certificate.pem").write_bytes(pair.certificate.read_bytes())
    (folder / "deploy/container/config/tls/key.pem").write_bytes(pair.key.read_bytes())
    (folder / "deploy/container/config/tls/key.pem").chmod(0o400)
    (folder / "deploy/container/config/config.toml").write_text(block(OPERATIONS, "toml", "*:9088").text)
    environment = {**os.environ, "PATH": f"{podman.parent}:{os.environ['PATH']}", "PIP_NO_INDEX": "1"}
    with NetworkNamespace(tmp_path):
        host = Host(folder=folder, environment=environment, trust=authority.certificate)
        yield host
        host.sh("podman rm --all --force --volumes --time 0").expect_ok()
    os.close(outside)


def expect_to_serve(host: Host) -> None:
    """Clients use port 443, Prometheus uses port 9088."""
    served = host.output_of(f"curl --silent --include --cacert {host.trust} https://localhost/KdcProxy")
    assert served.startswith("HTTP/1.1 405 ")
    assert "kkdcpd_build_info" in host.output_of("curl --silent --fail http://127.0.0.1:9088/metrics")


def test_printed_commands_run_it_by_podman(host: Host) -> None:
    for command in commands(block(OPERATIONS, "sh", "podman run").text):
        host.output_of(command)
    expect_to_serve(host)
    host.sh("podman exec kkdcpd kkdcpd healthcheck").expect_ok()
    host.sh("podman exec kkdcpd kkdcpd reload").expect_ok()
    # The volume with the control socket outlives a kill.
    host.sh("podman kill kkdcpd && podman wait kkdcpd && podman start kkdcpd").expect_ok()
    expect_to_serve(host)
    assert "control.sock" not in host.output_of("podman logs kkdcpd")


def test_podman_compose_runs_it(host: Host) -> None:
    host.sh("chown 10443 deploy/container/config/tls/key.pem").expect_ok()
    (printed,) = re.findall(r"`(podman-compose .*? up .*?)`", (REPOSITORY / OPERATIONS).read_text())
    host.sh("podman tag localhost/kkdcpd kkdcpd").expect_ok()
    host.sh(printed).expect_ok()
    expect_to_serve(host)
    result = host.sh("podman ps --format '{{.Status}}'").expect_ok().output
    assert "Up" in result


def test_image_has_nothing_that_builds(image: Image) -> None:
    assert not list(image.root.glob("build"))
    assert not list(image.root.glob("opt/kkdcpd/lib/python3*/site-packages/pip"))
    assert not list(image.root.glob("opt/kkdcpd/lib/python3*/site-packages/hatchling"))
