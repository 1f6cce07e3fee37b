"""The exchange, played: what is due, what came of it, and what is due then, by a clock that is a number."""

import pytest

from kkdcpd.errors import ExchangeError, NoKdcReachedError, NoKdcReplyError
from kkdcpd.protocol.exchange import Exchange, ExchangeTimeouts
from kkdcpd.values import (
    Attempt,
    AttemptResult,
    FailureReason,
    KdcEndpoint,
    KdcReply,
    KdcService,
    MessageKind,
    ProxyRequest,
    ReplyFacts,
    Transport,
)
from tests.support import messages

START = 1000.0
TIMEOUTS = ExchangeTimeouts(connect=2.0, reach=5.0, reply=20.0)
TOO_BIG = messages.krb_error(52)
PAYLOADS = {
    MessageKind.AS_REQ: messages.as_req(),
    MessageKind.TGS_REQ: messages.tgs_req(),
    MessageKind.KPASSWD_REQ: messages.kpasswd_req(),
}

UNSENT = (
    FailureReason.REFUSED,
    FailureReason.UNREACHABLE,
    FailureReason.CONNECT_TIMEOUT,
    FailureReason.CLOSED,
    FailureReason.RESET,
)
"""What may happen to an attempt before it has written an octet."""


def _endpoint(name: str, transport: Transport) -> KdcEndpoint:
    return KdcEndpoint(name=name, address=f"192.0.2.{ord(name[-1])}", port=88, transport=transport)


def tcp(name: str) -> KdcEndpoint:
    return _endpoint(name, Transport.TCP)


def udp(name: str) -> KdcEndpoint:
    return _endpoint(name, Transport.UDP)


class Play:
    """An exchange between its clock and its results. Each step says what it expects to be due."""

    def __init__(self, *endpoints: KdcEndpoint, kind: MessageKind = MessageKind.AS_REQ) -> None:
        request = ProxyRequest(
            kind=kind,
            service=KdcService.KDC,
            target_domain="EXAMPLE.COM",
            realm="EXAMPLE.COM",
            kerb_message=messages.prefixed(PAYLOADS[kind]),
        )
        self.exchange = Exchange(request, endpoints, timeouts=TIMEOUTS, started_at=START)
        self.now = START

    def due(self, endpoint: KdcEndpoint) -> Attempt:
        attempt = self.exchange.next_attempt(self.now)
        assert attempt is not None
        assert attempt.endpoint == endpoint
        return attempt

    def nobody_is_due(self) -> ExchangeError:
        assert self.exchange.next_attempt(self.now) is None
        return self.exchange.failure()

    def fails(
        self,
        endpoint: KdcEndpoint,
        reason: FailureReason,
        *,
        after: float = 0.0,
        is_written: bool = False,
    ) -> None:
        attempt = self.due(endpoint)
        self.now += after
        assert (
            self.exchange.settle(AttemptResult(attempt=attempt, failure=reason, is_written=is_written))
            is None
        )

    def replies(self, endpoint: KdcEndpoint, payload: bytes, *, after: float = 0.0) -> KdcReply | None:
        attempt = self.due(endpoint)
        self.now += after
        return self.exchange.settle(AttemptResult(attempt=attempt, payload=payload, is_written=True))


def test_the_reply_of_the_first_kdc_ends_the_exchange() -> None:
    play = Play(tcp("a"), tcp("b"))

    reply = play.replies(tcp("a"), messages.as_rep(realm="EXAMPLE.ORG"))

    assert reply is not None
    assert reply.payload == messages.as_rep(realm="EXAMPLE.ORG")
    assert (reply.facts.kind, reply.facts.crealm) == (MessageKind.AS_REP, "EXAMPLE.ORG")
    assert reply.endpoint == tcp("a")
    assert reply.attempts == 1
    play.nobody_is_due()


