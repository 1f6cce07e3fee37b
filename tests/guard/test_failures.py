"""Tests of failed log-ons: attackers and honest users of the same network, with the default limits."""

import random
from dataclasses import dataclass, field, replace

import pytest

from kkdcpd.config import FailuresConfig
from kkdcpd.guard.failures import Alert, Blocked, FailureGate
from kkdcpd.guard.shared_table import SharedTable
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.shared_memory.areas import make_area
from kkdcpd.shared_memory.entries import entries_bytes
from kkdcpd.values import (
    KdcService,
    MessageKind,
    Outcome,
    PrincipalName,
    ProxyRequest,
    ReplyFacts,
    Rule,
)
from tests.support.shared import own_table

REALM = "EXAMPLE.COM"
ATTACKER = "198.51.100.66"
OFFICE = "192.0.2.1"
SEED = 20260801

GOOD = ReplyFacts(kind=MessageKind.AS_REP)
WRONG = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_PREAUTH_FAILED)
REVOKED = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_CLIENT_REVOKED)
UNKNOWN = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN)
GENERIC = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KRB_ERR_GENERIC)
INTEGRITY = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KRB_AP_ERR_BAD_INTEGRITY)
NOT_US = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KRB_AP_ERR_NOT_US)
NO_SERVICE = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN)
DEMAND = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_PREAUTH_REQUIRED)
BUSY = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE)
CHANGED = ReplyFacts(kind=MessageKind.KPASSWD_REP)


def name(text: str, name_type: int = 1) -> PrincipalName:
    return PrincipalName(name_type=name_type, components=tuple(text.split("/")))


ENC_TIMESTAMP, PKINIT, FAST, SPAKE = 2, 16, 136, 151
PKINIT_REPLY = 17


def message(
    kind: MessageKind,
    cname: PrincipalName | None = None,
    *,
    sname: PrincipalName | None = None,
    padata: tuple[int, ...] = (),
    ticket_sname: PrincipalName | None = None,
) -> ProxyRequest:
    service = KdcService.KPASSWD if kind is MessageKind.KPASSWD_REQ else KdcService.KDC
    return ProxyRequest(
        kind=kind,
        service=service,
        target_domain=REALM,
        realm=REALM,
        kerb_message=b"",
        cname=cname,
        sname=sname,
        padata_types=padata,
        is_armored=FAST in padata,
        ticket_sname=ticket_sname,
    )


TGS_REQ = message(MessageKind.TGS_REQ, ticket_sname=name("krbtgt/EXAMPLE.COM"))
KPASSWD_REQ = message(MessageKind.KPASSWD_REQ)


@dataclass
class Site:
    """A proxy before a KDC. Clients log on at a rate of ten tries a second."""

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
        padata: tuple[int, ...] = (ENC_TIMESTAMP,),
        realm: str = REALM,
    ) -> Rule | None:
        """Send a request to the KDC, which replies with these facts, and return the rule that refuses it."""
        request = message(kind, name(principal) if kind is MessageKind.AS_REQ else None, padata=padata)
        if facts.kind is MessageKind.AS_REP:
            facts = replace(facts, crealm=realm, cname=facts.cname or request.cname)
        return self.pass_on(request, facts, client=client, realm=realm)

    def send_armored(
        self,
        inner: str | None,
        facts: ReplyFacts,
        *,
        outer: str | None = None,
        client: str = ATTACKER,
    ) -> Rule | None:
        """Send a request with FAST that shows the name `outer`. The KDC's reply names `inner`."""
        request = message(MessageKind.AS_REQ, name(outer) if outer else None, padata=(FAST,))
        facts = replace(facts, cname=name(inner) if inner else None)
        return self.pass_on(request, facts, client=client)

    def pass_on(
        self, request: ProxyRequest, facts: ReplyFacts, *, client: str = ATTACKER, realm: str = REALM
    ) -> Rule | None:
        self.now += 0.1
        refusal = self.gate.check(request, client=client, realm=realm, now=self.now)
        if refusal:
            assert refusal.outcome is Outcome.REFUSED
            return refusal.rule
        self.reached += 1
        self.events += self.gate.note(request, facts, client=client, realm=realm, now=self.now)
        return None

    def leave(
        self,
        principal: str,
        *,
        kind: MessageKind = MessageKind.AS_REQ,
        padata: tuple[int, ...] = (ENC_TIMESTAMP,),
        seconds: float = 0.01,
    ) -> Rule | None:
        """Send a request without waiting for the reply, and return the rule that refuses it."""
        self.now += 0.1
        request = message(kind, name(principal) if kind is MessageKind.AS_REQ else None, padata=padata)
        refusal = self.gate.check(request, client=ATTACKER, realm=REALM, now=self.now)
        if refusal:
            return refusal.rule
        self.events += self.gate.note_departure(
            request, client=ATTACKER, realm=REALM, seconds=seconds, now=self.now
        )
        return None


