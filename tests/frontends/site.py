"""kkdcpd as a process with every kind of listener, and KDCs behind it that follow a script."""

import contextlib
import json
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.authority import Authority
from lab.daemon import Daemon, is_exchange
from tests.support.fake_kdc import FakeKdcThread, close_after_message, reply
from tests.support.http_client import HttpClient, Response, post
from tests.support.messages import as_req, envelope, krb_error, prefixed

__all__ = ["GOOD_BODY", "GOOD_REPLY", "GOOD_REQUEST", "Site", "parse_line", "run_site"]

GOOD_BODY = envelope(as_req())
GOOD_REQUEST = post(GOOD_BODY)
REPLY_PAYLOAD = krb_error(25)
GOOD_REPLY = envelope(REPLY_PAYLOAD, realm=None)
assert prefixed(REPLY_PAYLOAD) in GOOD_REPLY

_TEXT_LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>\w+) (?P<rest>.*)")
_FIELD = re.compile(r' (?P<key>[a-z_]+)=(?P<value>"(?:[^"\\]|\\.)*"|[^" =]*)')


def parse_line(line: str) -> dict[str, Any]:
    """Read a line of the log, text or JSON, as strictly as it can be; values of text are strings."""
    if line.startswith("{"):
        entry: dict[str, Any] = json.loads(line)
        return entry
    found = _TEXT_LINE.fullmatch(line)
    assert found, f"not a log line: {line!r}"
    rest = found["rest"]
    fields: dict[str, Any] = {}
    first = _FIELD.search(rest)
    position = first.start() if first else len(rest)
    event = rest[:position]
    while position < len(rest):
        field = _FIELD.match(rest, position)
        assert field, f"no field at {rest[position:]!r} of {line!r}"
        value = field["value"]
        assert field["key"] not in fields, line
        fields[field["key"]] = json.loads(value) if value.startswith('"') else value
        position = field.end()
    return {"time": found["time"], "level": found["level"], "event": event, **fields}


SUMMED = {"accept_failed", "accept_recovered", "kdc_unhealthy", "kdc_recovered"}
"""Lines that may be due to a test before, as they are summed for some seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A kkdcpd that serves EXAMPLE.COM, ODD.TEST (each test scripts its KDC), MUTE.TEST and DEAD.TEST."""

    daemon: Daemon
    kdc: FakeKdcThread
    odd_kdc: FakeKdcThread
    unix_path: Path
    trust: ssl.SSLContext

    def client(self) -> HttpClient:
        """Connect by TLS."""
        return HttpClient(self.daemon.ports[0], tls=self.trust)

    def plain_client(self) -> HttpClient:
        """Connect without TLS."""
        return HttpClient(self.daemon.ports[1])

    def unix_client(self) -> HttpClient:
        """Connect to the unix socket."""
        return HttpClient(self.unix_path)

    def ask(self, request: bytes) -> Response:
        """Send one request over a TLS connection of its own."""
        with self.client() as client:
            return client.ask(request)

    @contextlib.contextmanager
    def log(self) -> Iterator[Callable[[], Sequence[dict[str, Any]]]]:
        """Look at what is logged within: the function gives the lines so far.

        Each look begins and ends with a good request, which is not returned: it shows that the daemon
        serves, and that all earlier lines are there. Summed lines, which come late, are left out too.
        """
        start = self._ask_and_find_line()

        def lines() -> Sequence[dict[str, Any]]:
            stop = self._ask_and_find_line()
            logged = map(parse_line, self.daemon.lines[start + 1 : stop])
            return [line for line in logged if line["event"] not in SUMMED]

        yield lines

    def _ask_and_find_line(self) -> int:
        response = self.ask(GOOD_REQUEST)
        assert (response.status, response.body) == (200, GOOD_REPLY)
        line = self.daemon.wait_for_line(lambda line: response.request_id in line)
        return self.daemon.lines.index(line)

    def line_of(self, response: Response) -> dict[str, Any]:
        """The log line of a request that got this response."""
        return parse_line(
            self.daemon.wait_for_line(lambda line: is_exchange(line) and response.request_id in line)
        )


@contextlib.contextmanager
def run_site(directory: Path, authority: Authority, settings: str = "") -> Iterator[Site]:
    """Run a site; `settings` are further sections of the configuration."""
    pair = authority.issue("127.0.0.1", "localhost", file_name=directory.name)
    unix_path = directory / "http.sock"
    with (
        FakeKdcThread(tcp=reply(REPLY_PAYLOAD)) as kdc,
        FakeKdcThread(tcp=reply(REPLY_PAYLOAD)) as odd_kdc,
        FakeKdcThread(tcp=close_after_message()) as mute_kdc,
        FakeKdcThread() as dead_kdc,
        Daemon(
            directory,
            f"""
                {settings}
                [[listen]]
                address = "127.0.0.1:0"
                [[listen]]
                address = "127.0.0.1:0"
                tls = false
                [[listen]]
                address = "unix:{unix_path}"
                tls = false
                [tls]
                certificate = "{pair.certificate}"
                key = "{pair.key}"
                [realms."EXAMPLE.COM"]
                kdc = ["tcp://127.0.0.1:{kdc.port}"]
                aliases = ["FREEIPA.LOCAL"]
                [realms."ODD.TEST"]
                kdc = ["tcp://127.0.0.1:{odd_kdc.port}"]
                [realms."MUTE.TEST"]
                kdc = ["tcp://127.0.0.1:{mute_kdc.port}"]
                [realms."DEAD.TEST"]
                kdc = ["127.0.0.1:{dead_kdc.port}"]
            """,
        ) as daemon,
    ):
        yield Site(
            daemon=daemon,
            kdc=kdc,
            odd_kdc=odd_kdc,
            unix_path=unix_path,
            trust=ssl.create_default_context(cafile=str(authority.certificate)),
        )
