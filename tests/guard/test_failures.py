"""Who fails to log in, and what becomes of it: attackers and the people around them, with the defaults."""

import random
from dataclasses import dataclass, field

import pytest

from kkdcpd.config import FailuresConfig
from kkdcpd.guard.failures import Alert, Blocked, FailureGate
from kkdcpd.guard.shared_table import SharedTable, make_memory
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.values import (
    KdcService,
    MessageKind,
    Outcome,
    PrincipalName,
    ProxyRequest,
    ReplyFacts,
    Rule,
)

REALM = "EXAMPLE.COM"
ATTACKER = "198.51.100.66"
OFFICE = "192.0.2.1"
SEED = 20260801

GOOD = ReplyFacts(kind=MessageKind.AS_REP)
WRONG = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_PREAUTH_FAILED)
REVOKED = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_CLIENT_REVOKED)
UNKNOWN = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN)
GENERIC = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KRB_ERR_GENERIC)
BUSY = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE)
CHANGED = ReplyFacts(kind=MessageKind.KPASSWD_REP)


def name(text: str, name_type: int = 1) -> PrincipalName:
    return PrincipalName(name_type=name_type, components=tuple(text.split("/")))


def message(kind: MessageKind, cname: PrincipalName | None = None) -> ProxyRequest:
    service = KdcService.KPASSWD if kind is MessageKind.KPASSWD_REQ else KdcService.KDC
    return ProxyRequest(
        kind=kind, service=service, target_domain=REALM, realm=REALM, kerb_message=b"", cname=cname
    )


TGS_REQ = message(MessageKind.TGS_REQ)
KPASSWD_REQ = message(MessageKind.KPASSWD_REQ)


@dataclass
class Site:
    """A proxy before a KDC, where clients log in at the rate of one try in a tenth of a second."""

    gate: FailureGate
    now: float = 5000.0
    reached: int = 0
    events: list[Alert | Blocked] = field(default_factory=list)

    def send(
        self,
        principal: str,
        facts: ReplyFacts,
        *,
        client: str = ATTACKER,
        kind: MessageKind = MessageKind.AS_REQ,
        has_proof: bool = True,
    ) -> Rule | None:
        """One request to the KDC, which replies with these facts; or the rule that refuses it."""
        self.now += 0.1
        request = message(kind, name(principal) if kind is MessageKind.AS_REQ else None)
        refusal = self.gate.check(request, client=client, realm=REALM, now=self.now)
        if refusal:
            assert refusal.outcome is Outcome.REFUSED
            return refusal.rule
        self.reached += 1
        if facts.kind is MessageKind.AS_REP:
            facts = ReplyFacts(kind=facts.kind, crealm=REALM, cname=facts.cname or request.cname)
        self.events += self.gate.note(
            request, facts, client=client, realm=REALM, has_proof=has_proof, now=self.now
        )
        return None

    def leave(
        self,
        principal: str,
        *,
        kind: MessageKind = MessageKind.AS_REQ,
        has_proof: bool = True,
        seconds: float = 0.01,
    ) -> Rule | None:
        """One request that passes, whose client doesn't wait for the reply; or the rule that refuses it."""
        self.now += 0.1
        request = message(kind, name(principal) if kind is MessageKind.AS_REQ else None)
        refusal = self.gate.check(request, client=ATTACKER, realm=REALM, now=self.now)
        if refusal:
            return refusal.rule
        self.events += self.gate.note_departure(
            request, client=ATTACKER, realm=REALM, has_proof=has_proof, seconds=seconds, now=self.now
        )
        return None


@pytest.fixture
def site() -> Site:
    return make_site()


def make_site(config: FailuresConfig | None = None) -> Site:
    return Site(FailureGate(config or FailuresConfig(), SharedTable(make_memory(65536, bytes(16)))))


# Guessing


def test_guesses_at_one_principal_block_it_for_that_client_alone(site: Site) -> None:
    answers = [site.send("alice", WRONG) for _ in range(12)]
    assert answers == [None] * 10 + [Rule.GUESSING] * 2
    assert site.send("bob", GOOD) is None
    assert site.send("alice", GOOD, client=OFFICE) is None
    assert site.events == [
        Blocked(rule=Rule.GUESSING, client=ATTACKER, realm=REALM, principal="alice", seconds=60.0)
    ]


# Clients that leave


def test_who_leaves_before_the_reply_fails_as_who_waits_for_it(site: Site) -> None:
    assert [site.leave("alice") for _ in range(12)] == [None] * 10 + [Rule.GUESSING] * 2
    answers = [site.leave(f"user{number}") for number in range(20)]
    assert answers == [None] * 15 + [Rule.SPRAYING] * 5


def test_who_leaves_password_changes_fails_as_who_waits_for_them(site: Site) -> None:
    answers = [site.leave("", kind=MessageKind.KPASSWD_REQ) for _ in range(22)]
    assert answers == [None] * 20 + [Rule.KPASSWD_FAILURES] * 2


