"""A DNS server, knot, on a free port of loopback, with given zones and counts of its queries."""

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

# Another program rarely takes a port that was found free, so a third clash has another reason.
_PORT_TRIES = 3
# Each try takes about ten milliseconds.
_CONTROL_TRIES = 100

_COUNT = re.compile(r"mod-stats\.query-type\[(?P<type>[^]]+)\] = (?P<count>\d+)")


class KnotServer:
    """Serves zones while its context lasts, and answers REFUSED for all other names.

    A zone is written as in a zone file: names are relative to the zone, and a record has its TTL before its
    type or has `ttl`. The class adds SOA and NS records. The SOA's minimum, the TTL of negative answers (RFC
    2308 5), is `negative_ttl`. Without `port`, the server takes a free port.
    """

    def __init__(
        self,
        directory: Path,
        zones: Mapping[str, str],
        *,
        address: str = LOOPBACK,
        port: int | None = None,
        ttl: int = 3600,
        negative_ttl: int = 3600,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.address = address
        self.port = port or 0
        self._has_port = port is not None
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
        if self._has_port:
            self.start()
            return self
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
        """HOST:PORT, as in `locate.nameservers`."""
        return format_host_port(self.address, self.port)

    def start(self) -> None:
        """Start the server on its port."""
        self._write_configuration()
        program = Program(
            "knotd", "knotd", "--config", str(self._configuration), environment=self._environment
        )
        try:
            # After this line, knot opens the socket of knotc.
            program.wait_for_line(lambda line: "control, binding" in line)
            self._wait_for_control()
        except BaseException:
            program.stop()
            raise
        self._program = program

    def stop(self) -> None:
        """Stop the server. After the next start, `queries` continues to count."""
        if self._program is None:
            return
        self._counted = dict(self.queries())
        self._program.stop()
        self._program = None

    def set_zone(self, zone: str, text: str) -> None:
        """Replace a zone, and wait until the server uses it."""
        self._write_zone(zone, text)
        if self._program is not None:
            self._control("--blocking", "zone-reload", zone)

    def queries(self) -> Mapping[str, int]:
        """Return the number of queries of each record type that has been queried."""
        total = dict(self._counted)
        if self._program is not None:
            for found in _COUNT.finditer(self._control("stats")):
                total[found["type"]] = total.get(found["type"], 0) + int(found["count"])
        return total

    def query_count(self) -> int:
        """Return the number of all queries."""
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
        numbers = f"{self._serial} 3600 600 86400 {negative_ttl}"
        head = (
            f"$ORIGIN {zone}.\n$TTL {ttl}\n"
            f"@ {negative_ttl} SOA ns.{zone}. hostmaster.{zone}. {numbers}\n"
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
    # The server uses the file alone, without records of an earlier file.
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
zone:
{zones}"""
        )
