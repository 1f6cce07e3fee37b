"""A temporary Active Directory domain: a real Samba domain controller in its own network.

The controller needs fixed ports and its own DNS, so it runs in its own network, mount, host name and process
namespaces. A pair of virtual Ethernet devices connects them to the host. Only root can make namespaces. All
files are on file systems in memory. The kernel removes them when the first process ends: at the end of the
context, or when this process is killed.
"""

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.program import Completed, Program, ProgramError, environment, run

__all__ = ["SambaDomain"]

# Provisioning and start take 8 s on an idle machine, and longer on a busy one.
START_SECONDS = 90.0

_TRIES_PER_SECOND = 10
_CONNECT_SECONDS = 0.5

# DNS, Kerberos, LDAP and kpasswd have to listen before the domain can be used.
_PORTS = (53, 88, 389, 464)

# N of 10.88.N.0/24. Each domain has one of these networks.
_NETWORKS = range(32)

_IN_NAMESPACES = "in namespaces"

_HOST = "dc1"

# $1 is the folder, $2 the address, $3 the realm, $4 its NetBIOS name. No file is left on the host's file
# systems. Without nosync, provisioning calls fsync often; without eadb, it needs ACLs of the file system.
_SCRIPT = f"""
set -eu
for folder in /etc/samba /var/cache/samba /var/lib/samba /var/log/samba; do
    mount -t tmpfs -o mode=0755 samba "$folder"
done
state=/var/lib/samba
mkdir -m 0700 $state/private
mkdir -m 0755 $state/run $state/usershares
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
hostname {_HOST}
echo {_IN_NAMESPACES}
until ip link show dc0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add "$2/24" dev dc0
ip link set dc0 up
samba-tool domain provision --realm="$3" --domain="$4" --server-role=dc --dns-backend=SAMBA_INTERNAL \
    --host-name={_HOST} --host-ip="$2" \
    --option='interfaces=dc0' --option='bind interfaces only=yes' \
    --option="lock directory=$state/run" --option="pid directory=$state/run" \
    --option="ncalrpc dir=$state/run/ncalrpc" \
    --option="winbindd socket directory=$state/run/winbindd" \
    --option="posix:eadb=$state/private/eadb.tdb" --option='ldb:nosync=true'
sed -i '/dns forwarder/d' /etc/samba/smb.conf  # the forwarder would be the controller itself
exec samba --foreground --no-process-group --debug-stdout
"""


class SambaDomain:
    """A domain that exists while its context lasts, with one writable controller, the PDC, on `address`.

    `name` is the realm, the DNS name in capitals; `netbios_name` is the flat name. The controller is also the
    domain's name server. `users` are names with their passwords. After `lockout_threshold` wrong passwords a
    user is locked out. The output of the controller is `program.lines`.
    """

    program: Program
    address: str

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "AD.TEST",
        netbios_name: str = "AD",
        users: Mapping[str, str] | None = None,
        lockout_threshold: int = 10,
    ) -> None:
        self.directory = directory
        self.name = name
        self.netbios_name = netbios_name
        self.host = f"{_HOST}.{name.lower()}"
        self._users = users or {}
        self._lockout_threshold = lockout_threshold
        self._running = ExitStack()

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise ProgramError("a Samba domain needs network namespaces, which only root can make")
        with ExitStack() as unless_done:
            unless_done.push(self)
            deadline = time.monotonic() + START_SECONDS
            network = self._running.enter_context(_free_network(self.directory))
            self.address = f"{network}.10"
            self._start()
            self._connect(gateway=f"{network}.1")
            self._wait_until_listening(deadline)
            self._add_users()
            unless_done.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running.close()

    def tool(self, *command: str) -> Completed:
        """Run one command of samba-tool on the controller, which must succeed."""
        return self._run_inside("samba-tool", *command).expect_ok()

    def bad_password_count(self, user: str) -> int:
        """Return badPwdCount, the number of wrong passwords that the controller has counted for a user."""
        shown = self.tool("user", "show", user, "--attributes=badPwdCount").output
        [count] = [line.split(":")[1] for line in shown.splitlines() if line.startswith("badPwdCount:")]
        return int(count)

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        hosts = f"127.0.0.1 localhost\n{self.address} {self.host} {_HOST}\n"
        (self.directory / "hosts").write_text(hosts)
        (self.directory / "resolv.conf").write_text(f"nameserver {self.address}\n")
        # When this process ends for any reason, the kernel ends unshare, then the first process in the
        # namespaces, then all their other processes.
        program = Program(
            "samba",
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sh", "-c", _SCRIPT, "samba"),
            *(str(self.directory), self.address, self.name, self.netbios_name),
            environment=self._environment(),
        )
        self.program = program
        self._running.callback(self._stop)
        program.wait_for_line(lambda line: line == _IN_NAMESPACES)

    def _stop(self) -> None:
        # unshare ignores SIGTERM while its child runs.
        first = self._first_process()
        if first is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
        self.program.stop()

    def _first_process(self) -> int | None:
        """Return the id of the first process in the namespaces, or None if it has ended."""
        pid = self.program.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def _connect(self, *, gateway: str) -> None:
        device = f"kk{secrets.token_hex(5)}"
        namespace = str(self.program.pid)
        # The kernel removes both ends soon after the end of the namespace.
        self._run("ip", "link", "add", device, "type", "veth", "peer", "name", "dc0", "netns", namespace)
        self._running.callback(run, "ip", "link", "delete", device, environment=self._environment())
        self._run("ip", "address", "add", f"{gateway}/24", "dev", device)
        self._run("ip", "link", "set", device, "up")

    def _wait_until_listening(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        self.program.wait_for_line(lambda line: line.startswith("samba version"), timeout=remaining)
        for port in _PORTS:
            while not _is_listening(self.address, port):
                if time.monotonic() > deadline or self._first_process() is None:
                    said = "\n".join(self.program.lines)
                    raise ProgramError(
                        f"samba doesn't listen on {self.address} port {port}; its output:\n{said}"
                    )
                time.sleep(1 / _TRIES_PER_SECOND)

    def _add_users(self) -> None:
        # By default, Samba counts no wrong passwords, and no user may change a password on the day it was
        # set.
        lockout = f"--account-lockout-threshold={self._lockout_threshold}"
        self.tool("domain", "passwordsettings", "set", "--min-pwd-age=0", "--complexity=off", lockout)
        for user, password in self._users.items():
            self.tool("user", "create", user, password)

    def _run_inside(self, *command: str) -> Completed:
        target = str(self._first_process())
        enter = ("nsenter", "--target", target, "--net", "--mount", "--uts", "--pid")
        return run(*enter, *command, environment=self._environment())

    def _run(self, *command: str) -> None:
        run(*command, environment=self._environment()).expect_ok()

    def _environment(self) -> dict[str, str]:
        return environment(self.directory)


@contextlib.contextmanager
def _free_network(directory: Path) -> Iterator[str]:
    """Reserve a network while the context lasts, and yield its 10.88.N."""
    for number in _NETWORKS:
        network = f"10.88.{number}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
            try:
                # An abstract name has no file. The kernel frees the name when this process ends.
                lock.bind(f"\0kkdcpd lab {network}")
            except OSError:
                continue
            routes = run("ip", "route", "show", f"{network}.0/24", environment=environment(directory))
            if not routes.expect_ok().output:
                yield network
                return
    raise ProgramError(f"no network is free among 10.88.0.0/24 to 10.88.{_NETWORKS[-1]}.0/24")


def _is_listening(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
