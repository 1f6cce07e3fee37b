"""A DNS server with zones of one's own: knot, on a free port of loopback. It counts what it was asked."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from kkdcpd.endpoints import format_host_port
from lab.ports import free_port
from lab.program import Completed, Program, ProgramError, environment, run

__all__ = ["KnotServer"]

LOOPBACK = "127.0.0.1"

# A port found free is taken by somebody else once in a long while, so the third clash is no clash.
_PORT_TRIES = 3
# Each takes some ten milliseconds, as a process of its own.
_CONTROL_TRIES = 100

_COUNT = re.compile(r"mod-stats\.query-type\[(?P<type>[^]]+)\] = (?P<count>\d+)")


class KnotServer:
    """Serves zones while its context lasts; it refuses to answer for all other names (REFUSED).

    A zone's text is what stands in a zone file: names are relative to the zone, and a TTL stands before each
    record's type or is `ttl`. SOA and NS records are put before it, with `negative_ttl` as the SOA's minimum,
    by which a name without records is believed (RFC 2308 5).
    """

    def __init__(
        self,
        directory: Path,
        zones: Mapping[str, str],
        *,
        address: str = LOOPBACK,
        ttl: int = 3600,
        negative_ttl: int = 3600,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.address = address
        self.port = 0
        self._directory = directory
        self._environment = environment(directory)
        self._configuration = directory / "knot.conf"
        self._ttls = (ttl, negative_ttl)
        self._serial = 0
        self._zones = tuple(zones)
        self._counted: dict[str, int] = {}
        self._program: Program | None = None
        for zone, text in zones.items():
            self._write_zone(zone, text)

    def __enter__(self) -> Self:
        for _ in range(_PORT_TRIES - 1):
            self.port = free_port((self.address,))
            try:
                self.start()
            except ProgramError as error:
                if "address already in use" not in str(error).lower():
                    raise
                continue
            return self
        self.port = free_port((self.address,))
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """HOST:PORT, as `locate.nameservers` has it."""
        return format_host_port(self.address, self.port)

    def start(self) -> None:
        """Start the server, at the port that it had before if it had one."""
        self._write_configuration()
        program = Program(
            "knotd", "knotd", "--config", str(self._configuration), environment=self._environment
        )
        try:
            # What comes after "server started" is the socket of knotc, which is then ready within a moment.
            program.wait_for_line(lambda line: "control, binding" in line)
            self._wait_for_control()
        except BaseException:
            program.stop()
            raise
        self._program = program

    def stop(self) -> None:
        """Stop the server: it is silent until it is started anew, and `queries` then goes on counting."""
        if self._program is None:
            return
        self._counted = dict(self.queries())
        self._program.stop()
        self._program = None

    def set_zone(self, zone: str, text: str) -> None:
        """Replace a zone; the server answers from it when this returns."""
        self._write_zone(zone, text)
        if self._program is not None:
            self._control("--blocking", "zone-reload", zone)

    def queries(self) -> Mapping[str, int]:
        """Return how many queries were seen, by record type; types that nobody asked for are left out."""
        total = dict(self._counted)
        if self._program is not None:
            for found in _COUNT.finditer(self._control("stats")):
                total[found["type"]] = total.get(found["type"], 0) + int(found["count"])
        return total

    def query_count(self) -> int:
        """Return how many queries were seen in all."""
        return sum(self.queries().values())

    def _wait_for_control(self) -> None:
        for _ in range(_CONTROL_TRIES - 1):
            if self._run_control("status").is_ok:
                return
        self._control("status")

    def _control(self, *command: str) -> str:
        return self._run_control(*command).expect_ok().output

    def _run_control(self, *command: str) -> Completed:
        return run("knotc", "--config", str(self._configuration), *command, environment=self._environment)

    def _write_zone(self, zone: str, text: str) -> None:
        ttl, negative_ttl = self._ttls
        self._serial += 1
        head = (
            f"$ORIGIN {zone}.\n$TTL {ttl}\n"
            f"@ {negative_ttl} SOA ns.{zone}. nobody.{zone}. {self._serial} 3600 600 86400 {negative_ttl}\n"
            f"@ NS ns.{zone}.\nns A {LOOPBACK}\n"
        )
        lines = "".join(f"{line.strip()}\n" for line in text.splitlines())
        (self._directory / f"{zone}.zone").write_text(head + lines)

    def _write_configuration(self) -> None:
        zones = "".join(f"  - domain: {zone}\n    file: {zone}.zone\n" for zone in self._zones)
        self._configuration.write_text(
            f"""
server:
    rundir: "{self._directory}"
    listen: "{self.address}@{self.port}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "{self._directory / "database"}"
mod-stats:
  - id: asked
    query-type: on
template:
  - id: default
    storage: "{self._directory}"
    global-module: mod-stats/asked
    # The file is what counts, as it is: nothing is kept from an earlier one.
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
zone:
{zones}"""
        )