def test_who_waits_for_a_slow_kdc_or_proves_nothing_may_leave(site: Site) -> None:
    for number in range(50):
        assert site.leave(f"user{number}", seconds=0.75) is None
        assert site.leave(f"user{number}", has_proof=False) is None
        assert site.leave("", kind=MessageKind.TGS_REQ) is None
        assert site.leave("", kind=MessageKind.KPASSWD_REQ, seconds=5.0) is None
    assert site.events == []


def test_refusal_tells_how_long_it_lasts(site: Site) -> None:
    for _ in range(10):
        site.send("alice", WRONG)
    request = message(MessageKind.AS_REQ, name("alice"))
    refusal = site.gate.check(request, client=ATTACKER, realm=REALM, now=site.now + 20.0)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(40.0, abs=0.3)
    assert refusal.text.startswith(
        "logging in by this name failed too often from your network; try again in "
    )
    assert "alice" not in refusal.text


def test_block_ends_and_the_next_failure_makes_it_longer(site: Site) -> None:
    for _ in range(10):
        site.send("alice", WRONG)
    site.now += 60.0
    assert site.send("alice", WRONG) is None
    site.now += 110.0
    assert site.send("alice", GOOD) is Rule.GUESSING
    site.now += 10.0
    assert site.send("alice", GOOD) is None


def test_failures_before_the_window_are_forgotten(site: Site) -> None:
    for _ in range(5):
        for _ in range(9):
            assert site.send("alice", WRONG) is None
        site.now += 600.0


@pytest.mark.parametrize("facts", [WRONG, REVOKED])
def test_wrong_passwords_and_locked_accounts_count(site: Site, facts: ReplyFacts) -> None:
    assert [site.send("alice", facts) for _ in range(11)][-1] is Rule.GUESSING


@pytest.mark.parametrize("code", sorted(set(KrbErrorCode) - {6, 18, 24}))
def test_other_errors_dont_count(site: Site, code: KrbErrorCode) -> None:
    facts = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=code)
    assert [site.send("alice", facts) for _ in range(50)] == [None] * 50


# Spraying


def test_spray_of_500_principals_is_stopped_within_20_tries(site: Site) -> None:
    answers = [site.send(f"user{number}", WRONG) for number in range(500)]
    assert site.reached <= 20
    assert answers[16] is Rule.SPRAYING


def test_spray_that_waits_out_its_blocks_gets_no_further(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number}", WRONG)
        site.now += 0.9
    assert site.reached <= 20


def test_spray_of_few_principals_with_many_passwords_is_stopped_as_well(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number % 16}", WRONG)
    assert site.reached <= 20


def test_attacked_principals_still_log_in_from_their_own_addresses(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number}", WRONG)
    answers = [site.send(f"user{number}", GOOD, client=f"192.0.2.{number % 250}") for number in range(500)]
    assert answers == [None] * 500


def people(count: int, seed: int) -> list[tuple[str, ReplyFacts]]:
    """Log-ons of so many, in no order; one in ten mistypes once or twice first."""
    chance = random.Random(seed)
    queues = []
    for number in range(count):
        mistakes = chance.randint(1, 2) if number % 10 == 0 else 0
        queues.append([(f"user{number}", WRONG)] * mistakes + [(f"user{number}", GOOD)])
    order = [index for index, queue in enumerate(queues) for _ in queue]
    chance.shuffle(order)
    return [queues[index].pop(0) for index in order]


@pytest.mark.parametrize("seed", range(SEED, SEED + 20))
def test_200_users_behind_one_address_log_in_while_another_sprays_them(site: Site, seed: int) -> None:
    answers = []
    for number, (user, facts) in enumerate(people(200, seed)):
        answers.append(site.send(user, facts, client=OFFICE))
        site.send(f"user{number}", WRONG, client=ATTACKER)
    assert set(answers) == {None}
    assert site.send("user1", GOOD, client=ATTACKER) is Rule.SPRAYING


@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_office_of_2000_logs_in(site: Site, seed: int) -> None:
    assert {site.send(user, facts, client=OFFICE) for user, facts in people(2000, seed)} == {None}


def test_one_account_buys_no_more_than_one(site: Site) -> None:
    for _ in range(1000):
        site.send("mallory", GOOD)
    for number in range(500):
        site.send(f"user{number}", WRONG)
    assert site.reached - 1000 <= 20


def test_account_that_calls_itself_by_other_names_within_fast_is_still_one(site: Site) -> None:
    known = ReplyFacts(kind=MessageKind.AS_REP, cname=name("mallory"))
    for number in range(1000):
        site.send(f"invented{number}", known)
    for number in range(500):
        site.send(f"user{number}", WRONG)
    assert site.reached - 1000 <= 20


def test_ticket_without_proof_is_no_success(site: Site) -> None:
    for number in range(100):
        site.send(f"roasted{number}", GOOD, has_proof=False)
    for number in range(500):
        site.send(f"user{number}", WRONG)
    assert site.reached - 100 <= 20


