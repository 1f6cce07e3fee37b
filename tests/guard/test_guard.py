"""Tests of all rules together: their order, their modes, and the log events of attacks."""

import hashlib
import logging
import sys
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kkdcpd.config import (
    Config,
    FailuresConfig,
    GuardConfig,
    PolicyConfig,
    PrincipalPattern,
    RatesConfig,
    RealmConfig,
)
from kkdcpd.guard.guard import Guard, Verdict
from kkdcpd.guard.store import Store
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.values import (
    ClientConnection,
    MessageKind,
    Mode,
    Outcome,
    PrincipalName,
    ProxyMessage,
    ProxyRequest,
    Rule,
)
from tests.support import messages
from tests.support.shared import own_counts, own_table

GOOD = Verdict()
TOKEN = hashlib.sha256(b"correct-horse-battery-staple").digest()
CLIENT = ClientConnection(address="192.0.2.1", network="192.0.2.1")
OTHER = ClientConnection(address="192.0.2.2", network="192.0.2.2")

PROOF = [(messages.PA_ENC_TIMESTAMP, b"")]
WRONG_PASSWORD = messages.krb_error(24)


def request(payload: bytes) -> ProxyRequest:
    return classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain="EXAMPLE.COM"))


def login(user: str = "alice", **fields: Any) -> ProxyRequest:
    return request(messages.as_req(cname=(1, user.split("/")), padata=PROOF, **fields))


@dataclass
class House:
    """A guard with a clock that stands still."""

    guard: Guard
    realm: RealmConfig

    def admit(self, asked: ProxyRequest | None = None, client: ClientConnection = CLIENT) -> Verdict:
        return self.guard.admit(asked or login(), client, self.realm)

    def review(self, asked: ProxyRequest, reply: bytes, client: ClientConnection = CLIENT) -> Verdict:
        facts = inspect_reply(asked.kind, reply)
        return self.guard.review(asked, client, self.realm, facts)

    def fail(self, user: str, times: int = 1, client: ClientConnection = CLIENT) -> None:
        for _ in range(times):
            assert self.review(login(user), WRONG_PASSWORD, client) == GOOD


def house(
    policy: PolicyConfig | None = None,
    rates: RatesConfig | None = None,
    failures: FailuresConfig | None = None,
    tokens: tuple[bytes, ...] = (),
    store: Store | None = None,
) -> House:
    realm = RealmConfig(name="EXAMPLE.COM", policy=policy or PolicyConfig(), tokens=tokens)
    guard_config = GuardConfig(rates=rates or RatesConfig(), failures=failures or FailuresConfig())
    guard = Guard(
        Config(realms=(realm,), guard=guard_config),
        store or own_table(1024),
        own_counts(),
        lambda: 5000.0,
    )
    return House(guard, realm)


def rule_of(verdict: Verdict) -> Rule | None:
    return verdict.refusal.rule if verdict.refusal else None


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "kkdcpd")
    return caplog


def logged(log: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, object]]]:
    return [
        (line.levelname, line.message, line.fields)  # type: ignore[attr-defined]
        for line in log.records
    ]


def test_log_on_breaks_no_rule_by_default() -> None:
    subject = house()
    with subject.guard.in_flight(CLIENT) as verdict:
        assert verdict == GOOD
        assert subject.admit() == GOOD
        assert subject.review(login(), messages.as_rep()) == GOOD


# Requests in flight


def test_request_over_the_limit_is_refused_and_uncounted_at_its_end() -> None:
    subject = house(rates=RatesConfig(client_concurrency=1))
    with subject.guard.in_flight(CLIENT), subject.guard.in_flight(CLIENT) as verdict:
        assert rule_of(verdict) is Rule.CLIENT_CONCURRENCY
    with subject.guard.in_flight(CLIENT) as verdict:
        assert verdict == GOOD


def test_request_that_fails_is_uncounted_too() -> None:
    subject = house(rates=RatesConfig(client_concurrency=1))
    with pytest.raises(RuntimeError), subject.guard.in_flight(CLIENT):
        raise RuntimeError
    with subject.guard.in_flight(CLIENT) as verdict:
        assert verdict == GOOD


