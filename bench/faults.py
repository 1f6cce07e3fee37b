"""Compares log-ons past a faulty KDC with log-ons in the same run to healthy KDCs.

    python -m bench.faults

The first of three KDCs has the fault. Each round starts a new kkdcpd, which does not know the fault yet.
"""

import itertools
import json
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon
from lab.realm import MitRealm, Principal
from tests.interop.test_faults import FAULTS
from tests.support import messages
from tests.support.fake_kdc import FakeKdcThread
from tests.support.http_client import HttpClient, post

ROUNDS = 7  # new daemons for each fault
LATER_LOGINS = 6  # in each round, and as many armored log-ons
LATER_REQUESTS = 100  # in each round

BLACK_HOLE_SECONDS = 0.5
FIRST_SECONDS = 1.0
LATER_RATIO = 1.1

REALM = "KK.TEST"
USER = "alice"
PASSWORD = "correct horse"
HEALTHY = "all healthy"

_nonces = itertools.count(1)


@dataclass(slots=True, kw_only=True)
class Samples:
    """Seconds of first log-ons, later log-ons, later armored log-ons and later requests."""

    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    armored: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Case:
    """A fault, with the measurements past it and beside it."""

    name: str
    first_limit: float
    faulty: Samples = field(default_factory=Samples)
    healthy: Samples = field(default_factory=Samples)

    @property
    def is_within_limits(self) -> bool:
        """Whether a first log-on is within the limit, and later requests are as fast as with healthy KDCs."""
        ratio = _ratio(self.faulty.requests, self.healthy.requests)
        return statistics.median(self.faulty.first) < self.first_limit and ratio <= LATER_RATIO


class Front:
    """A new kkdcpd in front of KDCs, and its clients."""

    def __init__(self, directory: Path, authority: Authority, kdcs: Sequence[str], stack: ExitStack) -> None:
        pair = authority.issue("localhost", "127.0.0.1")
        daemon = stack.enter_context(
            Daemon(
                directory,
                f"""
                [[listen]]
                address = "127.0.0.1:0"
                [tls]
                certificate = "{pair.certificate}"
                key = "{pair.key}"
                [realms."{REALM}"]
                kdc = {json.dumps(kdcs)}
                """,
            )
        )
        port = daemon.ports[0]
        self._client = KerberosClient(
            directory / "client",
            {REALM: RealmServers.behind(f"https://localhost:{port}/KdcProxy")},
            http_anchors=authority.certificate,
        )
        tls = ssl.create_default_context(cafile=authority.certificate)
        self._http = stack.enter_context(HttpClient(port, tls=tls))

    def log_in(self) -> float:
        """Log on and return the seconds."""
        return self._client.kinit(USER, PASSWORD).expect_ok().seconds

    def log_in_armored(self) -> float:
        """Log on with armor by the tickets of an earlier log-on."""
        cache = self._client.credential_cache
        other = f"{cache}-armored"
        return self._client.kinit(USER, PASSWORD, "-T", cache, "-c", other).expect_ok().seconds

    def request(self) -> float:
        """Send an AS-REQ over the open connection. Each one differs, so that no KDC finds it in its cache."""
        padata = [(149, b""), (150, b"")]
        payload = messages.as_req(realm=REALM, cname=(1, (USER,)), padata=padata, nonce=next(_nonces))
        data = post(messages.envelope(payload, REALM))
        started = time.perf_counter()
        response = self._http.ask(data)
        seconds = time.perf_counter() - started
        assert response.status == 200, response
        return seconds


def run() -> bool:
    """Measure and print; return whether all results are within their limits."""
    cases = [
        Case(name=name, first_limit=BLACK_HOLE_SECONDS if name == "drops packets" else FIRST_SECONDS)
        for name in (HEALTHY, *FAULTS)
    ]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        user = Principal(name=USER, password=PASSWORD, options=("+requires_preauth",))
        with MitRealm(directory / "realm", name=REALM, principals=[user]) as realm:
            for _ in range(2):
                realm.start_kdc()
            authority = Authority(directory / "tls")
            for number in range(ROUNDS):
                for case in cases:
                    _measure(case, realm, authority, directory / f"{number}-{case.name.replace(' ', '-')}")
    _report(cases)
    return all(case.is_within_limits for case in cases)


def _measure(case: Case, realm: MitRealm, authority: Authority, directory: Path) -> None:
    """Measure one round, past the fault and with healthy KDCs."""
    real = [f"tcp://{kdc.endpoints[0]}" for kdc in realm.kdcs]
    with ExitStack() as stack:
        first = real[0]
        if case.name != HEALTHY:
            fake = stack.enter_context(FakeKdcThread(tcp=FAULTS[case.name].tcp))
            first = f"tcp://127.0.0.1:{fake.port}"
        faulty = Front(directory / "faulty", authority, [first, *real[1:]], stack)
        healthy = Front(directory / "healthy", authority, real, stack)
        case.faulty.first.append(faulty.log_in())
        case.healthy.first.append(healthy.log_in())
        alternate(LATER_LOGINS, faulty.log_in, case.faulty.later, healthy.log_in, case.healthy.later)
        alternate(
            LATER_LOGINS,
            faulty.log_in_armored,
            case.faulty.armored,
            healthy.log_in_armored,
            case.healthy.armored,
        )
        alternate(
            LATER_REQUESTS, faulty.request, case.faulty.requests, healthy.request, case.healthy.requests
        )


def alternate(
    times: int, one: Callable[[], float], ones: list[float], other: Callable[[], float], others: list[float]
) -> None:
    """Measure two cases alternately, each as often first as second."""
    for number in range(times):
        pairs = [(one, ones), (other, others)]
        for measure, samples in pairs if number % 2 else reversed(pairs):
            samples.append(measure())


def _report(cases: Sequence[Case]) -> None:
    print(
        f"Logins and requests past a faulty KDC: median of {ROUNDS} new daemons, each in turn with one that "
        "has healthy KDCs alone.\nRatios are to that one.\n"
    )
    print(
        f"{'the first KDC':<27}{'first login':>12}{'limit':>8}"
        f"{'later':>10}{'ratio':>7}{'armored':>10}{'ratio':>7}{'request':>10}{'ratio':>7}{'limit':>7}"
    )
    for case in cases:
        print(
            f"{case.name:<27}{statistics.median(case.faulty.first):>10.3f} s{case.first_limit:>6.1f} s"
            f"{_pair(case.faulty.later, case.healthy.later)}"
            f"{_pair(case.faulty.armored, case.healthy.armored)}"
            f"{_pair(case.faulty.requests, case.healthy.requests)}{LATER_RATIO:>7.2f}"
            f"{'' if case.is_within_limits else '  over the limit'}"
        )
    print()


def _pair(faulty: Sequence[float], healthy: Sequence[float]) -> str:
    return f"{statistics.median(faulty) * 1000:>7.1f} ms{_ratio(faulty, healthy):>7.2f}"


def _ratio(faulty: Sequence[float], healthy: Sequence[float]) -> float:
    return statistics.median(faulty) / statistics.median(healthy)


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