@pytest.fixture
def site() -> Site:
    return make_site()


def make_site(config: FailuresConfig | None = None) -> Site:
    return Site(FailureGate(config or FailuresConfig(), own_table(65536)))


# Guessing


def test_guesses_at_one_principal_block_it_for_that_client_only(site: Site) -> None:
    answers = [site.send("alice", WRONG) for _ in range(12)]
    assert answers == [None] * 10 + [Rule.GUESSING] * 2
    assert site.send("bob", GOOD) is None
    assert site.send("alice", GOOD, client=OFFICE) is None
    assert site.events == [
        Blocked(rule=Rule.GUESSING, client=ATTACKER, realm=REALM, principal="alice", seconds=60.0)
    ]


# Clients that leave


def test_leaving_before_the_reply_counts_as_a_failure(site: Site) -> None:
    assert [site.leave("alice") for _ in range(12)] == [None] * 10 + [Rule.GUESSING] * 2
    answers = [site.leave(f"user{number}") for number in range(20)]
    assert answers == [None] * 15 + [Rule.SPRAYING] * 5


def test_leaving_a_password_change_counts_as_a_failure(site: Site) -> None:
    answers = [site.leave("", kind=MessageKind.KPASSWD_REQ) for _ in range(22)]
    assert answers == [None] * 20 + [Rule.KPASSWD_FAILURES] * 2


def test_leaving_a_slow_kdc_or_a_request_without_proof_does_not_count(site: Site) -> None:
    for number in range(50):
        assert site.leave(f"user{number}", seconds=0.75) is None
        assert site.leave(f"user{number}", padata=()) is None
        assert site.leave("", kind=MessageKind.TGS_REQ) is None
        assert site.leave("", kind=MessageKind.KPASSWD_REQ, seconds=5.0) is None
    assert site.events == []


def test_refusal_says_how_long_the_block_lasts(site: Site) -> None:
    for _ in range(10):
        site.send("alice", WRONG)
    request = message(MessageKind.AS_REQ, name("alice"))
    refusal = site.gate.check(request, client=ATTACKER, realm=REALM, now=site.now + 20.0)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(40.0, abs=0.3)
    assert refusal.text.startswith(
        "logging on with this name failed too often from your network; try again in "
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


@pytest.mark.parametrize("facts", [WRONG, REVOKED, INTEGRITY])
def test_wrong_passwords_and_locked_accounts_count(site: Site, facts: ReplyFacts) -> None:
    assert [site.send("alice", facts) for _ in range(11)][-1] is Rule.GUESSING


@pytest.mark.parametrize("code", sorted(set(KrbErrorCode) - {6, 7, 18, 24, 31, 35}))
def test_other_errors_do_not_count(site: Site, code: KrbErrorCode) -> None:
    facts = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=code)
    assert [site.send("alice", facts) for _ in range(50)] == [None] * 50


# Spraying


def test_spray_of_500_principals_is_stopped_within_20_tries(site: Site) -> None:
    answers = [site.send(f"user{number}", WRONG) for number in range(500)]
    assert site.reached <= 20
    assert answers[16] is Rule.SPRAYING


def test_spray_that_waits_for_the_end_of_its_blocks_gets_no_further(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number}", WRONG)
        site.now += 0.9
    assert site.reached <= 20


