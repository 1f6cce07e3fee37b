"""A temporary MIT realm: a database, its KDCs and a kpasswd server, on free high ports of loopback.

Each server has its own kdc.conf with its own listening addresses, so another KDC over the same database needs
one more file and one more process.
"""

import re
import shutil
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from kkdcpd.endpoints import KDC_TRANSPORTS, Transport, format_host_port
from lab.ports import free_port
from lab.program import Completed, Program, ProgramError, environment, run

__all__ = ["Kdc", "MitRealm", "Principal", "ServerOptions", "oversized_tickets"]

LOOPBACK = ("127.0.0.1",)
BOTH_TRANSPORTS = frozenset(KDC_TRANSPORTS)

# Another program rarely takes a port that was found free, so a third clash has another reason.
_PORT_TRIES = 3

MANY_USERS_SECONDS = 60.0
# What kadmin prints for a successful addprinc and setstr.
_DONE = re.compile(r'^Principal ".*" created\.$|^Attribute set for principal ', re.MULTILINE)

_Started = TypeVar("_Started")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A principal to add, with a random key unless it has a password.

    `options` are options of kadmin's addprinc, such as +requires_preauth. kadmin's setstr sets `strings`.
    """

    name: str
    password: str | None = None
    options: tuple[str, ...] = ()
    strings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Lines for sections of the servers' profile; `realm` is for the realm's part of [realms].

    `sections` are whole sections with their headings.
    """

    libdefaults: tuple[str, ...] = ()
    kdcdefaults: tuple[str, ...] = ()
    realm: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()


