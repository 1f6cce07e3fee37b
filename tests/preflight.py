"""Checks that the tests of `make test` can run on this machine, and estimates how long they take.

Each check does on a small scale what the tests do. The message names what is missing and what needs it.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.program import ProgramError, run

__all__ = ["estimate", "main", "problems"]

ROOT = Path(__file__).parents[1]
LAST_RUN = ROOT / ".pytest_cache/v/kkdcpd/seconds"
MINUTES_ON_TWO_CORES = 8
FREE_GIGABYTES = 3
CHECK_SECONDS = 20.0


def main() -> int:
    """Print the estimate. If the tests cannot run here, print the reasons and return 1."""
    found = list(problems())
    for problem in found:
        print(f"make test: {problem}", file=sys.stderr)
    if found:
        print(f"make test: {WITHOUT_ALL}", file=sys.stderr)
        return 1
    print(f"make test: {estimate(LAST_RUN)}", flush=True)
    return 0


WITHOUT_ALL = (
    "these tests run without root, on any Linux: "
    ".venv/bin/pytest tests/protocol tests/guard tests/config tests/log"
)


def estimate(last_run: Path) -> str:
    """Estimate how long the run takes on this machine."""
    usual = f"about {MINUTES_ON_TWO_CORES} minutes on 2 idle cores, longer on a busy machine"
    try:
        seconds = int(json.loads(last_run.read_text()))
    except (OSError, ValueError):
        return f"this takes {usual}; this machine has {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return f"this took {seconds // 60} min {seconds % 60} s here last time ({usual})"


def problems() -> Iterator[str]:
    """Yield an error for each thing that the tests need and this machine lacks."""
    if os.geteuid() != 0:
        yield "the tests make network and mount namespaces, which only root can do: run sudo make test"
        return
    for check, problem in CHECKS.items():
        if not check():
            yield problem


def _can_make_network() -> bool:
    return _works("unshare", "--net", "nft", "add table inet probe")


def _can_mount() -> bool:
    """Whether an overlay can be mounted in the folder of the tests' temporary folders."""
    with tempfile.TemporaryDirectory(prefix="kkdcpd-preflight-") as folder:
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        layers = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        mount = ("mount", "-t", "overlay", "overlay", "-o", layers, f"{folder}/merged")
        return _works("unshare", "--mount", *mount)


def _can_boot() -> bool:
    """Whether systemd-nspawn can start a program: it needs a writable cgroup hierarchy."""
    return _works(
        *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--volatile=yes", "--directory=/"),
        *(f"--machine=kkdcpd-preflight-{os.getpid()}", "--private-network", "--console=pipe"),
        *("--resolv-conf=off", "--timezone=off", "true"),
    )


def _has_room() -> bool:
    status = os.statvfs(tempfile.gettempdir())
    return status.f_bavail * status.f_frsize >= FREE_GIGABYTES << 30


def _works(*command: str) -> bool:
    try:
        return run(*command, environment=os.environ, timeout=CHECK_SECONDS).is_ok
    except ProgramError:
        return False


CHECKS: dict[Callable[[], bool], str] = {
    _can_make_network: "network namespaces and nftables don't work here (tests/interop, tests/deploy): "
    "in a container, run it with --privileged",
    _can_mount: f"no overlay can be mounted below {tempfile.gettempdir()} (tests/deploy): set TMPDIR to a "
    "folder on a disk; in a container, run it with --privileged and a volume for TMPDIR",
    _can_boot: "systemd-nspawn can't start a program (tests/deploy): it needs a writable "
    "/sys/fs/cgroup; in a container, run it with --privileged and --cgroupns=private",
    _has_room: f"{tempfile.gettempdir()} has less than {FREE_GIGABYTES} GiB of free space (tests/deploy): "
    "free some, or set TMPDIR to another disk",
}


if __name__ == "__main__":
    sys.exit(main())