def test_spray_of_few_principals_with_many_passwords_is_stopped_as_well(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number % 16}", WRONG)
    assert site.reached <= 20


def test_attacked_principals_still_log_on_from_their_own_addresses(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number}", WRONG)
    answers = [site.send(f"user{number}", GOOD, client=f"192.0.2.{number % 250}") for number in range(500)]
    assert answers == [None] * 500


def people(count: int, seed: int) -> list[tuple[str, ReplyFacts]]:
    """Return log-ons of several users in random order. One user in ten mistypes once or twice first."""
    chance = random.Random(seed)
    queues = []
    for number in range(count):
        mistakes = chance.randint(1, 2) if number % 10 == 0 else 0
        queues.append([(f"user{number}", WRONG)] * mistakes + [(f"user{number}", GOOD)])
    order = [index for index, queue in enumerate(queues) for _ in queue]
    chance.shuffle(order)
    return [queues[index].pop(0) for index in order]


@pytest.mark.parametrize("seed", range(SEED, SEED + 20))
def test_200_users_behind_one_address_log_on_during_a_spray_from_another_address(
    site: Site, seed: int
) -> None:
    answers = []
    for number, (user, facts) in enumerate(people(200, seed)):
        answers.append(site.send(user, facts, client=OFFICE))
        site.send(f"user{number}", WRONG, client=ATTACKER)
    assert set(answers) == {None}
    assert site.send("user1", GOOD, client=ATTACKER) is Rule.SPRAYING


@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_office_of_2000_logs_on(site: Site, seed: int) -> None:
    assert {site.send(user, facts, client=OFFICE) for user, facts in people(2000, seed)} == {None}


def test_one_account_raises_the_limit_once(site: Site) -> None:
    for _ in range(1000):
        site.send("mallory", GOOD)
    for number in range(500):
        site.send(f"user{number}", WRONG)
    assert site.reached - 1000 <= 20


def test_account_with_several_names_within_fast_raises_the_limit_once(site: Site) -> None:
    known = ReplyFacts(kind=MessageKind.AS_REP, cname=name("mallory"))
    for number in range(1000):
        site.send(f"invented{number}", known)
    for number in range(500):
        site.send(f"user{number}", WRONG)
    assert site.reached - 1000 <= 20


def test_ticket_without_proof_is_no_log_on(site: Site) -> None:
    for number in range(100):
        site.send(f"roasted{number}", GOOD, padata=())
    for number in range(500):
        site.send(f"user{number}", WRONG)
    assert site.reached - 100 <= 20


def test_blocked_client_may_not_log_on_or_change_passwords_but_use_its_tickets(site: Site) -> None:
    for number in range(20):
        site.send(f"user{number}", WRONG)
    assert site.send("alice", GOOD) is Rule.SPRAYING
    assert site.send("", CHANGED, kind=MessageKind.KPASSWD_REQ) is Rule.SPRAYING
    assert site.pass_on(TGS_REQ, ReplyFacts(kind=MessageKind.TGS_REP)) is None
    made_up = message(MessageKind.TGS_REQ, ticket_sname=name("alice"))
    assert site.pass_on(made_up, NO_SERVICE) is Rule.SPRAYING


def test_client_may_log_on_when_its_block_ends(site: Site) -> None:
    for number in range(20):
        site.send(f"user{number}", WRONG)
    site.now += 60.0
    assert [site.send(f"user{number}", GOOD) for number in range(20)] == [None] * 20


def test_requests_in_flight_when_a_block_begins_do_not_prolong_it(site: Site) -> None:
    events: list[Alert | Blocked] = []
    for number in range(100):
        request = message(MessageKind.AS_REQ, name(f"user{number}"))
        events += site.gate.note(request, WRONG, client=ATTACKER, realm=REALM, now=site.now)
    assert events == [Blocked(rule=Rule.SPRAYING, client=ATTACKER, realm=REALM, principal=None, seconds=60.0)]


# Enumeration


