"""Exchanges without sockets: a script of events, commands and times."""

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.errors import NoKdcReachedError, NoKdcReplyError
from kkdcpd.protocol.exchange import Abandon, Connect, Exchange, ExchangeLimits, Report, Send
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify
from kkdcpd.protocol.resending import NO_FACTS, is_repeatable
from kkdcpd.values import Attempt, Candidate, FailureFacts, FailureReason, ProxyRequest
from tests.support import messages

LIMITS = ExchangeLimits(
    connect_timeout=1.5, reach_timeout=5.0, reply_timeout=20.0, stagger=0.25, hedge_delay=0.4
)
PREAUTH_REQUIRED = messages.krb_error(25)
TOO_BIG = messages.krb_error(52)
UNAVAILABLE = messages.krb_error(29)


def request_of(payload: bytes) -> ProxyRequest:
    return classify(decode_proxy_message(messages.envelope(payload)))


FIRST_AS_REQ = request_of(messages.as_req(padata=[(149, b""), (150, b"")]))
PROOF = request_of(messages.as_req(padata=[(2, b"\x30\x00"), (149, b"")]))
TGS_REQ = request_of(messages.tgs_req())
KPASSWD = request_of(messages.kpasswd_req())


class Budget:
    def __init__(self, hedges: int) -> None:
        self.hedges = hedges

    def take(self) -> bool:
        self.hedges -= 1
        return self.hedges >= 0


def tcp(name: str) -> Candidate:
    return _candidate(name, Transport.TCP)


def udp(name: str, *, is_fallback: bool = False) -> Candidate:
    return _candidate(name, Transport.UDP, is_fallback=is_fallback)


def _candidate(name: str, transport: Transport, *, is_fallback: bool = False) -> Candidate:
    endpoint = KdcEndpoint(name=name, address=f"192.0.2.{ord(name)}", port=88, transport=transport)
    return Candidate(endpoint=endpoint, source="test", is_fallback=is_fallback)


class Probes:
    """The dead endpoints, and the times for which exchanges checked them."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.asked: list[tuple[str, float]] = []
        self.overflowed: set[str] = set()

    def note_overflow(self, endpoint: KdcEndpoint) -> None:
        self.overflowed.add(endpoint.name)

    def has_overflowed(self, endpoint: KdcEndpoint) -> bool:
        return endpoint.name in self.overflowed

    def is_dead(self, endpoint: KdcEndpoint, since: float) -> bool:
        self.asked.append((endpoint.name, since))
        return endpoint.name in self.dead


class Play:
    """An exchange with its own clock. Commands are words with the endpoint's name."""

    def __init__(
        self,
        request: ProxyRequest,
        *candidates: Candidate,
        hedges: int = 10,
        limits: ExchangeLimits = LIMITS,
    ) -> None:
        self.now = 100.0
        self.attempts: dict[str, Attempt] = {}
        self.running: list[str] = []
        self.reports: list[tuple[str, FailureReason | None]] = []
        self.probes = Probes()
        self.retry_after = 0.0
        self.exchange = Exchange(
            request,
            candidates,
            limits=limits,
            hedges=Budget(hedges),
            health=self.probes,
            facts=self.probes,
            now=self.now,
        )

    def step(self) -> list[str]:
        words = []
        for command in self.exchange.due(self.now):
            match command:
                case Report(endpoint, failure, retry_after):
                    self.reports.append((endpoint.name, failure))
                    self.retry_after = retry_after
                case Connect(attempt):
                    self.attempts[self._name(attempt)] = attempt
                    self.running.append(self._name(attempt))
                    words.append(f"connect {self._name(attempt)}")
                case Send(attempt):
                    words.append(f"send {self._name(attempt)}")
                case Abandon(attempt):
                    self.running.remove(self._name(attempt))
                    words.append(f"abandon {self._name(attempt)}")
        return words

    def after(self, seconds: float) -> list[str]:
        """Let time pass, with wake-ups only when the exchange wants them."""
        end = self.now + seconds
        words = []
        while self.exchange.wakes_at <= end and not self.is_over:
            self.now = self.exchange.wakes_at
            words += self.step()
        self.now = end
        return words

    @property
    def is_over(self) -> bool:
        return self.exchange.reply is not None or self.exchange.error is not None

    def connected(self, name: str) -> list[str]:
        self.exchange.connected(self.attempts[name], self.now)
        return self.step()

    def failed(self, name: str, reason: FailureReason, facts: FailureFacts = NO_FACTS) -> list[str]:
        self.running.remove(name)
        self.exchange.failed(self.attempts[name], reason, self.now, facts)
        return self.step()

    def received(self, name: str, payload: bytes) -> list[str]:
        self.running.remove(name)
        self.exchange.received(self.attempts[name], payload, self.now)
        return self.step()

    @staticmethod
    def _name(attempt: Attempt) -> str:
        endpoint = attempt.endpoint
        return endpoint.name if endpoint.transport is not Transport.UDP else f"{endpoint.name}/udp"