def test_a_krb_error_is_a_reply_like_any_other() -> None:
    play = Play(tcp("a"), tcp("b"))

    reply = play.replies(tcp("a"), messages.krb_error(25))

    assert reply is not None
    assert reply.facts.error_code == 25
    play.nobody_is_due()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (MessageKind.TGS_REQ, messages.tgs_rep()),
        (MessageKind.KPASSWD_REQ, messages.kpasswd_rep()),
        (MessageKind.KPASSWD_REQ, messages.kpasswd_error(60)),
        (MessageKind.KPASSWD_REQ, messages.krb_error(60)),
    ],
    ids=["TGS_REP", "KPASSWD_REP", "framed KRB_ERROR", "bare KRB_ERROR"],
)
def test_every_kind_of_request_has_its_replies(kind: MessageKind, payload: bytes) -> None:
    reply = Play(tcp("a"), kind=kind).replies(tcp("a"), payload)

    assert reply is not None
    assert reply.payload == payload


def test_endpoints_are_tried_in_the_order_given() -> None:
    play = Play(tcp("b"), udp("c"), tcp("a"))

    play.fails(tcp("b"), FailureReason.UNREACHABLE)
    play.fails(udp("c"), FailureReason.UNREACHABLE)
    reply = play.replies(tcp("a"), messages.as_rep())

    assert reply is not None
    assert (reply.endpoint, reply.attempts) == (tcp("a"), 3)


@pytest.mark.parametrize("reason", UNSENT)
def test_the_next_kdc_gets_the_message_when_the_first_did_not(reason: FailureReason) -> None:
    play = Play(tcp("a"), tcp("b"))

    play.fails(tcp("a"), reason)

    assert play.replies(tcp("b"), messages.as_rep()) is not None


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize(
    "reason",
    [
        FailureReason.REPLY_TIMEOUT,
        FailureReason.CLOSED,
        FailureReason.RESET,
        FailureReason.REPLY_TOO_BIG,
        FailureReason.BAD_REPLY,
        FailureReason.REFUSED,
    ],
)
def test_nobody_else_gets_a_message_whose_first_octet_was_written(
    reason: FailureReason, kind: MessageKind
) -> None:
    play = Play(tcp("a"), tcp("b"), udp("a"), udp("b"), kind=kind)

    play.fails(tcp("a"), reason, is_written=True)

    assert isinstance(play.nobody_is_due(), NoKdcReplyError)


def test_nobody_reached_is_another_failure_than_no_reply() -> None:
    play = Play(tcp("a"), tcp("b"))

    play.fails(tcp("a"), FailureReason.REFUSED)
    play.fails(tcp("b"), FailureReason.CONNECT_TIMEOUT)

    failure = play.nobody_is_due()
    assert isinstance(failure, NoKdcReachedError)
    assert str(failure) == "tcp://a:88 refused; tcp://b:88 connect_timeout"
    assert [result.failure for result in failure.attempts] == [
        FailureReason.REFUSED,
        FailureReason.CONNECT_TIMEOUT,
    ]


def test_no_reply_tells_all_that_was_tried() -> None:
    play = Play(tcp("a"), tcp("b"), tcp("c"))

    play.fails(tcp("a"), FailureReason.REFUSED)
    play.fails(tcp("b"), FailureReason.REPLY_TIMEOUT, is_written=True)

    failure = play.nobody_is_due()
    assert isinstance(failure, NoKdcReplyError)
    assert str(failure) == "tcp://a:88 refused; tcp://b:88 reply_timeout"


def test_an_exchange_without_endpoints_reaches_nobody() -> None:
    failure = Play().nobody_is_due()

    assert isinstance(failure, NoKdcReachedError)
    assert failure.attempts == ()


def test_an_attempt_has_so_long_to_connect_and_to_reply() -> None:
    attempt = Play(tcp("a")).due(tcp("a"))

    assert attempt.connect_deadline == START + TIMEOUTS.connect
    assert attempt.reply_deadline == START + TIMEOUTS.reply