def test_enumeration_is_blocked_by_its_rule(site: Site) -> None:
    answers = [site.send(f"guess{number}", UNKNOWN, padata=()) for number in range(500)]
    assert site.reached <= 20
    assert answers[-1] is Rule.ENUMERATION


def test_one_unknown_principal_counts_once(site: Site) -> None:
    assert [site.send("misconfigured", UNKNOWN) for _ in range(500)] == [None] * 500


def test_spray_and_enumeration_add_up(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number}", UNKNOWN if number % 2 else WRONG)
    assert site.reached <= 20


def test_unknown_names_have_a_limit_of_their_own() -> None:
    site = make_site(FailuresConfig(unknown_principals=1000))
    assert [site.send(f"machine{number}", UNKNOWN) for number in range(900)] == [None] * 900


@pytest.mark.parametrize("failure", [WRONG, UNKNOWN], ids=["spray", "enumeration"])
def test_two_log_ons_raise_the_limit_by_one_failure(failure: ReplyFacts) -> None:
    """An office of 200 has 15 + 100, as docs/guard.md says."""
    for logged_on, allowed in ((0, 15), (1, 15), (2, 16), (200, 115)):
        site = make_site(FailuresConfig())
        for number in range(logged_on):
            site.send(f"colleague{number}", GOOD)
        before = site.reached
        for number in range(500):
            site.send(f"user{number}", failure)
        # The first try over the limit is noticed by its reply.
        assert site.reached - before == allowed + 1


def test_unknown_services_are_enumeration_too(site: Site) -> None:
    for number in range(100):
        request = message(MessageKind.AS_REQ, name("krbtgt/EXAMPLE.COM"), sname=name(f"guess{number}"))
        site.pass_on(request, NO_SERVICE)
    assert site.reached <= 20


def test_unknown_clients_and_services_add_up(site: Site) -> None:
    for number in range(20):
        site.send(f"guess{number}", UNKNOWN, padata=())
        request = message(MessageKind.AS_REQ, name("kadmin/changepw"), sname=name(f"service{number}"))
        site.pass_on(request, NO_SERVICE)
    assert site.reached <= 20


def test_one_unknown_service_counts_once(site: Site) -> None:
    request = message(MessageKind.AS_REQ, name("alice"), sname=name("HTTP/old"))
    assert [site.pass_on(request, NO_SERVICE) for _ in range(100)] == [None] * 100


def test_unknown_services_of_made_up_tickets_are_enumeration(site: Site) -> None:
    for number in range(100):
        request = message(MessageKind.TGS_REQ, sname=name("HTTP/web"), ticket_sname=name(f"guess{number}"))
        site.pass_on(request, NO_SERVICE)
    assert site.reached <= 20


def test_guesses_by_made_up_tickets_block_the_name_of_their_service(site: Site) -> None:
    request = message(MessageKind.TGS_REQ, name("constant"), ticket_sname=name("alice"))
    assert [site.pass_on(request, INTEGRITY) for _ in range(12)] == [None] * 10 + [Rule.GUESSING] * 2
    assert site.send("alice", GOOD) is Rule.GUESSING
    assert site.pass_on(TGS_REQ, INTEGRITY) is None


def test_spray_by_made_up_tickets_is_blocked(site: Site) -> None:
    for number in range(100):
        site.pass_on(message(MessageKind.TGS_REQ, ticket_sname=name(f"user{number}")), INTEGRITY)
    assert site.reached <= 20


def test_guesses_by_tickets_in_the_armor_count_for_the_client(site: Site) -> None:
    for number in range(100):
        site.send_armored(f"user{number % 5}", INTEGRITY, outer=f"user{number % 5}")
    assert site.reached <= 20


def test_renewing_the_ticket_of_one_unknown_service_counts_once(site: Site) -> None:
    request = message(MessageKind.TGS_REQ, sname=name("HTTP/old"), ticket_sname=name("HTTP/old"))
    assert [site.pass_on(request, NO_SERVICE) for _ in range(100)] == [None] * 100