def test_client_is_blocked_for_logging_in_and_for_passwords_but_tickets_pass(site: Site) -> None:
    for number in range(20):
        site.send(f"user{number}", WRONG)
    assert site.send("alice", GOOD) is Rule.SPRAYING
    assert site.send("", CHANGED, kind=MessageKind.KPASSWD_REQ) is Rule.SPRAYING
    assert site.send("", GOOD, kind=MessageKind.TGS_REQ) is None


def test_client_is_released_when_its_block_ends(site: Site) -> None:
    for number in range(20):
        site.send(f"user{number}", WRONG)
    site.now += 60.0
    assert [site.send(f"user{number}", GOOD) for number in range(20)] == [None] * 20


def test_replies_under_way_when_the_block_falls_dont_make_it_longer(site: Site) -> None:
    events: list[Alert | Blocked] = []
    for number in range(100):
        request = message(MessageKind.AS_REQ, name(f"user{number}"))
        events += site.gate.note(request, WRONG, client=ATTACKER, realm=REALM, has_proof=True, now=site.now)
    assert events == [Blocked(rule=Rule.SPRAYING, client=ATTACKER, realm=REALM, principal=None, seconds=60.0)]


# Enumeration


def test_enumeration_is_stopped_and_named(site: Site) -> None:
    answers = [site.send(f"guess{number}", UNKNOWN, has_proof=False) for number in range(500)]
    assert site.reached <= 20
    assert answers[-1] is Rule.ENUMERATION


def test_one_unknown_principal_may_ask_as_often_as_it_likes(site: Site) -> None:
    assert [site.send("misconfigured", UNKNOWN) for _ in range(500)] == [None] * 500


def test_mixing_spray_and_enumeration_gains_nothing(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number}", UNKNOWN if number % 2 else WRONG)
    assert site.reached <= 20


def test_unknown_names_have_a_limit_of_their_own() -> None:
    site = make_site(FailuresConfig(unknown_principals=1000))
    assert [site.send(f"machine{number}", UNKNOWN) for number in range(900)] == [None] * 900


@pytest.mark.parametrize("failure", [WRONG, UNKNOWN], ids=["spray", "enumeration"])
def test_each_two_who_log_on_make_room_for_one_more_who_fails(failure: ReplyFacts) -> None:
    """15 + 100 for an office of 200, as docs/guard.md has it, and not one more."""
    for logged_on, allowed in ((0, 15), (1, 15), (2, 16), (200, 115)):
        site = make_site(FailuresConfig())
        for number in range(logged_on):
            site.send(f"colleague{number}", GOOD)
        before = site.reached
        for number in range(500):
            site.send(f"user{number}", failure)
        # The one that is too many is seen when it is answered.
        assert site.reached - before == allowed + 1


# Password changes


def test_failing_password_changes_block_further_ones_but_nobodys_log_on(site: Site) -> None:
    answers = [site.send("", GENERIC, kind=MessageKind.KPASSWD_REQ) for _ in range(22)]
    assert answers == [None] * 20 + [Rule.KPASSWD_FAILURES] * 2
    assert site.send("alice", GOOD) is None
    assert site.send("", CHANGED, kind=MessageKind.KPASSWD_REQ, client=OFFICE) is None


@pytest.mark.parametrize("facts", [CHANGED, BUSY])
def test_password_changes_that_succeed_or_find_the_server_busy_dont_count(
    site: Site, facts: ReplyFacts
) -> None:
    assert [site.send("", facts, kind=MessageKind.KPASSWD_REQ) for _ in range(50)] == [None] * 50


# Many clients, one principal


def test_principal_that_fails_from_many_clients_is_told_once_and_never_blocked(site: Site) -> None:
    for number in range(100):
        for _ in range(3):
            assert site.send("alice", WRONG, client=f"203.0.113.{number}") is None
    assert site.events == [Alert(realm=REALM, principal="alice", clients=5)]
    assert site.send("alice", GOOD, client=OFFICE) is None


def test_one_client_that_fails_often_is_no_alert(site: Site) -> None:
    for _ in range(9):
        site.send("alice", WRONG)
    assert site.events == []


# State


def test_workers_and_generations_share_what_was_noted() -> None:
    memory = make_memory(65536, bytes(16))
    sites = [Site(FailureGate(FailuresConfig(), SharedTable(memory))) for _ in range(4)]
    for number in range(500):
        sites[number % 4].send(f"user{number}", WRONG)
    assert sum(site.reached for site in sites) <= 20
    late = Site(FailureGate(FailuresConfig(), SharedTable(memory)), now=sites[0].now)
    assert late.send("alice", GOOD) is Rule.SPRAYING


def test_tgs_replies_are_of_no_concern(site: Site) -> None:
    for facts in (WRONG, UNKNOWN, ReplyFacts(kind=MessageKind.TGS_REP)):
        for _ in range(50):
            assert site.gate.note(TGS_REQ, facts, client=OFFICE, realm=REALM, has_proof=True, now=1.0) == ()
    assert site.gate.check(KPASSWD_REQ, client=OFFICE, realm=REALM, now=1.0) is None
