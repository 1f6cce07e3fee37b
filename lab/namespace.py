"""Makes network namespaces with their own loopback interface, in which nftables drops or counts packets.

A thread enters the namespace. Programs and threads that this thread starts are in the namespace too. The
namespace has no name, so the kernel removes it when its last program ends. Only root can make one.
"""

import ctypes
import os
import re
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.program import ProgramError, environment, run

__all__ = ["NetworkNamespace"]

_CLONE_NEWNET = 0x40000000  # unshare(2); Python has it from 3.12 on

_TABLE = "inet lab"
_COUNTED = re.compile(r"packets (\d+)")


class NetworkNamespace:
    """A network namespace that the current thread is in while the context lasts.

    `directory` is for the temporary files of the programs that set the namespace up. `descriptor` refers to
    the namespace.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._entered = ExitStack()
        self.descriptor = -1

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        with ExitStack() as unless_done:
            outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            unless_done.callback(os.close, outside)
            if libc.unshare(_CLONE_NEWNET) != 0:
                reason = os.strerror(ctypes.get_errno())
                raise ProgramError(f"can't make a network namespace, which only root can do: {reason}")
            unless_done.callback(libc.setns, outside, _CLONE_NEWNET)
            self.descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            unless_done.callback(os.close, self.descriptor)
            self._run("ip", "link", "set", "lo", "up")
            self._nft(f"add table {_TABLE}")
            for hook in ("input", "output"):
                self._nft(f"add chain {_TABLE} {hook} {{ type filter hook {hook} priority 0; }}")
            self._entered = unless_done.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered.close()

    def add_interface(self, name: str, *addresses: str) -> None:
        """Add an interface with these addresses and prefix lengths. No other host is on its link."""
        peer = f"{name}-peer"
        self._run("ip", "link", "add", name, "type", "veth", "peer", "name", peer)
        self._run("ip", "link", "set", peer, "up")
        for address in addresses:
            # Duplicate address detection would take two seconds.
            self._run("ip", "address", "add", address, "dev", name, *(("nodad",) if ":" in address else ()))
        self._run("ip", "link", "set", name, "up")

    def link_to(self, other: "NetworkNamespace", name: str, *, ours: str, theirs: str) -> None:
        """Add an interface of this name to both namespaces, with these addresses and prefix lengths.

        The thread is in this namespace, and has been in the other one before.
        """
        path = f"/proc/{os.getpid()}/fd/{other.descriptor}"
        there = ("nsenter", f"--net={path}")
        self._run("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", path)
        for prefix, address in (((), ours), (there, theirs)):
            self._run(*prefix, "ip", "address", "add", address, "dev", name)
            self._run(*prefix, "ip", "link", "set", name, "up")

    def route_to_loopback(self, network: str) -> None:
        """Make every address of a network local, so that programs can connect from it."""
        Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
        self._run("ip", "route", "add", "local", network, "dev", "lo")

    def filter(self, hook: str, rule: str) -> None:
        """Add a rule of nft(8) to `input` or `output`, such as `tcp dport 88 drop`."""
        self._nft(f"add rule {_TABLE} {hook} {rule}")

    def limit_ports(self, first: int, last: int) -> None:
        """Limit programs to these local ports, and keep a port in use while a closed connection waits."""
        self.set("ip_local_port_range", f"{first} {last}")
        self.set("tcp_tw_reuse", "0")

    def set(self, name: str, value: str) -> None:
        """Set a value of net.ipv4 (sysctl(8)) in this network."""
        Path(f"/proc/sys/net/ipv4/{name}").write_text(value)

    def unfilter(self) -> None:
        """Remove all rules."""
        self._nft(f"flush table {_TABLE}")

    def drop_replies(self, port: int) -> None:
        """Drop the replies of a server on `port`, but let clients connect."""
        self.filter("output", f"tcp sport {port} tcp flags & psh == psh drop")
        self.filter("output", f"udp sport {port} drop")

    def count(self, name: str, packets: str) -> None:
        """Count incoming packets from now on; `packets` is an expression of nft(8)."""
        self._nft(f"add counter {_TABLE} {_counter(name)}")
        self.filter("input", f"{packets} counter name {_counter(name)}")

    def counted(self, name: str) -> int:
        """Return the number of packets that the counter of this name has counted."""
        shown = self._nft(f"list counter {_TABLE} {_counter(name)}")
        found = _COUNTED.search(shown)
        assert found, shown
        return int(found[1])

    def _nft(self, command: str) -> str:
        return self._run("nft", command)

    def _run(self, *command: str) -> str:
        return run(*command, environment=environment(self._directory)).expect_ok().output


def _counter(name: str) -> str:
    """Return a name that is not a keyword of nft(8)."""
    return f"counted_{name}"