@pytest.mark.parametrize("sname", ["krbtgt/EXAMPLE.COM", "constant"])
@pytest.mark.parametrize("facts", [NO_SERVICE, NOT_US], ids=["heimdal", "mit"])
def test_unknown_services_of_tickets_in_the_armor_are_enumeration(
    site: Site, facts: ReplyFacts, sname: str
) -> None:
    request = message(MessageKind.AS_REQ, name("alice"), sname=name(sname), padata=(FAST,))
    for _ in range(100):
        site.pass_on(request, replace(facts, cname=name("alice"), sname=name(sname)))
    assert site.reached <= 20


# Names that FAST hides


OUTER_NAMES = (None, "alice", "constant", "WELLKNOWN/ANONYMOUS", "{}")
HIDDEN = "WELLKNOWN/ANONYMOUS"


@pytest.mark.parametrize("inner", ["alice", HIDDEN, None], ids=["named", "hidden", "nameless"])
@pytest.mark.parametrize("outer", OUTER_NAMES)
def test_guesses_at_one_principal_are_blocked_within_armor(
    site: Site, inner: str | None, outer: str | None
) -> None:
    for number in range(300):
        site.send_armored(inner, WRONG, outer=outer and outer.format(number))
    assert site.reached <= 20


@pytest.mark.parametrize("facts", [WRONG, INTEGRITY, UNKNOWN], ids=["spray", "heimdal", "enumeration"])
@pytest.mark.parametrize("inner", ["user{}", HIDDEN, None], ids=["named", "hidden", "nameless"])
@pytest.mark.parametrize("outer", OUTER_NAMES)
def test_spray_and_enumeration_are_blocked_within_armor(
    site: Site, facts: ReplyFacts, inner: str | None, outer: str | None
) -> None:
    for number in range(300):
        site.send_armored(inner and inner.format(number), facts, outer=outer and outer.format(number))
    assert site.reached <= 20


def test_change_from_the_true_name_to_another_name_gains_no_guesses(site: Site) -> None:
    for number in range(300):
        site.send_armored("alice", WRONG, outer="alice" if number < 10 else f"other{number}")
    assert site.reached <= 20


def test_unknown_services_count_within_armor(site: Site) -> None:
    for number in range(100):
        request = message(MessageKind.AS_REQ, sname=name("krbtgt/EXAMPLE.COM"), padata=(FAST,))
        site.pass_on(request, replace(NO_SERVICE, cname=name("lax"), sname=name(f"user{number}")))
    assert site.reached <= 20


def test_guesses_within_armor_block_the_name_in_the_reply(site: Site) -> None:
    for _ in range(10):
        site.send_armored("alice", WRONG)
    assert site.send("alice", GOOD) is Rule.GUESSING
    assert site.send("bob", GOOD) is None


def test_armored_departures_count_for_the_client(site: Site) -> None:
    answers = [site.leave("alice", padata=(FAST,)) for _ in range(20)]
    assert answers == [None] * 16 + [Rule.SPRAYING] * 4


@pytest.mark.parametrize("is_named", [True, False], ids=["named", "nameless"])
def test_office_of_500_with_armor_logs_on(site: Site, is_named: bool) -> None:
    """The KDC's errors name the client, or no client (Active Directory). 50 users mistype once or twice."""
    answers = []
    for user, facts in people(500, SEED):
        answers.append(site.send_armored(user if is_named else None, DEMAND, outer=user, client=OFFICE))
        named = user if is_named or facts is GOOD else None
        answers.append(site.send_armored(named, facts, outer=user, client=OFFICE))
    assert set(answers) == {None}
    assert site.events == []


# Log-ons that raise the limit


def spray(site: Site) -> int:
    """Run a spray, and return the number of its tries."""
    before = site.reached
    for number in range(500):
        site.send(f"victim{number}", WRONG)
    return site.reached - before


@pytest.mark.parametrize("padata", [11, 12, 13, 14, 15, 16, 30, 31, 99, 128, 133, 138, 141, 144, 151, 161])
def test_padata_that_a_kdc_ignores_does_not_raise_the_limit(site: Site, padata: int) -> None:
    for number in range(40):
        site.send(f"lax{number}", GOOD, padata=(padata,))
    assert spray(site) == 16