def test_heads_over_the_rate_are_refused_for_their_client_only() -> None:
    subject = house(rates=RatesConfig(client_burst=2))
    verdicts = [rule_of(subject.guard.check_rate(client)) for client in (CLIENT, CLIENT, CLIENT, OTHER)]
    assert verdicts == [None, None, Rule.CLIENT_RATE, None]


@pytest.mark.parametrize(
    ("mode", "expected"), [(Mode.OFF, GOOD), (Mode.MONITOR, Verdict(monitored=(Rule.CLIENT_RATE,)))]
)
def test_heads_over_the_rate_follow_the_mode(mode: Mode, expected: Verdict) -> None:
    subject = house(rates=RatesConfig(mode=mode, client_burst=1))
    subject.guard.check_rate(CLIENT)
    assert subject.guard.check_rate(CLIENT) == expected


def test_request_in_flight_takes_no_token_of_the_rate() -> None:
    subject = house(rates=RatesConfig(client_burst=1))
    for _ in range(3):
        with subject.guard.in_flight(CLIENT) as verdict:
            assert verdict == GOOD
    assert subject.guard.check_rate(CLIENT) == GOOD


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(Mode.OFF, GOOD), (Mode.MONITOR, Verdict(monitored=(Rule.CLIENT_CONCURRENCY,)))],
)
def test_requests_over_the_limit_follow_the_mode(mode: Mode, expected: Verdict) -> None:
    subject = house(rates=RatesConfig(mode=mode, client_concurrency=1))
    with subject.guard.in_flight(CLIENT), subject.guard.in_flight(CLIENT) as verdict:
        assert verdict == expected


def flood(subject: House, numbers: range) -> None:
    """Let many IPv6 networks of many sites each fail once."""
    asked = login()
    facts = inspect_reply(asked.kind, WRONG_PASSWORD)
    for number in numbers:
        network = f"2001:db8:{number >> 8:x}:{number & 0xFF:x}::/64"
        client = ClientConnection(address=network, network=network)
        cname = PrincipalName(name_type=1, components=(f"user{number}",))
        with subject.guard.in_flight(client):
            subject.guard.review(replace(asked, cname=cname), client, subject.realm, facts)


def test_memory_does_not_grow_with_the_number_of_networks() -> None:
    """The table and the caches, which hold some thousand entries, are all that the guard remembers."""
    subject = house(rates=RatesConfig(total_rate=1e6, total_burst=10**7))
    flood(subject, range(3_000))
    before = sys.getallocatedblocks()
    flood(subject, range(3_000, 6_000))
    assert sys.getallocatedblocks() - before < 1_000


# Requests


def test_first_enforced_rule_refuses_and_rules_in_monitor_mode_are_reported() -> None:
    policy = PolicyConfig(
        require_armor=Mode.MONITOR, weak_etypes=Mode.MONITOR, cname_deny=(PrincipalPattern("alice"),)
    )
    failures = FailuresConfig(guesses=1)
    subject = house(policy, failures=failures, tokens=(TOKEN,))
    subject.fail("alice")
    weak = login(etypes=(23,))

    stranger = subject.admit(weak)
    assert rule_of(stranger) is Rule.TOKEN
    assert stranger.monitored == (Rule.REQUIRE_ARMOR, Rule.WEAK_ETYPES)

    friend = ClientConnection(address="192.0.2.1", network="192.0.2.1", token=TOKEN)
    assert rule_of(subject.admit(weak, friend)) is Rule.GUESSING
    elsewhere = ClientConnection(address="192.0.2.2", network="192.0.2.2", token=TOKEN)
    assert rule_of(subject.admit(weak, elsewhere)) is Rule.CNAME