def test_a_later_attempt_has_no_longer_to_connect_than_some_kdc_must_be_reached() -> None:
    play = Play(tcp("a"), tcp("b"), tcp("c"))

    play.fails(tcp("a"), FailureReason.CONNECT_TIMEOUT, after=2.0)
    play.fails(tcp("b"), FailureReason.CONNECT_TIMEOUT, after=2.0)
    attempt = play.due(tcp("c"))

    assert attempt.connect_deadline == START + TIMEOUTS.reach
    assert attempt.reply_deadline == START + TIMEOUTS.reply


def test_nobody_is_tried_once_some_kdc_should_have_been_reached() -> None:
    play = Play(tcp("a"), tcp("b"))

    play.fails(tcp("a"), FailureReason.CONNECT_TIMEOUT, after=TIMEOUTS.reach)

    assert isinstance(play.nobody_is_due(), NoKdcReachedError)


def test_a_kdc_is_tried_up_to_the_last_moment() -> None:
    play = Play(tcp("a"), tcp("b"))

    play.fails(tcp("a"), FailureReason.CONNECT_TIMEOUT, after=TIMEOUTS.reach - 0.001)

    assert play.due(tcp("b")).connect_deadline == START + TIMEOUTS.reach


def test_nobody_is_tried_if_the_first_question_comes_too_late() -> None:
    play = Play(tcp("a"))
    play.now += TIMEOUTS.reach

    assert isinstance(play.nobody_is_due(), NoKdcReachedError)


def test_a_reply_may_come_after_the_time_to_reach_a_kdc() -> None:
    reply = Play(tcp("a")).replies(tcp("a"), messages.as_rep(), after=TIMEOUTS.reach + 10)

    assert reply is not None


@pytest.mark.parametrize("kind", [MessageKind.AS_REQ, MessageKind.TGS_REQ, MessageKind.KPASSWD_REQ])
def test_what_is_too_big_for_udp_is_asked_again_from_the_same_kdc_by_tcp(kind: MessageKind) -> None:
    replies = {
        MessageKind.AS_REQ: messages.as_rep(),
        MessageKind.TGS_REQ: messages.tgs_rep(),
        MessageKind.KPASSWD_REQ: messages.kpasswd_rep(),
    }
    play = Play(udp("a"), udp("b"), tcp("b"), tcp("a"), kind=kind)

    assert play.replies(udp("a"), TOO_BIG) is None
    reply = play.replies(tcp("a"), replies[kind])

    assert reply is not None
    assert (reply.endpoint, reply.attempts) == (tcp("a"), 2)
    play.nobody_is_due()


def test_too_big_in_the_kpasswd_frame_is_understood_as_well() -> None:
    play = Play(udp("a"), kind=MessageKind.KPASSWD_REQ)

    assert play.replies(udp("a"), messages.kpasswd_error(52)) is None
    assert play.replies(tcp("a"), messages.kpasswd_rep()) is not None


def test_too_big_over_tcp_goes_to_the_client() -> None:
    play = Play(tcp("a"), tcp("b"))

    reply = play.replies(tcp("a"), TOO_BIG)

    assert reply is not None
    assert reply.facts == ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=52, sname=reply.facts.sname)
    play.nobody_is_due()


def test_too_big_over_udp_and_then_over_tcp_goes_to_the_client() -> None:
    play = Play(udp("a"), udp("b"))

    assert play.replies(udp("a"), TOO_BIG) is None
    reply = play.replies(tcp("a"), TOO_BIG)

    assert reply is not None
    assert reply.endpoint == tcp("a")


@pytest.mark.parametrize("reason", UNSENT)
def test_too_big_over_udp_is_no_reply_if_the_kdc_has_no_tcp(reason: FailureReason) -> None:
    play = Play(udp("a"), tcp("b"), udp("b"))

    play.replies(udp("a"), TOO_BIG)
    play.fails(tcp("a"), reason)

    failure = play.nobody_is_due()
    assert isinstance(failure, NoKdcReplyError)
    assert str(failure) == f"udp://a:88 replied; tcp://a:88 {reason.value}"