def test_tickets_within_armor_raise_the_limit_only_after_a_demand(site: Site) -> None:
    for number in range(40):
        site.send_armored(f"lax{number}", GOOD)
    assert spray(site) == 16


@pytest.mark.parametrize("sname", [None, PrincipalName(name_type=0, components=())], ids=["mit", "samba"])
def test_demands_with_hidden_names_do_not_raise_the_limit(site: Site, sname: PrincipalName | None) -> None:
    """The request is for a principal that needs a proof, and shows the name of a principal that does not."""
    named = None if sname else name(HIDDEN)
    for number in range(40):
        request = message(MessageKind.AS_REQ, name(f"lax{number}"), padata=(FAST,))
        site.pass_on(request, replace(DEMAND, cname=named, sname=sname))
        site.send_armored(f"lax{number}", GOOD, outer=f"lax{number}")
    assert spray(site) == 16


def test_demands_for_another_name_do_not_raise_the_limit(site: Site) -> None:
    for number in range(40):
        site.send_armored("alice", DEMAND, outer=f"lax{number}")
        site.send_armored(f"lax{number}", GOOD, outer=f"lax{number}")
    assert spray(site) == 16


@pytest.mark.parametrize("padata", [(SPAKE,), (FAST,)], ids=["spake", "fast"])
def test_log_ons_after_a_demand_raise_the_limit(site: Site, padata: tuple[int, ...]) -> None:
    for number in range(40):
        first = (FAST,) if padata == (FAST,) else ()
        demand = replace(DEMAND, cname=name(f"user{number}"), offers_spake=padata == (SPAKE,))
        site.send(f"user{number}", demand, padata=first)
        site.send(f"user{number}", GOOD, padata=padata)
    assert spray(site) == 36


def test_pkinit_that_the_kdc_answers_raises_the_limit(site: Site) -> None:
    for number in range(40):
        site.send(f"user{number}", replace(GOOD, padata_types=(PKINIT_REPLY,)), padata=(PKINIT,))
    assert spray(site) == 36


def test_anonymous_log_ons_do_not_raise_the_limit(site: Site) -> None:
    anonymous = replace(GOOD, cname=name(HIDDEN), padata_types=(PKINIT_REPLY,))
    for _ in range(40):
        site.send("WELLKNOWN/ANONYMOUS", anonymous, padata=(PKINIT,))
    assert spray(site) == 16


# Realms


def test_log_ons_in_one_realm_do_not_raise_the_limit_of_another_realm(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number}", GOOD, realm="HOSTILE.TEST")
    assert spray(site) == 16


@pytest.mark.parametrize("kind", [MessageKind.AS_REQ, MessageKind.KPASSWD_REQ])
def test_failures_in_one_realm_block_no_client_in_another_realm(site: Site, kind: MessageKind) -> None:
    for number in range(100):
        site.send(f"user{number % 50}", WRONG, kind=kind, realm="HOSTILE.TEST")
    assert site.send("user1", GOOD, kind=kind, realm="HOSTILE.TEST") is not None
    assert site.send("user1", GOOD, kind=kind) is None


# Wider networks


def ipv6(number: int, site_number: int = 1) -> str:
    return f"2001:db8:{site_number:x}:{number:x}::/64"


@pytest.mark.parametrize(
    ("networks", "limit"),
    [
        ([ipv6(number) for number in range(40)], 20),
        ([ipv6(number << 8) for number in range(40)], 40),
        ([f"198.51.100.{number}" for number in range(40)], 40),
    ],
    ids=["/56", "/48", "/24"],
)
def test_guesses_from_many_networks_of_one_site_add_up(site: Site, networks: list[str], limit: int) -> None:
    for _ in range(9):
        for network in networks:
            site.send("alice", WRONG, client=network)
    assert site.reached == limit
    # The site is blocked for one principal, and no network of the site is blocked as a whole.
    neighbour = networks[-1]
    assert site.send("alice", GOOD, client=neighbour) is Rule.GUESSING
    assert site.send("bob", GOOD, client=neighbour) is None
    assert site.send("alice", GOOD, client=ipv6(0, 2)) is None
    assert site.send("alice", GOOD, client=OFFICE) is None


