"""The order of untried candidates after failures."""

from dataclasses import replace

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.protocol.candidate_queue import CandidateQueue
from kkdcpd.values import Candidate


def candidate(address: str, transport: Transport = Transport.TCP, *, is_fallback: bool = False) -> Candidate:
    endpoint = KdcEndpoint(name="kdc", address=address, port=88, transport=transport)
    return Candidate(endpoint=endpoint, source="test", is_fallback=is_fallback)


def fallback(address: str) -> Candidate:
    return candidate(address, Transport.UDP, is_fallback=True)


A, B = candidate("192.0.2.1"), candidate("192.0.2.2")
A_UDP, B_UDP = fallback("192.0.2.1"), fallback("192.0.2.2")


def test_next_endpoint_comes_first_and_once() -> None:
    queue = CandidateQueue([A, B])
    queue.make_next(B.endpoint, "UDP")
    assert [each.endpoint for each in queue] == [B.endpoint, A.endpoint]


def test_removed_host_is_removed_by_every_transport() -> None:
    queue = CandidateQueue([A, B, A_UDP, B_UDP])
    queue.remove_host(A.endpoint)
    assert queue == [B, B_UDP]


def test_fallback_of_a_host_that_refuses_precedes_other_fallbacks_but_no_other_candidate() -> None:
    queue = CandidateQueue([A, A_UDP, B_UDP])
    queue.prefer_fallback_of(B.endpoint)
    assert queue == [A, B_UDP, A_UDP]


def test_kdc_proxies_that_share_an_address_are_removed_one_by_one() -> None:
    endpoint = replace(A.endpoint, transport=Transport.HTTPS, name="a.test", path="/KdcProxy")
    others = [replace(endpoint, name="b.test"), replace(endpoint, path="/other")]
    queue = CandidateQueue(replace(A, endpoint=each) for each in (endpoint, *others))
    queue.remove_host(replace(endpoint, name="A.test"))
    assert [each.endpoint for each in queue] == others