def test_after_too_big_the_time_to_reply_counts_and_no_more_the_time_to_reach() -> None:
    play = Play(udp("a"))

    play.replies(udp("a"), TOO_BIG, after=TIMEOUTS.reach + 1)
    attempt = play.due(tcp("a"))

    assert attempt.connect_deadline == START + TIMEOUTS.reach + 1 + TIMEOUTS.connect
    assert attempt.reply_deadline == START + TIMEOUTS.reply


def test_after_too_big_a_connect_ends_when_the_reply_must_be_there() -> None:
    play = Play(udp("a"))

    play.replies(udp("a"), TOO_BIG, after=TIMEOUTS.reply - 1)

    assert play.due(tcp("a")).connect_deadline == START + TIMEOUTS.reply


def test_after_too_big_nobody_is_tried_once_the_reply_should_be_there() -> None:
    play = Play(udp("a"))

    play.replies(udp("a"), TOO_BIG, after=TIMEOUTS.reply)

    assert isinstance(play.nobody_is_due(), NoKdcReplyError)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"garbage",
        messages.tgs_rep(),
        messages.kpasswd_rep(),
        messages.as_req(),
        messages.as_rep() + b"\x00",
    ],
    ids=["empty", "garbage", "TGS_REP", "KPASSWD_REP", "AS_REQ", "an octet too many"],
)
@pytest.mark.parametrize("endpoint", [tcp("a"), udp("a")], ids=["tcp", "udp"])
def test_a_bad_reply_goes_to_nobody_and_ends_the_exchange(endpoint: KdcEndpoint, payload: bytes) -> None:
    play = Play(endpoint, tcp("b"), udp("b"))

    assert play.replies(endpoint, payload) is None

    failure = play.nobody_is_due()
    assert isinstance(failure, NoKdcReplyError)
    assert failure.attempts[-1].failure is FailureReason.BAD_REPLY
    assert failure.attempts[-1].payload is None


def test_the_udp_of_a_host_that_refused_tcp_comes_before_that_of_others() -> None:
    play = Play(tcp("a"), tcp("b"), udp("a"), udp("c"), udp("b"))

    play.fails(tcp("a"), FailureReason.CONNECT_TIMEOUT)
    play.fails(tcp("b"), FailureReason.REFUSED)

    play.fails(udp("b"), FailureReason.UNREACHABLE)
    play.fails(udp("a"), FailureReason.UNREACHABLE)
    play.fails(udp("c"), FailureReason.UNREACHABLE)
    play.nobody_is_due()


def test_the_tcp_of_other_hosts_still_comes_before_any_udp() -> None:
    play = Play(tcp("a"), tcp("b"), udp("b"), udp("a"))

    play.fails(tcp("a"), FailureReason.REFUSED)
    play.fails(tcp("b"), FailureReason.UNREACHABLE)

    assert play.replies(udp("a"), messages.as_rep()) is not None


@pytest.mark.parametrize("reason", [reason for reason in UNSENT if reason is not FailureReason.REFUSED])
def test_only_a_refusal_shows_that_a_host_is_alive(reason: FailureReason) -> None:
    play = Play(tcp("a"), tcp("b"), udp("a"), udp("b"))

    play.fails(tcp("a"), FailureReason.UNREACHABLE)
    play.fails(tcp("b"), reason)

    play.due(udp("a"))


def test_a_host_that_refused_tcp_and_has_no_udp_changes_nothing() -> None:
    play = Play(tcp("a"), tcp("b"), udp("c"))

    play.fails(tcp("a"), FailureReason.REFUSED)
    play.fails(tcp("b"), FailureReason.REFUSED)

    play.due(udp("c"))


def test_each_of_two_kdcs_that_refused_tcp_is_tried_by_udp() -> None:
    play = Play(tcp("a"), tcp("b"), udp("c"), udp("a"), udp("b"))

    play.fails(tcp("a"), FailureReason.REFUSED)
    play.fails(tcp("b"), FailureReason.REFUSED)

    alive = {play.due(udp("b")).endpoint, play.due(udp("a")).endpoint}
    assert alive == {udp("a"), udp("b")}
    play.due(udp("c"))