@pytest.mark.parametrize("outer", [None, "constant", "other{}"])
@pytest.mark.parametrize(
    ("networks", "limit"),
    [
        ([ipv6(number) for number in range(40)], 20),
        ([ipv6(number << 8) for number in range(40)], 40),
        ([f"198.51.100.{number}" for number in range(40)], 40),
    ],
    ids=["/56", "/48", "/24"],
)
def test_armored_guesses_past_the_block_of_a_site_block_each_client(
    site: Site, networks: list[str], limit: int, outer: str | None
) -> None:
    for number in range(9):
        for network in networks:
            site.send_armored("alice", WRONG, outer=outer and outer.format(number), client=network)
    assert limit < site.reached <= max(limit, len(networks)) + len(networks)
    assert site.send("bob", GOOD, client=OFFICE) is None


def test_carrier_with_attackers_is_never_blocked_as_a_whole(site: Site) -> None:
    for number in range(1000):
        site.send(f"victim{number}", WRONG, client=ipv6(number))
        site.send(f"guess{number}", UNKNOWN, client=ipv6(number))
    assert [site.send(f"user{number}", GOOD, client=ipv6(number)) for number in range(1000)] == [None] * 1000


def test_neighbour_of_a_guesser_is_not_blocked_for_one_failure(site: Site) -> None:
    for number in range(40):
        site.send("alice", WRONG, client=ipv6(number << 8))
    site.send_armored("alice", WRONG, client=ipv6(0xFFFF))
    assert site.send("bob", GOOD, client=ipv6(0xFFFF)) is None


# Password changes


def test_failed_password_changes_block_password_changes_and_no_log_on(site: Site) -> None:
    answers = [site.send("", GENERIC, kind=MessageKind.KPASSWD_REQ) for _ in range(22)]
    assert answers == [None] * 20 + [Rule.KPASSWD_FAILURES] * 2
    assert site.send("alice", GOOD) is None
    assert site.send("", CHANGED, kind=MessageKind.KPASSWD_REQ, client=OFFICE) is None


@pytest.mark.parametrize("facts", [CHANGED, BUSY])
def test_password_changes_that_succeed_or_meet_a_busy_server_do_not_count(
    site: Site, facts: ReplyFacts
) -> None:
    assert [site.send("", facts, kind=MessageKind.KPASSWD_REQ) for _ in range(50)] == [None] * 50


# Many clients, one principal


def test_principal_that_fails_from_many_clients_is_reported_once_and_never_blocked(site: Site) -> None:
    for number in range(100):
        for _ in range(3):
            assert site.send("alice", WRONG, client=f"203.0.{number}.7") is None
    assert site.events == [Alert(realm=REALM, principal="alice", clients=5)]
    assert site.send("alice", GOOD, client=OFFICE) is None


def test_one_client_that_fails_often_is_no_alert(site: Site) -> None:
    for _ in range(9):
        site.send("alice", WRONG)
    assert site.events == []


# State


def test_workers_and_generations_share_the_counts() -> None:
    memory = make_area(entries_bytes(65536))
    sites = [Site(FailureGate(FailuresConfig(), SharedTable(memory))) for _ in range(4)]
    for number in range(500):
        sites[number % 4].send(f"user{number}", WRONG)
    assert sum(site.reached for site in sites) <= 20
    late = Site(FailureGate(FailuresConfig(), SharedTable(memory)), now=sites[0].now)
    assert late.send("alice", GOOD) is Rule.SPRAYING


def test_errors_on_tgs_requests_do_not_count(site: Site) -> None:
    for facts in (WRONG, UNKNOWN, ReplyFacts(kind=MessageKind.TGS_REP)):
        for _ in range(50):
            assert site.gate.note(TGS_REQ, facts, client=OFFICE, realm=REALM, now=1.0) == ()
    assert site.gate.check(KPASSWD_REQ, client=OFFICE, realm=REALM, now=1.0) is None
