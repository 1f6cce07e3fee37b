"""Debian in a folder: a base, cheap roots over it to install into, and machines that boot from roots.

All of this needs root. A machine is a container of systemd-nspawn: a real systemd as PID 1, in the network of
the thread that started it.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.program import Completed, Program, ProgramError, run

__all__ = ["Machine", "Root", "make_base"]

# No test needs this third of Debian.
UNWANTED = ("exclude=/usr/share/doc/*", "exclude=/usr/share/locale/*", "include=/usr/share/doc/kkdcpd/*")
# The further packages of Debian's slim images. python3-venv is only mentioned there.
PACKAGES = ("ca-certificates", "python3", "systemd", "systemd-sysv")
# Packages that an administrator of kkdcpd has or installs, with the clients' programs.
FURNITURE = ("curl", "krb5-k5tls", "krb5-user", "python3-venv")
BOOT_SECONDS = 60.0
PROGRAM_SECONDS = 200.0  # dpkg syncs often, and disks may be busy

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
}
# systemctl then works on a root that is not booted.
_OFFLINE = {**_ENVIRONMENT, "SYSTEMD_OFFLINE": "1"}


def make_base(folder: Path) -> Program:
    """Begin to make a small Debian 12, which is complete when the program has ended."""
    packages = ",".join(PACKAGES)
    unwanted = (f"--dpkgopt=path-{it}" for it in UNWANTED)
    what = ("--variant=apt", f"--include={packages}", *unwanted, "bookworm", str(folder))
    return Program("mmdebstrap", "mmdebstrap", "--quiet", *what, environment=os.environ)


class Root:
    """A root folder, `path`, that begins as a copy of `base`, without changing `base`.

    `base` is a folder, or several with colons between them, the uppermost first. `layers` is the base for
    another root over this one.
    """

    def __init__(self, base: Path | str, directory: Path) -> None:
        self.path = directory / "root"
        self._layers = directory / "written", directory / "work"
        self._base = base

    @property
    def layers(self) -> str:
        """The base of another root over this one."""
        return f"{self._layers[0]}:{self._base}"

    def __enter__(self) -> Self:
        for folder in (self.path, *self._layers):
            folder.mkdir(parents=True)
        written, work = self._layers
        options = f"lowerdir={self._base},upperdir={written},workdir={work}"
        run(
            "mount", "-t", "overlay", "overlay", "-o", options, str(self.path), environment=os.environ
        ).expect_ok()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run("umount", "--lazy", str(self.path), environment=os.environ).expect_ok()

    def run(self, *command: str) -> Completed:
        """Run a program in the root, as the user root."""
        return run("chroot", str(self.path), *command, environment=_OFFLINE, timeout=PROGRAM_SECONDS)

    def furnish(self) -> None:
        """Install the packages of FURNITURE from Debian."""
        self.run("apt-get", "update", "-qq").expect_ok()
        options = ("--yes", "-qq", "--no-install-recommends", "-o", "DPkg::Options::=--force-unsafe-io")
        self.run("apt-get", "install", *options, *FURNITURE).expect_ok()

    def install(self, package: Path) -> str:
        """Install a package; return its path in the root."""
        inside = self.copy_in(package)
        self.run("dpkg", "--force-unsafe-io", "--install", inside).expect_ok()
        return inside

    def copy_in(self, file: Path) -> str:
        """Copy a file into the root; return its path there. A booted machine has its own /tmp."""
        (self.path / "srv" / file.name).write_bytes(file.read_bytes())
        return f"/srv/{file.name}"

    def files(self) -> Mapping[str, int]:
        """Return all files with their modes, without dpkg's records and logs."""
        own = ("/srv", "/var/lib/dpkg", "/var/cache", "/var/log", "/tmp", "/dev", "/proc", "/sys", "/run")
        found: dict[str, int] = {}
        for folder, folders, names in os.walk(self.path):
            here = f"/{Path(folder).relative_to(self.path)}".removesuffix("/.")
            folders[:] = [name for name in folders if f"{here}/{name}" not in own]
            for name in (*folders, *names):
                found[f"{here}/{name}"] = (Path(folder) / name).lstat().st_mode
        return found


class Machine:
    """A booted root, which ends with its context."""

    def __init__(self, root: Root) -> None:
        self.root = root

    def __enter__(self) -> Self:
        self._nspawn = Program(
            "machine",
            "systemd-nspawn",
            "--quiet",
            "--boot",
            f"--directory={self.root.path}",
            "--machine=kkdcpd-test",
            # The host may have no systemd that could register the machine.
            "--register=no",
            "--keep-unit",
            "--console=read-only",
            "--resolv-conf=off",
            "--timezone=off",
            environment=os.environ,
        )
        try:
            self._wait_until_booted()
        except BaseException:
            self._nspawn.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._nspawn.stop()

    def run(self, *command: str, stdin: str = "") -> Completed:
        """Run a program in the machine, as the user root."""
        inside = ("nsenter", f"--target={self._leader()}", "--all")
        return run(*inside, *command, environment=_ENVIRONMENT, stdin=stdin, timeout=PROGRAM_SECONDS)

    def output_of(self, *command: str) -> str:
        """Run a program that must succeed; return its output."""
        return self.run(*command).expect_ok().output.strip()

    def _leader(self) -> int:
        """Return the pid of the machine's systemd on the host."""
        pid = self._nspawn.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)

    def _wait_until_booted(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                if self.run("systemctl", "is-system-running", "--wait").output.strip() in {
                    "running",
                    "degraded",
                }:
                    return
            time.sleep(0.2)
        raise ProgramError(f"the machine didn't boot in {BOOT_SECONDS} s:\n" + "\n".join(self._nspawn.lines))
