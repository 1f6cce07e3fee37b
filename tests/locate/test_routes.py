"""Routes made of found servers, and the log of refused servers."""

import logging

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.errors import NoKdcKnownError
from kkdcpd.locate.candidates import FoundCandidates
from kkdcpd.locate.dns_answers import FOREVER
from kkdcpd.locate.realms import ServedRealm
from kkdcpd.locate.routes import MAX_REASONS, RouteMaker
from kkdcpd.values import Candidate, KdcService, RefusedCandidate
from tests.locate.support import realm

KEY = (KdcService.KDC, 0)
CANDIDATE = Candidate(
    endpoint=KdcEndpoint(name="k1", address="192.0.2.1", port=88, transport=Transport.TCP), source="SRV"
)


def _refused(number: int) -> RefusedCandidate:
    return RefusedCandidate(source="SRV", target=f"tcp://k{number}:22", reason="port 22 is refused")


def _found(*candidates: Candidate, refused: int = 0) -> FoundCandidates:
    return FoundCandidates(
        candidates=candidates, refused=tuple(map(_refused, range(refused))), validity=FOREVER
    )


def test_route_under_a_wildcard_has_the_realm_and_the_branch() -> None:
    served = ServedRealm(name="b.a.example.com", config=realm("*.EXAMPLE.COM"))
    route = RouteMaker().make(served, KEY, _found(CANDIDATE), log_refused=True)
    assert (route.realm, route.kerberos_realm) == ("*.EXAMPLE.COM", "B.A.EXAMPLE.COM")
    assert route.candidates[0].endpoint.branch == "a.example.com"


def test_error_names_the_first_refused_servers() -> None:
    served = ServedRealm(name="example.com", config=realm("EXAMPLE.COM"))
    with pytest.raises(NoKdcKnownError) as caught:
        RouteMaker().make(served, KEY, _found(refused=MAX_REASONS + 2), log_refused=True)
    assert str(caught.value).count("port 22 is refused") == MAX_REASONS
    assert str(caught.value).endswith("; and 2 more")


@pytest.mark.parametrize(("log_refused", "lines"), [(True, 3), (False, 0)])
def test_each_refused_server_is_logged_once(
    log_refused: bool, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    served = ServedRealm(name="example.com", config=realm("EXAMPLE.COM"))
    maker = RouteMaker()
    with caplog.at_level(logging.WARNING, "kkdcpd"):
        for refused in (2, 2, 3):
            maker.make(served, KEY, _found(CANDIDATE, refused=refused), log_refused=log_refused)
    assert len(caplog.records) == lines
    maker.forget("example.com", KEY)
    with caplog.at_level(logging.WARNING, "kkdcpd"):
        maker.make(served, KEY, _found(CANDIDATE, refused=1), log_refused=log_refused)
    assert len(caplog.records) == lines + log_refused
