"""A temporary Heimdal realm, with a KDC on a free high port of loopback, and Heimdal's client programs.

Heimdal's packages conflict with MIT's packages, so they are downloaded and unpacked into a folder, not
installed. This needs Debian's apt-get and dpkg-deb, and a connection to a mirror.
"""

import re
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.client import RealmServers, krb5_conf
from lab.ports import free_port
from lab.program import PATIENCE_SECONDS, Completed, Program, environment, run

__all__ = ["HeimdalClient", "HeimdalRealm", "unpack_heimdal"]

ADDRESS = "127.0.0.1"
DOWNLOAD_SECONDS = 120.0
PAUSE_SECONDS = 0.05

_PACKAGES = ("heimdal-kdc", "heimdal-clients")
_NO_OTHERS = tuple(
    f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
)
_LIBRARY = re.compile(r"^lib\S+-heimdal$", re.MULTILINE)


def unpack_heimdal(directory: Path) -> Path:
    """Download Heimdal's packages, unpack them into the folder, and return the root of their files."""
    packages = directory / "packages"
    packages.mkdir(parents=True)
    depends = ("apt-cache", "depends", "--recurse", *_NO_OTHERS, *_PACKAGES)
    found = run(*depends, environment=environment(directory)).expect_ok().output
    names = sorted({*_PACKAGES, *_LIBRARY.findall(found)})
    script = 'cd "$0" && apt-get download -qq "$@" && for each in *.deb; do dpkg-deb -x "$each" ../root; done'
    run(
        *("sh", "-c", script, str(packages), *names),
        environment=environment(directory),
        timeout=DOWNLOAD_SECONDS,
    ).expect_ok()
    return directory / "root"


def _environment(home: Path, root: Path, config: Path, **settings: str) -> dict[str, str]:
    libraries = ":".join(str(path) for path in (root / "usr/lib").glob("*-linux-gnu*"))
    return environment(home, KRB5_CONFIG=config, LD_LIBRARY_PATH=libraries, **settings)


class HeimdalClient:
    """Heimdal's client programs below `root`. The first of `realms` is the default realm."""

    def __init__(self, directory: Path, root: Path, realms: Mapping[str, RealmServers]) -> None:
        directory.mkdir(parents=True)
        config = directory / "krb5.conf"
        config.write_text(krb5_conf(realms))
        self._root = root
        self._environment = _environment(directory, root, config, KRB5CCNAME=f"FILE:{directory / 'ccache'}")

    def kinit(self, principal: str, password: str, *, timeout: float = PATIENCE_SECONDS) -> Completed:
        """Log in."""
        return self._run(
            "kinit.heimdal", "--password-file=STDIN", principal, stdin=f"{password}\n", timeout=timeout
        )

    def kgetcred(self, service: str, *, timeout: float = PATIENCE_SECONDS) -> Completed:
        """Get a ticket for a service."""
        return self._run("kgetcred", service, timeout=timeout)

    def kpasswd(self, principal: str, old: str, new: str, *, timeout: float = PATIENCE_SECONDS) -> Completed:
        """Change a password."""
        return self._run("kpasswd.heimdal", principal, stdin=f"{old}\n{new}\n{new}\n", timeout=timeout)

    def _run(self, program: str, *arguments: str, timeout: float, stdin: str = "") -> Completed:
        path = str(self._root / "usr/bin" / program)
        return run(path, *arguments, environment=self._environment, stdin=stdin, timeout=timeout)


class HeimdalRealm:
    """A realm that exists while its context lasts; `endpoint` is HOST:PORT of its KDC.

    Its programs are below `root`.

    `users` are names with their passwords. All need preauthentication, the KDC's default.
    """

    endpoint: str
    port: int

    def __init__(
        self, directory: Path, root: Path, *, name: str = "HD.TEST", users: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.name = name
        self._users = users
        self._root = root
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as unless_done:
            unless_done.push(self)
            self._write_configuration()
            self._create_database()
            self._start_kdc()
            unless_done.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running.close()

    def _write_configuration(self) -> None:
        state = self.directory
        self._file("krb5.conf").write_text(
            f"""
            [libdefaults]
                default_realm = {self.name}
                dns_lookup_kdc = false
            [kdc]
                enable-fast = true
                database = {{
                    dbname = {state / "heimdal"}
                    realm = {self.name}
                    mkey_file = {state / "m-key"}
                    acl_file = {state / "kadmind.acl"}
                    log_file = {state / "log"}
                }}
            [logging]
                default = STDERR
            """
        )

    def _create_database(self) -> None:
        self._run("usr/sbin/kstash", "--random-key", "-k", str(self._file("m-key")))
        lives = ("--realm-max-ticket-life=unlimited", "--realm-max-renewable-life=unlimited")
        self._kadmin("init", *lives, self.name)
        for user, password in self._users.items():
            self._kadmin("add", f"--password={password}", "--use-defaults", user)

    def _start_kdc(self) -> None:
        self.port = free_port((ADDRESS,))
        self.endpoint = f"{ADDRESS}:{self.port}"
        program = Program(
            "heimdal",
            str(self._root / "usr/lib/heimdal-servers/kdc"),
            f"--config-file={self._file('krb5.conf')}",
            f"--addresses={ADDRESS}",
            f"--ports={self.port}",
            environment=self._environment(),
        )
        self._running.callback(program.stop)
        self._wait_until_listening()

    def _wait_until_listening(self) -> None:
        """Wait until the KDC takes connections, for it says nothing when it starts."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection((ADDRESS, self.port)).close()
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                return

    def _kadmin(self, *command: str) -> None:
        self._run("usr/bin/kadmin.heimdal", "-l", *command)

    def _run(self, program: str, *arguments: str) -> None:
        run(str(self._root / program), *arguments, environment=self._environment()).expect_ok()

    def _environment(self) -> dict[str, str]:
        return _environment(self.directory, self._root, self._file("krb5.conf"))

    def _file(self, name: str) -> Path:
        return self.directory / name