# --- connect to many, send to one


@pytest.mark.parametrize("request_", [FIRST_AS_REQ, PROOF, TGS_REQ, KPASSWD])
def test_only_the_first_healthy_kdc_gets_the_message(request_: ProxyRequest) -> None:
    play = Play(request_, tcp("a"), tcp("b"), tcp("c"))
    assert play.step() == ["connect a"]
    assert play.connected("a") == ["send a"]
    reply = messages.kpasswd_rep() if request_ is KPASSWD else PREAUTH_REQUIRED
    assert play.received("a", reply) == []
    assert play.exchange.reply is not None
    assert (play.exchange.reply.attempts, play.exchange.reply.failures) == (1, ())
    assert play.reports == [("a", None)]


def test_next_connect_starts_after_the_stagger_and_the_first_connection_gets_the_message() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"), tcp("c"))
    assert play.step() == ["connect a"]
    assert play.after(0.24) == []
    assert play.after(0.01) == ["connect b"]
    assert play.reports == [("a", FailureReason.SLOW_TO_CONNECT)]
    assert play.connected("b") == ["send b", "abandon a"]
    assert play.after(19) == []


def test_nothing_is_due_before_wakes_at_or_after_the_end() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"))
    play.step()
    assert play.exchange.wakes_at == play.now + LIMITS.stagger
    assert play.step() == []
    play.connected("a")
    assert play.exchange.wakes_at == play.now + LIMITS.hedge_delay
    play.received("a", PREAUTH_REQUIRED)
    assert play.exchange.wakes_at == math.inf
    play.now += 1000
    assert play.step() == []
    assert play.exchange.error is None


def test_next_connect_starts_at_once_when_one_is_refused() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"))
    play.step()
    assert play.failed("a", FailureReason.REFUSED) == ["connect b"]
    assert play.reports == [("a", FailureReason.REFUSED)]


def test_fast_failure_does_not_make_the_other_connect_look_slow() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"), tcp("c"))
    play.step()
    play.after(0.25)
    play.reports.clear()
    assert play.failed("a", FailureReason.REFUSED) == ["connect c"]
    assert play.reports == [("a", FailureReason.REFUSED)]


def test_late_connect_is_closed_unused() -> None:
    play = Play(PROOF, udp("a"), tcp("b"))
    play.step()
    play.connected("a/udp")
    assert play.after(10) == []


def test_connect_has_its_own_deadline() -> None:
    play = Play(PROOF, tcp("a"))
    play.step()
    assert play.after(1.5) == ["abandon a"]
    assert isinstance(play.exchange.error, NoKdcReachedError)
    assert str(play.exchange.error) == "tcp://a:88 connect_timeout"


def test_no_candidate_is_left_untried_within_the_time_to_reach_one() -> None:
    play = Play(PROOF, *map(tcp, "abcdefgh"))
    play.step()
    words = play.after(4.9)
    assert [word for word in words if word.startswith("connect")] == [f"connect {name}" for name in "bcdefgh"]
    assert isinstance(play.exchange.error, NoKdcReachedError)


def test_kdcs_that_drop_packets_cost_the_time_to_reach_one_at_most() -> None:
    play = Play(PROOF, *map(tcp, "abcdefghijklmnopqrstuvwxyz"))
    play.step()
    play.after(4.99)
    assert not play.is_over
    play.after(0.01)
    assert isinstance(play.exchange.error, NoKdcReachedError)