def oversized_tickets(*, size: int = 6000) -> ServerOptions:
    """Give users that log on by SPAKE tickets of more than `size` bytes, too big for the KDC's UDP.

    A ticket contains the indicators of the user's authentication method, and SPAKE gets several long
    indicators here. The KDC's limit for UDP is the default of its manual; the real default of 1.20 is 64 KiB.
    """
    name_length = 1000  # a line of a profile may be 2 KiB long
    names = (f"{number:0{name_length}}" for number in range(size // name_length + 1))
    return ServerOptions(
        libdefaults=("spake_preauth_groups = edwards25519",),
        kdcdefaults=("spake_preauth_kdc_challenge = edwards25519", "kdc_max_dgram_reply_size = 4096"),
        realm=tuple(f"spake_preauth_indicator = {name}" for name in names),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kdc:
    """A running krb5kdc, which listens on the same port of each address."""

    program: Program
    addresses: tuple[str, ...]
    port: int
    transports: frozenset[Transport]

    def kill(self) -> None:
        """Kill the KDC without a warning, as a power cut does."""
        self.program.send_signal(signal.SIGKILL)
        self.program.wait()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """HOST:PORT of each address, as in krb5.conf and kkdcpd's configuration."""
        return tuple(format_host_port(address, self.port) for address in self.addresses)


class MitRealm:
    """A realm that exists while its context lasts. It needs neither root nor ports below 1024.

    `kdcs` are its KDCs. `kadmind` is its kpasswd server, on TCP and UDP at `kpasswd_endpoint`, HOST:PORT. The
    logs of these programs are their `lines`. A `copy_of` another realm starts with a copy of its database and
    keys: the two are masters that do not replicate.
    """

    kadmind: Program
    kpasswd_endpoint: str

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "KK.TEST",
        principals: Sequence[Principal] = (),
        addresses: Sequence[str] = LOOPBACK,
        transports: Collection[Transport] = BOTH_TRANSPORTS,
        options: ServerOptions | None = None,
        copy_of: "MitRealm | None" = None,
    ) -> None:
        if ":" in str(directory):
            raise ValueError(f"{directory}: KRB5_CONFIG and KRB5_KDC_PROFILE are lists that colons divide")
        self.directory = directory
        self.name = name
        self.kdcs: list[Kdc] = []
        self._principals = principals
        self._addresses = addresses
        self._transports = transports
        self._options = options or ServerOptions()
        self._original = copy_of
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as unless_done:
            unless_done.push(self)
            self._create_database()
            self._start_kadmind()
            self.start_kdc(addresses=self._addresses, transports=self._transports)
            unless_done.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running.close()

    @property
    def kdc(self) -> Kdc:
        """The first KDC."""
        return self.kdcs[0]

    def start_kdc(
        self,
        *,
        addresses: Sequence[str] = LOOPBACK,
        transports: Collection[Transport] = BOTH_TRANSPORTS,
        port: int | None = None,
    ) -> Kdc:
        """Start another KDC over the same database; it ends with the realm. The default is a free port."""

        def start(port: int) -> Kdc:
            return self._start_kdc(tuple(addresses), port, frozenset(transports))

        kdc = start(port) if port else _on_a_free_port(addresses, start)
        self.kdcs.append(kdc)
        return kdc

    def restart_kdc(self, kdc: Kdc) -> Kdc:
        """Start a KDC on the addresses and port of an ended KDC, and replace that in `kdcs`."""
        successor = self._start_kdc(kdc.addresses, kdc.port, kdc.transports)
        self.kdcs[self.kdcs.index(kdc)] = successor
        return successor

    def kadmin(self, *command: str) -> Completed:
        """Run one command of kadmin.local, which must succeed."""
        return self._run("kadmin.local", "-r", self.name, *command)

    def add_users(self, names: Sequence[str], password: str, *options: str) -> None:
        """Add many principals with one password; `options` are options of addprinc."""
        self._add([Principal(name=name, password=password, options=options) for name in names])

    def _add(self, principals: Sequence[Principal]) -> None:
        """Add principals by one run of kadmin.local, which takes much less time than one run for each."""
        commands = [command for principal in principals for command in _commands_for(principal)]
        done = run(
            *("kadmin.local", "-r", self.name),
            environment=self._environment("kdc"),
            stdin="".join(f"{' '.join(map(_quoted, command))}\n" for command in commands),
            timeout=MANY_USERS_SECONDS,
        ).expect_ok()
        # Without a terminal, kadmin.local goes on after an error and exits with 0.
        if len(_DONE.findall(done.output)) != len(commands):
            raise ProgramError(f"kadmin.local failed:\n{done.output}")

    def _start_kdc(self, addresses: tuple[str, ...], port: int, transports: frozenset[Transport]) -> Kdc:
        listen = " ".join(format_host_port(address, port) for address in addresses)
        # With an empty list, krb5kdc does not listen.
        program = self._start_server(
            f"kdc-{port}",
            ("krb5kdc", "-n"),
            f'kdc_listen = "{listen if Transport.UDP in transports else ""}"',
            f'kdc_tcp_listen = "{listen if Transport.TCP in transports else ""}"',
            ready="commencing operation",
        )
        return Kdc(program=program, addresses=addresses, port=port, transports=transports)

    def _start_kadmind(self) -> None:
        address = self._addresses[0]

        def start(port: int) -> Program:
            self.kpasswd_endpoint = format_host_port(address, port)
            return self._start_server(
                "kadmind",
                ("kadmind", "-nofork"),
                f"kpasswd_listen = {self.kpasswd_endpoint}",
                # No client uses its other service, which can choose a free port itself.
                f"kadmind_listen = {format_host_port(address, 0)}",
                ready="starting",
            )

        self.kadmind = _on_a_free_port((address,), start)

    def _create_database(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write("kadm5.acl")
        self._write(
            "krb5.conf",
            "[libdefaults]",
            f"default_realm = {self.name}",
            "dns_lookup_kdc = false",
            "dns_lookup_realm = false",
            *self._options.libdefaults,
            "[logging]",
            "default = STDERR",
        )
        self._write_profile("kdc")
        if self._original:
            self._load_database_of(self._original)
        else:
            self._run("kdb5_util", "-r", self.name, "create", "-s", "-P", "unused master password")
        self._add(self._principals)

    def _load_database_of(self, original: "MitRealm") -> None:
        dump = self.directory / "dump"
        original._run("kdb5_util", "-r", self.name, "dump", str(dump))  # noqa: SLF001 - of the same class
        shutil.copy(original.directory / "stash", self.directory / "stash")
        self._run("kdb5_util", "-r", self.name, "load", str(dump))

    def _start_server(self, name: str, command: tuple[str, ...], *listen: str, ready: str) -> Program:
        self._write_profile(name, *listen)
        program = Program(name, *command, environment=self._environment(name))
        self._running.callback(program.stop)
        # Both programs print this line only when their sockets listen.
        program.wait_for_line(lambda line: ready in line)
        return program

    def _run(self, *command: str) -> Completed:
        return run(*command, environment=self._environment("kdc")).expect_ok()

    def _environment(self, profile: str) -> dict[str, str]:
        return environment(
            self.directory,
            KRB5_CONFIG=self.directory / "krb5.conf",
            KRB5_KDC_PROFILE=self.directory / f"{profile}.conf",
            KRB5RCACHEDIR=self.directory,
        )

    def _write_profile(self, name: str, *listen: str) -> None:
        self._write(
            f"{name}.conf",
            "[kdcdefaults]",
            *self._options.kdcdefaults,
            "[realms]",
            f"{self.name} = {{",
            f"database_name = {self.directory / 'principal'}",
            f"key_stash_file = {self.directory / 'stash'}",
            f"acl_file = {self.directory / 'kadm5.acl'}",
            *self._options.realm,
            *listen,
            "}",
            *self._options.sections,
        )

    def _write(self, file_name: str, *lines: str) -> None:
        (self.directory / file_name).write_text("".join(f"{line}\n" for line in lines))


def _commands_for(principal: Principal) -> Iterator[tuple[str, ...]]:
    key = ("-randkey",) if principal.password is None else ("-pw", principal.password)
    yield "addprinc", *key, *principal.options, principal.name
    for name, value in principal.strings.items():
        yield "setstr", principal.name, name, value


def _quoted(argument: str) -> str:
    """Quote an argument as kadmin reads it: a quotation mark is doubled."""
    return '"' + argument.replace('"', '""') + '"'


def _on_a_free_port(addresses: Sequence[str], start: Callable[[int], _Started]) -> _Started:
    for _ in range(_PORT_TRIES - 1):
        try:
            return start(free_port(addresses))
        except ProgramError as error:
            if "Address already in use" not in str(error):
                raise
    return start(free_port(addresses))
