"""A temporary Heimdal realm: a database and a KDC on a free high port of loopback.

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

from lab.ports import free_port
from lab.program import PATIENCE_SECONDS, Completed, Program, environment, run

__all__ = ["HeimdalPrograms", "HeimdalRealm"]

ADDRESS = "127.0.0.1"
DOWNLOAD_SECONDS = 120.0
PAUSE_SECONDS = 0.05

_PACKAGES = ("heimdal-kdc", "heimdal-clients")
_NO_OTHERS = tuple(
    f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
)
_LIBRARY = re.compile(r"^lib\S+-heimdal$", re.MULTILINE)


class HeimdalPrograms:
    """Heimdal's programs, downloaded into a folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = directory / "root"
        packages = directory / "packages"
        packages.mkdir(parents=True)
        depends = ("apt-cache", "depends", "--recurse", *_NO_OTHERS, *_PACKAGES)
        found = run(*depends, environment=environment(directory)).expect_ok().output
        names = sorted({*_PACKAGES, *_LIBRARY.findall(found)})
        script = (
            'cd "$0" && apt-get download -qq "$@" && for each in *.deb; do dpkg-deb -x "$each" ../root; done'
        )
        run(
            *("sh", "-c", script, str(packages), *names),
            environment=environment(directory),
            timeout=DOWNLOAD_SECONDS,
        ).expect_ok()

    def path(self, program: str) -> str:
        """Return the path of a program of the packages, such as `usr/bin/kinit.heimdal`."""
        return str(self._root / program)

    def environment(self, **settings: str | Path) -> dict[str, str]:
        """Return the environment of Heimdal's programs, with further `settings`."""
        libraries = ":".join(str(path) for path in (self._root / "usr/lib").glob("*-linux-gnu*"))
        return environment(self.directory, LD_LIBRARY_PATH=libraries, **settings)

    def run(self, program: str, *arguments: str, stdin: str = "", **settings: str | Path) -> Completed:
        """Run a client program to its end, with further `settings` in its environment."""
        return run(
            self.path(f"usr/bin/{program}"),
            *arguments,
            stdin=stdin,
            environment=self.environment(**settings),
        )


class HeimdalRealm:
    """A realm that exists while its context lasts; `endpoint` is HOST:PORT of its KDC.

    `users` are names with their passwords. All need preauthentication, the KDC's default.
    """

    endpoint: str
    port: int

    def __init__(self, directory: Path, *, name: str = "HD.TEST", users: Mapping[str, str]) -> None:
        self.directory = directory
        self.name = name
        self._users = users
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as unless_done:
            unless_done.push(self)
            self._programs = HeimdalPrograms(self.directory)
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
            self._programs.path("usr/lib/heimdal-servers/kdc"),
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
        run(self._programs.path(program), *arguments, environment=self._environment()).expect_ok()

    def _environment(self) -> dict[str, str]:
        return self._programs.environment(KRB5_CONFIG=self._file("krb5.conf"))

    def _file(self, name: str) -> Path:
        return self.directory / name
