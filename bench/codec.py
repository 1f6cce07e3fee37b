"""Measures the CPU time to read one request, with kkdcpd's reader and with pyasn1 and a schema.

kkdcpd's reader unwraps the envelope, checks every field and returns all clear-text values. pyasn1 only
decodes the envelope and each message in it. Only the ratios within one run are comparable.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyasn1.codec.der import decoder

from kkdcpd.protocol import der, kerberos
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify
from tests.support import kerberos_asn1 as asn1
from tests.support import messages
from tests.support.captured import captured

__all__ = ["run"]

ROUNDS = 31
OUR_LOOPS = 200
PYASN1_LOOPS = 10
"""A loop takes about 10 ms: a thousand times the clock's resolution, and short enough to interleave."""

LONGEST = messages.envelope(
    messages.tgs_req(
        realm="R" * (kerberos.MAX_NAME_BYTES - 100),
        cname=(1, ["\udcff" * 250] * kerberos.MAX_NAME_COMPONENTS),
        sname=(1, ["/@\udcff" * 80] * kerberos.MAX_NAME_COMPONENTS),
        padata=[(149, bytes(840))] * (der.MAX_ITEMS - 1),
        etypes=[18] * der.MAX_ITEMS,
        addresses=[(2, bytes(4))] * der.MAX_ITEMS,
        tickets=[(1, ["a"] * kerberos.MAX_NAME_COMPONENTS)] * kerberos.MAX_ADDITIONAL_TICKETS,
    )
)
"""Build the slowest request that kkdcpd accepts: the maximum of each field, in 256 KiB."""

LONGEST_LIMIT = 10000.0

Read = Callable[[bytes], object]


def _read_ours(body: bytes) -> object:
    return classify(decode_proxy_message(body))


def _payload(body: bytes) -> bytes:
    envelope, _ = decoder.decode(body, asn1Spec=asn1.KDC_PROXY_MESSAGE)
    return bytes(envelope["kerb-message"])[4:]


def _pyasn1_as_req(body: bytes) -> object:
    return decoder.decode(_payload(body), asn1Spec=asn1.AS_REQ)


def _pyasn1_tgs_req(body: bytes) -> object:
    request: Any = decoder.decode(_payload(body), asn1Spec=asn1.TGS_REQ)[0]
    proofs = [bytes(item["padata-value"]) for item in request["padata"] if item["padata-type"] == 1]
    return [decoder.decode(proof, asn1Spec=asn1.AP_REQ) for proof in proofs]


def _pyasn1_kpasswd_req(body: bytes) -> object:
    payload = _payload(body)
    middle = 6 + int.from_bytes(payload[4:6], "big")
    return (
        decoder.decode(payload[6:middle], asn1Spec=asn1.AP_REQ),
        decoder.decode(payload[middle:], asn1Spec=asn1.KRB_PRIV),
    )


@dataclass(kw_only=True)
class Case:
    """A request, its limit, and its CPU time in each round, in microseconds."""

    name: str
    vector: str
    read_pyasn1: Read
    limit: float | None = None
    ours: list[float] = field(default_factory=list)
    pyasn1: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Measure one round."""
        body = captured(self.vector)
        self.ours.append(_microseconds(_read_ours, body, OUR_LOOPS))
        self.pyasn1.append(_microseconds(self.read_pyasn1, body, PYASN1_LOOPS))

    @property
    def is_within_limit(self) -> bool:
        """Whether the median is within the limit."""
        return self.limit is None or statistics.median(self.ours) <= self.limit


CASES = (
    ("AS-REQ", "asreq1", _pyasn1_as_req, 80.0),
    ("AS-REQ, preauth", "asreq2", _pyasn1_as_req, 80.0),
    ("TGS-REQ, FAST", "tgsreq", _pyasn1_tgs_req, 100.0),
    ("kpasswd", "kpasswdreq", _pyasn1_kpasswd_req, None),
)


def _microseconds(read: Read, body: bytes, loops: int) -> float:
    """Return the CPU time of one read, as the mean of many reads."""
    started = time.process_time_ns()
    for _ in range(loops):
        read(body)
    return (time.process_time_ns() - started) / loops / 1000


def run() -> bool:
    """Measure and print; return whether all results are within their limits."""
    cases = [
        Case(name=name, vector=vector, read_pyasn1=read, limit=limit) for name, vector, read, limit in CASES
    ]
    for case in cases:  # the first round warms up
        _microseconds(_read_ours, captured(case.vector), OUR_LOOPS)
    gc.collect()
    for _ in range(ROUNDS):
        for case in cases:
            case.measure()
    _report(cases)
    return _measure_longest() and all(case.is_within_limit for case in cases)


def _measure_longest() -> bool:
    times = [_microseconds(_read_ours, LONGEST, OUR_LOOPS // 20) for _ in range(ROUNDS)]
    is_within_limit = statistics.median(times) <= LONGEST_LIMIT
    print(
        f"{'all at its bounds':<17}{len(LONGEST):>7}{_spread(times, 15)}{'':<32}{LONGEST_LIMIT:>7.0f}"
        f"{'' if is_within_limit else '  over the limit'}\n"
    )
    return is_within_limit


def _report(cases: list[Case]) -> None:
    print(f"CPU microseconds to read one request: median and quartiles of {ROUNDS} interleaved rounds\n")
    print(f"{'request':<17}{'bytes':>7}{'kkdcpd':>9}{'':<15}{'pyasn1':>9}{'':<17}{'ratio':>6}{'limit':>7}")
    for case in cases:
        ratio = statistics.median(case.pyasn1) / statistics.median(case.ours)
        print(
            f"{case.name:<17}{len(captured(case.vector)):>7}"
            f"{_spread(case.ours, 15)}{_spread(case.pyasn1, 17)}{ratio:>6.1f}"
            f"{'-' if case.limit is None else format(case.limit, '.0f'):>7}"
            f"{'' if case.is_within_limit else '  over the limit'}"
        )
    print()


def _spread(samples: list[float], width: int) -> str:
    low, median, high = statistics.quantiles(samples, n=4)
    return f"{median:>9.1f}{f' ({low:.1f} to {high:.1f})':<{width}}"