def test_busy_kdc_is_skipped_and_not_reported() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"))
    play.step()
    assert play.failed("a", FailureReason.BUSY) == ["connect b"]
    assert play.reports == []


def test_without_candidates_no_kdc_is_reached() -> None:
    play = Play(PROOF)
    assert play.step() == []
    assert isinstance(play.exchange.error, NoKdcReachedError)


# --- once a KDC has the message

FAULTS = [
    FailureReason.CLOSED,
    FailureReason.RESET,
    FailureReason.REPLY_TOO_BIG,
    FailureReason.UNREACHABLE,
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("request_", [PROOF, KPASSWD])
def test_message_sent_once_goes_to_no_other_kdc_after_any_event(
    request_: ProxyRequest, fault: FailureReason
) -> None:
    play = Play(request_, tcp("a"), tcp("b"), udp("a", is_fallback=True))
    play.step()
    play.connected("a")
    assert play.failed("a", fault) == []
    assert isinstance(play.exchange.error, NoKdcReplyError)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("request_", [FIRST_AS_REQ, TGS_REQ])
def test_repeatable_message_goes_to_the_next_kdc(request_: ProxyRequest, fault: FailureReason) -> None:
    play = Play(request_, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    assert play.failed("a", fault) == ["connect b"]
    assert play.connected("b") == ["send b"]
    play.received("b", PREAUTH_REQUIRED)
    assert play.exchange.reply is not None
    assert [str(failure) for failure in play.exchange.reply.failures] == [f"tcp://a:88 {fault.value}"]


def test_bytes_that_are_no_reply_to_the_request_are_the_kdcs_failure() -> None:
    for payload in (b"", b"garbage", messages.as_req(), messages.tgs_rep(), PREAUTH_REQUIRED[:-1]):
        play = Play(FIRST_AS_REQ, tcp("a"), tcp("b"))
        play.step()
        play.connected("a")
        assert play.received("a", payload) == ["connect b"]
        assert play.reports == [("a", FailureReason.BAD_REPLY)]


def test_silence_is_reported_and_a_message_sent_once_still_waits() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    assert play.after(0.39) == []
    assert play.reports == []
    assert play.after(0.01) == []
    assert play.reports == [("a", FailureReason.SILENT)]
    assert play.after(19.59) == []
    play.received("a", messages.as_rep())
    assert play.exchange.reply is not None
    assert play.reports[-1] == ("a", None)


def test_reply_has_its_own_deadline_however_late_the_kdc_was_reached() -> None:
    play = Play(PROOF, tcp("a"))
    play.step()
    play.connected("a")
    assert play.after(20) == ["abandon a"]
    assert isinstance(play.exchange.error, NoKdcReplyError)
    assert str(play.exchange.error) == "tcp://a:88 reply_timeout"


def test_no_kdc_has_a_datagram_to_a_closed_port() -> None:
    play = Play(PROOF, udp("a"), udp("b"))
    play.step()
    assert play.connected("a/udp") == ["send a/udp"]
    assert play.failed("a/udp", FailureReason.REFUSED) == ["connect b/udp"]


# --- hedging


def test_repeatable_message_is_hedged_after_a_silence_and_the_first_reply_counts() -> None:
    play = Play(TGS_REQ, tcp("a"), tcp("b"), tcp("c"))
    play.step()
    play.connected("a")
    assert play.after(0.4) == ["connect b"]
    assert play.connected("b") == ["send b"]
    assert play.received("b", messages.tgs_rep()) == ["abandon a"]


def test_slow_kdc_may_still_win_against_the_hedge() -> None:
    play = Play(TGS_REQ, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    play.after(0.4)
    play.connected("b")
    assert play.received("a", messages.tgs_rep()) == ["abandon b"]


def test_hedge_needs_a_budget() -> None:
    play = Play(TGS_REQ, tcp("a"), tcp("b"), hedges=0)
    play.step()
    play.connected("a")
    assert play.after(19) == []
    assert set(play.reports) == {("a", FailureReason.SILENT)}


def test_hedges_continue_while_all_kdcs_are_silent() -> None:
    play = Play(TGS_REQ, tcp("a"), tcp("b"), tcp("c"))
    play.step()
    play.connected("a")
    play.after(0.4)
    play.connected("b")
    assert play.after(0.4) == ["connect c"]


def test_hedge_goes_to_another_kdc_before_it_goes_to_the_other_transport_of_the_same() -> None:
    play = Play(TGS_REQ, tcp("a"), tcp("b"), udp("a", is_fallback=True), udp("b", is_fallback=True))
    play.step()
    play.after(0.3)
    play.connected("a")
    assert play.after(0.4) == ["connect b"]
    play.connected("b")
    assert play.after(0.4) == ["connect a/udp"]


# --- datagrams that are lost


@pytest.mark.parametrize("request_", [FIRST_AS_REQ, TGS_REQ])
def test_repeatable_datagram_is_sent_again_with_growing_pauses(request_: ProxyRequest) -> None:
    play = Play(request_, udp("a"))
    play.step()
    started = play.now
    play.connected("a/udp")
    sent_at = []
    while not play.is_over:
        play.now = play.exchange.wakes_at
        sent_at += [play.now - started for word in play.step() if word == "send a/udp"]
    assert sent_at == [1.0, 3.0, 7.0, 15.0]


@pytest.mark.parametrize("request_", [PROOF, KPASSWD])
def test_datagram_that_may_be_sent_once_is_never_sent_again(request_: ProxyRequest) -> None:
    play = Play(request_, udp("a"), udp("b"))
    play.step()
    play.connected("a/udp")
    assert play.after(19.9) == []


def test_message_over_tcp_is_never_sent_again() -> None:
    play = Play(TGS_REQ, tcp("a"))
    play.step()
    play.connected("a")
    assert play.after(19.9) == []


def test_datagram_that_was_answered_too_big_is_never_sent_again() -> None:
    play = Play(TGS_REQ, udp("a"))
    play.step()
    play.connected("a/udp")
    assert play.received("a/udp", TOO_BIG) == ["connect a"]
    play.connected("a")
    assert play.after(19.9) == []
    assert play.probes.overflowed == {"a"}


def test_kdc_with_replies_too_big_for_a_datagram_gets_the_second_copy_by_tcp() -> None:
    play = Play(TGS_REQ, udp("a"))
    play.probes.overflowed.add("a")
    play.step()
    play.connected("a/udp")
    assert play.after(1.0) == ["connect a"]
    assert play.connected("a") == ["send a"]
    assert play.received("a/udp", messages.tgs_rep()) == ["abandon a"]


def test_copies_to_one_kdc_do_not_count_as_attempts() -> None:
    play = Play(TGS_REQ, udp("a"))
    play.step()
    play.connected("a/udp")
    play.after(3.0)
    play.received("a/udp", messages.tgs_rep())
    assert play.exchange.reply is not None
    assert play.exchange.reply.attempts == 1


# --- a KDC that has the message and is dead


def test_dead_kdc_is_given_up_once_the_time_to_reach_one_is_over() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    play.probes.dead.add("a")
    assert play.after(4.9) == []
    assert play.after(0.1) == ["abandon a"]
    assert isinstance(play.exchange.error, NoKdcReplyError)
    assert str(play.exchange.error) == "tcp://a:88 silent"
    assert play.probes.asked == [("a", 100.0)]


def test_dead_kdc_is_given_up_no_later_if_connects_failed_before_it_got_the_message() -> None:
    play = Play(PROOF, tcp("a"), udp("a", is_fallback=True))
    play.step()
    play.probes.dead.add("a")
    assert play.after(1.5) == ["abandon a", "connect a/udp"]
    play.connected("a/udp")
    assert play.after(3.4) == []
    assert play.after(0.1) == ["abandon a/udp"]
    assert isinstance(play.exchange.error, NoKdcReplyError)


def test_exchange_waits_for_a_kdc_that_answers_probes_and_checks_it_again() -> None:
    play = Play(PROOF, tcp("a"))
    play.step()
    play.connected("a")
    assert play.after(12) == []
    # Each report asks for a new verdict.
    assert len(play.reports) == len(play.probes.asked) + 1 == 9
    play.probes.dead.add("a")
    assert play.after(1) == ["abandon a"]


def test_repeatable_message_goes_on_from_a_dead_kdc_to_the_next() -> None:
    play = Play(TGS_REQ, tcp("a"), tcp("b"), hedges=0)
    play.step()
    play.connected("a")
    play.probes.dead.add("a")
    assert play.after(5) == ["abandon a", "connect b"]


# --- fair shares, and errors of this host


def test_displaced_repeatable_message_goes_to_the_next_kdc_and_no_failure_is_reported() -> None:
    for request_, words in ((TGS_REQ, ["connect b"]), (PROOF, [])):
        play = Play(request_, tcp("a"), tcp("b"))
        play.step()
        play.connected("a")
        assert play.failed("a", FailureReason.DISPLACED) == words
        assert play.reports == []


@pytest.mark.parametrize("reason", [FailureReason.LOCAL_ERROR, FailureReason.PORT_LIMIT])
@pytest.mark.parametrize("request_", [FIRST_AS_REQ, PROOF, TGS_REQ, KPASSWD])
def test_datagram_that_never_left_this_host_goes_to_the_same_kdc_by_tcp(
    request_: ProxyRequest, reason: FailureReason
) -> None:
    play = Play(request_, udp("a"), udp("b"))
    play.step()
    assert play.failed("a/udp", reason) == ["connect a"]
    assert play.reports == []
    assert play.failed("a", FailureReason.LOCAL_ERROR) == ["connect b/udp"]
    play.connected("b/udp")
    assert play.failed("b/udp", reason) == ["connect b"]


def test_error_of_this_host_in_the_middle_of_a_stream_leaves_the_message_taken() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    assert play.failed("a", FailureReason.LOCAL_ERROR) == []
    assert isinstance(play.exchange.error, NoKdcReplyError)


def test_tcp_that_has_failed_is_not_tried_again_for_want_of_a_udp_port() -> None:
    play = Play(PROOF, tcp("a"), udp("a", is_fallback=True))
    play.step()
    play.failed("a", FailureReason.UNREACHABLE)
    assert play.failed("a/udp", FailureReason.LOCAL_ERROR) == []
    assert isinstance(play.exchange.error, NoKdcReachedError)


@pytest.mark.parametrize("fault", [FailureReason.CLOSED, FailureReason.RESET, FailureReason.REPLY_TOO_BIG])
def test_kdc_that_ends_the_connection_does_not_get_the_message_by_udp(fault: FailureReason) -> None:
    play = Play(TGS_REQ, tcp("a"), udp("a", is_fallback=True), udp("b", is_fallback=True))
    play.step()
    play.connected("a")
    assert play.failed("a", fault) == ["connect b/udp"]


def test_event_of_an_attempt_that_is_over_has_no_effect() -> None:
    """Two KDCs answer at the same moment: the first reply ends the exchange."""
    play = Play(TGS_REQ, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    play.after(0.4)
    play.connected("b")
    play.exchange.received(play.attempts["a"], messages.tgs_rep(), play.now)
    reply = play.exchange.reply
    play.exchange.received(play.attempts["b"], messages.tgs_rep(), play.now)
    play.exchange.failed(play.attempts["b"], FailureReason.CLOSED, play.now)
    play.exchange.connected(play.attempts["b"], play.now)
    assert play.exchange.reply is reply is not None
    assert play.step() == ["abandon b"]


# --- what the protocol itself asks for


@pytest.mark.parametrize("request_", [FIRST_AS_REQ, PROOF])
def test_reply_too_big_for_udp_is_fetched_from_the_same_kdc_by_tcp(request_: ProxyRequest) -> None:
    play = Play(request_, udp("a"), udp("b"), tcp("c"))
    play.step()
    play.connected("a/udp")
    assert play.received("a/udp", TOO_BIG) == ["connect a"]
    assert play.connected("a") == ["send a"]
    play.received("a", messages.as_rep())
    assert play.exchange.reply is not None
    assert play.exchange.reply.endpoint.transport is Transport.TCP


def test_proof_whose_reply_was_too_big_goes_to_no_other_kdc_if_tcp_fails() -> None:
    play = Play(PROOF, udp("a"), udp("b"), udp("c", is_fallback=True))
    play.step()
    play.connected("a/udp")
    play.received("a/udp", TOO_BIG)
    assert play.failed("a", FailureReason.REFUSED) == []
    assert isinstance(play.exchange.error, NoKdcReplyError)


def test_too_big_by_tcp_is_a_reply_like_any_other() -> None:
    play = Play(FIRST_AS_REQ, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    play.received("a", TOO_BIG)
    assert play.exchange.reply is not None


@pytest.mark.parametrize("request_", [FIRST_AS_REQ, PROOF, TGS_REQ])
def test_message_goes_on_from_an_unavailable_kdc(request_: ProxyRequest) -> None:
    play = Play(request_, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    assert play.received("a", UNAVAILABLE) == ["connect b"]
    assert play.connected("b") == ["send b"]
    assert play.reports == [("a", FailureReason.SERVICE_UNAVAILABLE)]


def test_unavailable_service_is_relayed_when_all_kdcs_say_so() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    play.received("a", UNAVAILABLE)
    play.connected("b")
    play.received("b", UNAVAILABLE)
    assert play.exchange.reply is not None
    assert play.exchange.reply.facts.error_code == 29


def test_unavailable_service_is_relayed_when_no_other_kdc_can_be_reached() -> None:
    play = Play(PROOF, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    play.received("a", UNAVAILABLE)
    play.failed("b", FailureReason.REFUSED)
    assert play.exchange.reply is not None


def test_unavailable_password_service_is_relayed_at_once() -> None:
    play = Play(KPASSWD, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    assert play.received("a", messages.kpasswd_error(29)) == []
    assert play.exchange.reply is not None
    assert play.reports == [("a", FailureReason.SERVICE_UNAVAILABLE)]


@pytest.mark.parametrize("code", [6, 18, 23, 24, 25, 31, 34, 37, 60, 68, 91])
def test_every_other_error_is_relayed_as_it_is(code: int) -> None:
    payload = messages.krb_error(code)
    play = Play(FIRST_AS_REQ, tcp("a"), tcp("b"))
    play.step()
    play.connected("a")
    assert play.received("a", payload) == []
    assert play.exchange.reply is not None
    assert play.exchange.reply.payload == payload


# --- kpasswd, and hosts named without a transport


def test_password_servers_are_tried_one_after_the_other() -> None:
    play = Play(KPASSWD, tcp("a"), tcp("b"))
    assert play.step() == ["connect a"]
    assert play.after(1.49) == []
    assert play.after(0.01) == ["abandon a", "connect b"]
    # The silence is reported long before.
    assert play.reports[0] == ("a", FailureReason.SLOW_TO_CONNECT)


def test_udp_comes_after_all_tcp_and_first_where_tcp_was_refused() -> None:
    play = Play(KPASSWD, tcp("a"), tcp("b"), udp("a", is_fallback=True), udp("b", is_fallback=True))
    play.step()
    assert play.failed("a", FailureReason.UNREACHABLE) == ["connect b"]
    assert play.failed("b", FailureReason.REFUSED) == ["connect b/udp"]
    assert play.connected("b/udp") == ["send b/udp"]


@pytest.mark.parametrize("request_", [FIRST_AS_REQ, PROOF, TGS_REQ, KPASSWD])
def test_udp_of_a_bare_host_waits_for_no_tcp_that_follows_it(request_: ProxyRequest) -> None:
    """The same holds while the TCP is down."""
    play = Play(request_, udp("a", is_fallback=True), tcp("a"))
    assert play.step() == ["connect a/udp"]
    assert play.connected("a/udp") == ["send a/udp"]


def test_udp_of_a_bare_host_waits_for_connects_that_may_still_succeed() -> None:
    play = Play(PROOF, tcp("a"), udp("a", is_fallback=True))
    play.step()
    assert play.after(1.49) == []
    assert play.after(0.01) == ["abandon a", "connect a/udp"]


# --- anything may happen


def test_no_attempt_starts_after_the_deadline() -> None:
    limits = replace(LIMITS, connect_timeout=LIMITS.reach_timeout)
    play = Play(FIRST_AS_REQ, tcp("a"), udp("a", is_fallback=True), limits=limits)
    assert play.step() == ["connect a"]
    assert play.after(LIMITS.reach_timeout) == ["abandon a"]
    assert isinstance(play.exchange.error, NoKdcReachedError)


def test_no_attempt_starts_after_the_end() -> None:
    play = Play(FIRST_AS_REQ, udp("a"), udp("b"), udp("c"))
    assert play.step() == ["connect a/udp"]
    assert play.connected("a/udp") == ["send a/udp"]
    play.received("a/udp", PREAUTH_REQUIRED)
    assert play.is_over
    play.exchange.failed(play.attempts["a/udp"], FailureReason.BUSY, play.now)
    assert (play.step(), play.exchange.wakes_at) == ([], math.inf)


REPLIES = [messages.as_rep(), TOO_BIG, UNAVAILABLE, PREAUTH_REQUIRED, b"x"]


@given(data=st.data())
@pytest.mark.parametrize("request_", [FIRST_AS_REQ, PROOF, TGS_REQ, KPASSWD])
def test_exchange_ends_in_time_and_one_kdc_at_most_has_a_proof(
    request_: ProxyRequest, data: st.DataObject
) -> None:
    """A message sent once has one holder, unless the earlier holder said 29 or 52, or its port was closed."""
    kinds = data.draw(st.lists(st.sampled_from([tcp, udp]), min_size=1, max_size=5))
    play = Play(request_, *[kind(name) for kind, name in zip(kinds, "abcde", strict=False)])
    holders: set[str] = set()
    words: Iterable[str] = play.step()
    while not play.is_over:
        holders |= {word.removeprefix("send ") for word in words if word.startswith("send ")}
        assert len(holders) <= 1 or is_repeatable(request_)
        something_happens = data.draw(st.booleans())
        if play.running and something_happens:
            words = _something_happens(play, holders, data)
        else:
            words = play.after(data.draw(st.sampled_from([0.1, 0.3, 1.0, 5.0])))
    assert play.now <= 100 + LIMITS.reply_timeout + 5


def _something_happens(play: Play, holders: set[str], data: st.DataObject) -> Iterable[str]:
    name = data.draw(st.sampled_from(play.running))
    if name not in holders:
        if data.draw(st.booleans()):
            return play.connected(name)
        return play.failed(name, data.draw(st.sampled_from(list(FailureReason))))
    if data.draw(st.booleans()):
        reason = data.draw(st.sampled_from([*FAULTS, FailureReason.REFUSED]))
        if reason is FailureReason.REFUSED:
            holders.discard(name)
        return play.failed(name, reason)
    payload = data.draw(st.sampled_from(REPLIES))
    if payload in (TOO_BIG, UNAVAILABLE):
        holders.discard(name)
    return play.received(name, payload)


# --- KDC proxies


def https(name: str) -> Candidate:
    candidate = tcp(name)
    return replace(candidate, endpoint=replace(candidate.endpoint, transport=Transport.HTTPS))


@pytest.mark.parametrize("request_", [FIRST_AS_REQ, PROOF, TGS_REQ, KPASSWD])
def test_next_endpoint_gets_a_message_that_certainly_no_kdc_has(request_: ProxyRequest) -> None:
    play = Play(request_, https("a"), https("b"))
    play.step()
    play.connected("a")
    facts = FailureFacts(is_undelivered=True, retry_after=30.0)
    assert play.failed("a", FailureReason.PROXY_UNAVAILABLE, facts) == ["connect b"]
    assert play.retry_after == 30.0
    assert play.connected("b") == ["send b"]


@pytest.mark.parametrize("is_undelivered", [False, True])
def test_error_says_whether_a_kdc_may_have_the_message(is_undelivered: bool) -> None:
    play = Play(PROOF, https("a"))
    play.step()
    play.connected("a")
    play.failed("a", FailureReason.PROXY_UNAVAILABLE, FailureFacts(is_undelivered=is_undelivered))
    expected = NoKdcReachedError if is_undelivered else NoKdcReplyError
    assert type(play.exchange.error) is expected


def test_connect_by_tls_has_the_time_of_two_round_trips() -> None:
    play = Play(PROOF, https("a"), https("b"))
    play.step()
    assert play.after(2 * LIMITS.stagger - 0.01) == []
    assert play.after(0.02) == ["connect b"]


def test_refusal_of_one_message_says_nothing_about_the_proxy() -> None:
    play = Play(PROOF, https("a"), https("b"))
    play.step()
    play.connected("a")
    play.failed("a", FailureReason.PROXY_REFUSED, FailureFacts(is_undelivered=True))
    assert play.reports == []