@pytest.mark.parametrize(
    ("mode", "refusal", "monitored"),
    [(Mode.OFF, None, ()), (Mode.MONITOR, None, (Rule.TOKEN,)), (Mode.ENFORCE, Rule.TOKEN, ())],
)
def test_missing_token_follows_the_mode(
    mode: Mode, refusal: Rule | None, monitored: tuple[Rule, ...]
) -> None:
    verdict = house(PolicyConfig(token=mode), tokens=(TOKEN,)).admit()
    assert (rule_of(verdict), verdict.monitored) == (refusal, monitored)


def test_realm_rate_counts_only_relayed_requests() -> None:
    policy = PolicyConfig(cname_deny=(PrincipalPattern("mallory"),), require_armor=Mode.MONITOR)
    subject = house(policy, RatesConfig(realm_burst=2))
    for _ in range(10):
        assert rule_of(subject.admit(login("mallory"))) is Rule.CNAME
    monitored = Verdict(monitored=(Rule.REQUIRE_ARMOR,))
    assert [subject.admit(), subject.admit()] == [monitored, monitored]
    refused = subject.admit()
    assert (rule_of(refused), refused.monitored) == (Rule.REALM_RATE, (Rule.REQUIRE_ARMOR,))


@pytest.mark.parametrize(
    ("mode", "expected"), [(Mode.OFF, GOOD), (Mode.MONITOR, Verdict(monitored=(Rule.REALM_RATE,)))]
)
def test_realm_rate_follows_the_mode(mode: Mode, expected: Verdict) -> None:
    subject = house(rates=RatesConfig(mode=mode, realm_burst=1))
    subject.admit()
    assert subject.admit() == expected


@pytest.mark.parametrize(
    ("mode", "refusal", "monitored"),
    [
        (Mode.OFF, None, ()),
        (Mode.MONITOR, None, (Rule.GUESSING,)),
        (Mode.ENFORCE, Rule.GUESSING, ()),
    ],
)
def test_failures_follow_the_mode(mode: Mode, refusal: Rule | None, monitored: tuple[Rule, ...]) -> None:
    subject = house(failures=FailuresConfig(mode=mode, guesses=3))
    subject.fail("alice", times=3)
    verdict = subject.admit()
    assert (rule_of(verdict), verdict.monitored) == (refusal, monitored)
    assert subject.admit(login("bob")) == GOOD


def test_guards_with_one_store_share_its_blocks() -> None:
    store = own_table(1024)
    first, second = house(store=store), house(store=store)
    first.fail("alice", times=10)
    assert rule_of(second.admit()) is Rule.GUESSING


def test_each_realm_has_its_own_policy() -> None:
    realms = (
        RealmConfig(name="A.TEST", policy=PolicyConfig(message_kinds=(MessageKind.TGS_REQ,))),
        RealmConfig(name="B.TEST"),
    )
    guard = Guard(Config(realms=realms), own_table(1024), own_counts(), lambda: 1.0)

    def admit(realm: RealmConfig) -> Verdict:
        message = messages.prefixed(messages.as_req(realm=realm.name))
        asked = classify(ProxyMessage(kerb_message=message, target_domain=realm.name))
        return guard.admit(asked, CLIENT, realm)

    assert [rule_of(admit(realm)) for realm in realms] == [Rule.MESSAGE_KIND, None]


# Replies


def test_reply_that_breaks_a_rule_is_refused() -> None:
    subject = house(PolicyConfig(unproven_ticket=Mode.ENFORCE))
    unproven = request(messages.as_req())
    assert subject.admit(unproven) == GOOD
    verdict = subject.review(unproven, messages.as_rep())
    assert verdict.refusal is not None
    assert (verdict.refusal.rule, verdict.refusal.outcome) == (Rule.UNPROVEN_TICKET, Outcome.REFUSED)


def test_many_services_are_reported_beside_other_rules() -> None:
    policy = PolicyConfig(services=1, unproven_ticket=Mode.MONITOR, initial_service=Mode.OFF)
    subject = house(policy)
    unproven = request(messages.as_req())
    rules = [
        subject.review(unproven, messages.as_rep(sname=(2, ("HTTP", host)))).monitored for host in ("a", "b")
    ]
    assert rules == [(Rule.UNPROVEN_TICKET,), (Rule.UNPROVEN_TICKET, Rule.MANY_SERVICES)]


