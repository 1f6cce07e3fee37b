"""Debian in a folder: a base, cheap roots over it to install into, and machines that boot from them.

All of it takes root. A machine is systemd-nspawn's: a real systemd as PID 1, in the network of the thread
that started it.
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

# A third of it nobody would read here.
UNWANTED = ("exclude=/usr/share/doc/*", "exclude=/usr/share/locale/*", "include=/usr/share/doc/kkdcpd/*")
# What Debian's own slim images have besides, and no more: python3-venv is only mentioned there.
PACKAGES = ("ca-certificates", "python3", "systemd", "systemd-sysv")
# What an administrator has, or is told to install, where kkdcpd is used: the clients' programs too.
FURNITURE = ("curl", "krb5-k5tls", "krb5-user", "python3-venv")
BOOT_SECONDS = 60.0
PROGRAM_SECONDS = 200.0  # dpkg syncs much, and disks may be busy

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
}
# systemctl then does what a root that isn't booted needs, and no more.
_OFFLINE = {**_ENVIRONMENT, "SYSTEMD_OFFLINE": "1"}


def make_base(folder: Path) -> Program:
    """Begin to make a small Debian 12, which is done when the program has ended."""
    packages = ",".join(PACKAGES)
    unwanted = (f"--dpkgopt=path-{it}" for it in UNWANTED)
    what = ("--variant=apt", f"--include={packages}", *unwanted, "bookworm", str(folder))
    return Program("mmdebstrap", "mmdebstrap", "--quiet", *what, environment=os.environ)


class Root:
    """A root folder, `path`, that begins as `base` is, and leaves that alone.

    `base` is a folder, or several with colons between them, the uppermost first. `layers` is a base for
    others, with what was written here.
    """

    def __init__(self, base: Path | str, directory: Path) -> None:
        self.path = directory / "root"
        self._layers = directory / "written", directory / "work"
        self._base = base

    @property
    def layers(self) -> str:
        """What another root over this one has as its base."""
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
        """Run a program in it, as root."""
        return run("chroot", str(self.path), *command, environment=_OFFLINE, timeout=PROGRAM_SECONDS)

    def furnish(self) -> None:
        """Install what FURNITURE names, from Debian."""
        self.run("apt-get", "update", "-qq").expect_ok()
        options = ("--yes", "-qq", "--no-install-recommends", "-o", "DPkg::Options::=--force-unsafe-io")
        self.run("apt-get", "install", *options, *FURNITURE).expect_ok()

    def install(self, package: Path) -> str:
        """Install a package; return its path in there."""
        inside = self.copy_in(package)
        self.run("dpkg", "--force-unsafe-io", "--install", inside).expect_ok()
        return inside

    def copy_in(self, file: Path) -> str:
        """Copy a file into it; return its path in there. (A booted machine has a /tmp of its own.)"""
        (self.path / "srv" / file.name).write_bytes(file.read_bytes())
        return f"/srv/{file.name}"

    def files(self) -> Mapping[str, int]:
        """Return what is in it, with modes; but for dpkg's own records and logs."""
        own = ("/srv", "/var/lib/dpkg", "/var/cache", "/var/log", "/tmp", "/dev", "/proc", "/sys", "/run")
        found: dict[str, int] = {}
        for folder, folders, names in os.walk(self.path):
            here = f"/{Path(folder).relative_to(self.path)}".removesuffix("/.")
            folders[:] = [name for name in folders if f"{here}/{name}" not in own]
            for name in (*folders, *names):
                found[f"{here}/{name}"] = (Path(folder) / name).lstat().st_mode
        return found


class Machine:
    """A root that is booted, until its context ends."""

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
            # There may be no systemd outside that could be told of it.
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
        """Run a program in it, as root."""
        inside = ("nsenter", f"--target={self._leader()}", "--all")
        return run(*inside, *command, environment=_ENVIRONMENT, stdin=stdin, timeout=PROGRAM_SECONDS)

    def output_of(self, *command: str) -> str:
        """Run a program that must succeed; return what it says."""
        return self.run(*command).expect_ok().output.strip()

    def _leader(self) -> int:
        """Return systemd's pid as it is outside."""
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
