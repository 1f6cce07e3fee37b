"""A kkdcpd with a control socket and a certificate, whose configuration a test changes while it runs."""

import contextlib
import http.client
import os
import signal
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.authority import Authority, CertificateFiles
from lab.daemon import Daemon
from lab.program import Completed, run
from tests.frontends.site import GOOD_REQUEST, REPLY_PAYLOAD, parse_line
from tests.support.fake_kdc import FakeKdcThread, reply
from tests.support.http_client import HttpClient, Response

__all__ = ["House", "run_house"]

PATIENCE_SECONDS = 10.0
NO_ADMIN = '[admin]\naddress = ""\n'
END_OF_RELOAD = ("reloaded", "reload_failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The daemon with its KDC, certificate and configuration, and ways to reload it."""

    daemon: Daemon
    kdc: FakeKdcThread
    pair: CertificateFiles
    authority: Authority
    trust: ssl.SSLContext
    control: Path
    text: str

    def write(self, text: str) -> None:
        """Write another configuration into the file."""
        self.daemon.config.write_text(text)

    def command(self, *arguments: str) -> Completed:
        """Run `kkdcpd` with the daemon's configuration."""
        return run(
            *(sys.executable, "-m", "kkdcpd", *arguments, "--config", str(self.daemon.config)),
            environment=os.environ,
        )

    def reload(self) -> Completed:
        """Run `kkdcpd reload`."""
        return self.command("reload")

    def hang_up(self) -> dict[str, Any]:
        """Send SIGHUP, and return the log line with the result."""
        after = len(self.daemon.lines)
        self.daemon.send_signal(signal.SIGHUP)
        return self.wait_for_event(*END_OF_RELOAD, after=after)

    def wait_for_event(self, *events: str, after: int = 0) -> dict[str, Any]:
        """Wait for a line with one of these events."""
        return parse_line(self.daemon.wait_for_line(lambda line: event_of(line) in events, after=after))

    def lines(self, *events: str, after: int = 0) -> list[dict[str, Any]]:
        """Return the lines so far with one of these events."""
        return [parse_line(line) for line in self.daemon.lines[after:] if event_of(line) in events]

    def connect(self, *, port: int | None = None, tls: ssl.SSLContext | None = None) -> HttpClient:
        """Connect by TLS."""
        return HttpClient(port or self.daemon.ports[0], tls=tls or self.trust)

    def get(self, path: str) -> tuple[int, str]:
        """Get a path of the admin listener; return the status and the body."""
        client = http.client.HTTPConnection("127.0.0.1", self.daemon.ports[-1], timeout=PATIENCE_SECONDS)
        with contextlib.closing(client):
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()

    def metric(self, series: str) -> float:
        """Return the value of one series of the metrics."""
        lines = self.get("/metrics")[1].splitlines()
        return float(next(line for line in lines if line.startswith(f"{series} ")).split()[1])

    def ask(self, request: bytes = GOOD_REQUEST) -> Response:
        """Ask once, by a connection of its own."""
        with self.connect() as client:
            return client.ask(request)


def event_of(line: str) -> str:
    """Return the event of a log line, or an empty text for another line."""
    words = line.split(" ", 3)
    return words[2] if len(words) > 2 else ""


@contextlib.contextmanager
def run_house(
    directory: Path,
    *,
    sections: str = "",
    workers: int = 2,
    process: str = "drain_timeout = 5",
    realms: Callable[[FakeKdcThread], str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[House]:
    """Run a daemon. `sections` is added to the configuration, `process` to its section [process]."""
    authority = Authority(directory / "ca")
    pair = authority.issue("127.0.0.1", "localhost")
    control = directory / "control.sock"
    with FakeKdcThread(tcp=reply(REPLY_PAYLOAD)) as kdc:
        served = realms(kdc) if realms else f'[realms."EXAMPLE.COM"]\nkdc = ["tcp://127.0.0.1:{kdc.port}"]\n'
        text = f"""
            [[listen]]
            address = "127.0.0.1:0"
            [tls]
            certificate = "{pair.certificate}"
            key = "{pair.key}"
            {served}
            {sections if "[admin]" in sections else NO_ADMIN + sections}
            [process]
            workers = {workers}
            control = "{control}"
            {process}
        """
        with Daemon(directory / "daemon", text, environment=environment) as daemon:
            yield House(
                daemon=daemon,
                kdc=kdc,
                pair=pair,
                authority=authority,
                trust=ssl.create_default_context(cafile=str(authority.certificate)),
                control=control,
                text=text,
            )