def test_each_realm_below_a_wildcard_has_its_own_counts() -> None:
    realm = RealmConfig(name="*.example.com", policy=PolicyConfig(services=1, initial_service=Mode.OFF))
    guard = Guard(Config(realms=(realm,)), own_table(1024), own_counts(), lambda: 1.0)

    def fail(child: str) -> Verdict:
        message = messages.prefixed(messages.as_req(realm=child, padata=PROOF))
        asked = classify(ProxyMessage(kerb_message=message, target_domain=child))
        guard.review(asked, CLIENT, realm, inspect_reply(asked.kind, WRONG_PASSWORD))
        return guard.admit(asked, CLIENT, realm)

    def use(child: str, host: str) -> tuple[Rule, ...]:
        message = messages.prefixed(messages.tgs_req(realm=child))
        asked = classify(ProxyMessage(kerb_message=message, target_domain=child))
        reply = messages.tgs_rep(realm=child, sname=(2, ("HTTP", host)))
        return guard.review(asked, CLIENT, realm, inspect_reply(asked.kind, reply)).monitored

    assert rule_of([fail("A.EXAMPLE.COM") for _ in range(10)][-1]) is Rule.GUESSING
    assert rule_of(fail("a.example.com.")) is Rule.GUESSING
    assert rule_of(fail("B.EXAMPLE.COM")) is None
    children = ("A.EXAMPLE.COM", "B.EXAMPLE.COM")
    assert [use(child, host) for host in ("a", "b") for child in children] == [
        (),
        (),
        (Rule.MANY_SERVICES,),
        (Rule.MANY_SERVICES,),
    ]


@pytest.mark.parametrize(("padata", "refusal"), [(PROOF, None), ([], Rule.SPRAYING)])
def test_only_a_log_on_with_a_proof_raises_the_limit(padata: Any, refusal: Rule | None) -> None:
    subject = house(failures=FailuresConfig(sprayed_principals=1, principals_per_success=1.0))
    subject.review(request(messages.as_req(padata=padata)), messages.as_rep())
    subject.fail("bob")
    subject.fail("carol")
    assert rule_of(subject.admit(login("dave"))) is refusal


def test_block_is_logged_with_its_client_and_principal(log: pytest.LogCaptureFixture) -> None:
    subject = house(failures=FailuresConfig(guesses=2, sprayed_principals=1, block=30.0))
    subject.fail("Alice", times=2)
    subject.fail("bob")
    common = {"client": "192.0.2.1", "realm": "EXAMPLE.COM", "seconds": 30}
    assert logged(log) == [
        ("WARNING", "client_blocked", {"rule": "guessing", **common, "cname": "alice"}),
        ("WARNING", "client_blocked", {"rule": "spraying", **common}),
    ]


def test_block_in_monitor_mode_is_logged_with_the_mode(log: pytest.LogCaptureFixture) -> None:
    subject = house(failures=FailuresConfig(mode=Mode.MONITOR, guesses=1))
    subject.fail("alice")
    ((_level, event, fields),) = logged(log)
    assert (event, fields["mode"]) == ("client_blocked", "monitor")


def test_principal_under_attack_is_logged_once_and_may_log_on(log: pytest.LogCaptureFixture) -> None:
    subject = house(failures=FailuresConfig(alert_clients=2))
    for number in range(4):
        address = f"203.0.113.{number}"
        subject.fail("alice", client=ClientConnection(address=address, network=address))
    fields = {"realm": "EXAMPLE.COM", "cname": "alice", "clients": 2}
    assert logged(log) == [("WARNING", "principal_under_attack", fields)]
    assert subject.admit() == GOOD


def test_no_event_is_logged_if_failures_are_off(log: pytest.LogCaptureFixture) -> None:
    subject = house(failures=FailuresConfig(mode=Mode.OFF, guesses=1, alert_clients=2))
    subject.fail("alice", times=3)
    subject.fail("alice", client=OTHER)
    assert logged(log) == []
