"""Failed log-ons and their consequences: attackers and the people around them, with the defaults."""

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
        padata: tuple[int, ...] = (ENC_TIMESTAMP,),
        realm: str = REALM,
    ) -> Rule | None:
        """One request to the KDC, which replies with these facts; or the rule that refuses it."""
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
        """One request with FAST that shows the name `outer`; the KDC's reply names `inner`."""
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
        """One request that passes, whose client doesn't wait for the reply; or the rule that refuses it."""
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
        assert site.leave(f"user{number}", padata=()) is None
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


@pytest.mark.parametrize("code", sorted(set(KrbErrorCode) - {6, 7, 18, 24, 31}))
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
        site.send(f"roasted{number}", GOOD, padata=())
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
        events += site.gate.note(request, WRONG, client=ATTACKER, realm=REALM, now=site.now)
    assert events == [Blocked(rule=Rule.SPRAYING, client=ATTACKER, realm=REALM, principal=None, seconds=60.0)]


# Enumeration


def test_enumeration_is_stopped_and_named(site: Site) -> None:
    answers = [site.send(f"guess{number}", UNKNOWN, padata=()) for number in range(500)]
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


def test_services_that_the_kdc_does_not_know_are_enumeration_too(site: Site) -> None:
    for number in range(100):
        request = message(MessageKind.AS_REQ, name("krbtgt/EXAMPLE.COM"), sname=name(f"guess{number}"))
        site.pass_on(request, NO_SERVICE)
    assert site.reached <= 20


def test_clients_and_services_that_the_kdc_does_not_know_add_up(site: Site) -> None:
    for number in range(20):
        site.send(f"guess{number}", UNKNOWN, padata=())
        request = message(MessageKind.AS_REQ, name("kadmin/changepw"), sname=name(f"service{number}"))
        site.pass_on(request, NO_SERVICE)
    assert site.reached <= 20


def test_one_unknown_service_may_be_asked_for_as_often_as_the_client_likes(site: Site) -> None:
    request = message(MessageKind.AS_REQ, name("alice"), sname=name("HTTP/old"))
    assert [site.pass_on(request, NO_SERVICE) for _ in range(100)] == [None] * 100


# Names that FAST hides


OUTER_NAMES = (None, "alice", "constant", "WELLKNOWN/ANONYMOUS", "{}")
HIDDEN = "WELLKNOWN/ANONYMOUS"


@pytest.mark.parametrize("inner", ["alice", HIDDEN, None], ids=["named", "hidden", "nameless"])
@pytest.mark.parametrize("outer", OUTER_NAMES)
def test_armor_hides_no_guesses_at_one_principal(site: Site, inner: str | None, outer: str | None) -> None:
    for number in range(300):
        site.send_armored(inner, WRONG, outer=outer and outer.format(number))
    assert site.reached <= 20


@pytest.mark.parametrize("facts", [WRONG, INTEGRITY, UNKNOWN], ids=["spray", "heimdal", "enumeration"])
@pytest.mark.parametrize("inner", ["user{}", HIDDEN, None], ids=["named", "hidden", "nameless"])
@pytest.mark.parametrize("outer", OUTER_NAMES)
def test_armor_hides_neither_spray_nor_enumeration(
    site: Site, facts: ReplyFacts, inner: str | None, outer: str | None
) -> None:
    for number in range(300):
        site.send_armored(inner and inner.format(number), facts, outer=outer and outer.format(number))
    assert site.reached <= 20


def test_changing_from_the_true_name_to_another_one_gains_nothing(site: Site) -> None:
    for number in range(300):
        site.send_armored("alice", WRONG, outer="alice" if number < 10 else f"other{number}")
    assert site.reached <= 20


def test_armor_hides_no_unknown_services(site: Site) -> None:
    for number in range(100):
        request = message(MessageKind.AS_REQ, sname=name("krbtgt/EXAMPLE.COM"), padata=(FAST,))
        site.pass_on(request, replace(NO_SERVICE, cname=name("lax"), sname=name(f"user{number}")))
    assert site.reached <= 20


def test_guesses_within_armor_block_the_name_that_the_kdc_tells(site: Site) -> None:
    for _ in range(10):
        site.send_armored("alice", WRONG)
    assert site.send("alice", GOOD) is Rule.GUESSING
    assert site.send("bob", GOOD) is None


def test_armored_departures_count_for_the_client(site: Site) -> None:
    answers = [site.leave("alice", padata=(FAST,)) for _ in range(20)]
    assert answers == [None] * 16 + [Rule.SPRAYING] * 4


@pytest.mark.parametrize("is_named", [True, False], ids=["named", "nameless"])
def test_office_of_500_with_armor_logs_on(site: Site, is_named: bool) -> None:
    """The KDC's errors name the client, or (Active Directory) nobody; 50 mistype once or twice."""
    answers = []
    for user, facts in people(500, SEED):
        answers.append(site.send_armored(user if is_named else None, DEMAND, outer=user, client=OFFICE))
        told = user if is_named or facts is GOOD else None
        answers.append(site.send_armored(told, facts, outer=user, client=OFFICE))
    assert set(answers) == {None}
    assert site.events == []


# What buys an allowance


def spray(site: Site) -> int:
    """Return how many tries a spray gets."""
    before = site.reached
    for number in range(500):
        site.send(f"victim{number}", WRONG)
    return site.reached - before


@pytest.mark.parametrize("padata", [11, 12, 13, 14, 15, 16, 30, 31, 99, 128, 133, 138, 141, 144, 151, 161])
def test_padata_that_a_kdc_ignores_buys_nothing(site: Site, padata: int) -> None:
    for number in range(40):
        site.send(f"lax{number}", GOOD, padata=(padata,))
    assert spray(site) == 16


def test_tickets_within_armor_buy_nothing_unless_a_proof_was_demanded(site: Site) -> None:
    for number in range(40):
        site.send_armored(f"lax{number}", GOOD)
    assert spray(site) == 16


@pytest.mark.parametrize("sname", [None, PrincipalName(name_type=0, components=())], ids=["mit", "samba"])
def test_demands_whose_names_are_hidden_buy_nothing(site: Site, sname: PrincipalName | None) -> None:
    """The request asks for a principal that needs a proof, and shows the name of one that doesn't."""
    told = None if sname else name(HIDDEN)
    for number in range(40):
        request = message(MessageKind.AS_REQ, name(f"lax{number}"), padata=(FAST,))
        site.pass_on(request, replace(DEMAND, cname=told, sname=sname))
        site.send_armored(f"lax{number}", GOOD, outer=f"lax{number}")
    assert spray(site) == 16


def test_demands_for_another_name_buy_nothing(site: Site) -> None:
    for number in range(40):
        site.send_armored("alice", DEMAND, outer=f"lax{number}")
        site.send_armored(f"lax{number}", GOOD, outer=f"lax{number}")
    assert spray(site) == 16


@pytest.mark.parametrize("padata", [(SPAKE,), (FAST,)], ids=["spake", "fast"])
def test_log_ons_after_a_demand_make_room(site: Site, padata: tuple[int, ...]) -> None:
    for number in range(40):
        first = (FAST,) if padata == (FAST,) else ()
        demand = replace(DEMAND, cname=name(f"user{number}"), offers_spake=padata == (SPAKE,))
        site.send(f"user{number}", demand, padata=first)
        site.send(f"user{number}", GOOD, padata=padata)
    assert spray(site) == 36


def test_pkinit_that_the_kdc_answers_makes_room(site: Site) -> None:
    for number in range(40):
        site.send(f"user{number}", replace(GOOD, padata_types=(PKINIT_REPLY,)), padata=(PKINIT,))
    assert spray(site) == 36


def test_anonymous_log_ons_make_no_room(site: Site) -> None:
    anonymous = replace(GOOD, cname=name(HIDDEN), padata_types=(PKINIT_REPLY,))
    for _ in range(40):
        site.send("WELLKNOWN/ANONYMOUS", anonymous, padata=(PKINIT,))
    assert spray(site) == 16


# Realms


def test_log_ons_in_one_realm_make_no_room_in_another(site: Site) -> None:
    for number in range(500):
        site.send(f"user{number}", GOOD, realm="HOSTILE.TEST")
    assert spray(site) == 16


@pytest.mark.parametrize("kind", [MessageKind.AS_REQ, MessageKind.KPASSWD_REQ])
def test_failures_in_one_realm_block_nobody_in_another(site: Site, kind: MessageKind) -> None:
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
    # A principal is blocked for the site, but no network of it as a whole.
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


def test_carrier_whose_customers_mistype_or_attack_is_never_blocked_as_a_whole(site: Site) -> None:
    for number in range(1000):
        site.send(f"victim{number}", WRONG, client=ipv6(number))
        site.send(f"guess{number}", UNKNOWN, client=ipv6(number))
    assert [site.send(f"user{number}", GOOD, client=ipv6(number)) for number in range(1000)] == [None] * 1000


def test_stranger_in_a_site_that_guesses_is_not_blocked_for_one_failure(site: Site) -> None:
    for number in range(40):
        site.send("alice", WRONG, client=ipv6(number << 8))
    site.send_armored("alice", WRONG, client=ipv6(0xFFFF))
    assert site.send("bob", GOOD, client=ipv6(0xFFFF)) is None


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
            assert site.send("alice", WRONG, client=f"203.0.{number}.7") is None
    assert site.events == [Alert(realm=REALM, principal="alice", clients=5)]
    assert site.send("alice", GOOD, client=OFFICE) is None


def test_one_client_that_fails_often_is_no_alert(site: Site) -> None:
    for _ in range(9):
        site.send("alice", WRONG)
    assert site.events == []


# State


def test_workers_and_generations_share_what_was_noted() -> None:
    memory = make_area(entries_bytes(65536))
    sites = [Site(FailureGate(FailuresConfig(), SharedTable(memory))) for _ in range(4)]
    for number in range(500):
        sites[number % 4].send(f"user{number}", WRONG)
    assert sum(site.reached for site in sites) <= 20
    late = Site(FailureGate(FailuresConfig(), SharedTable(memory)), now=sites[0].now)
    assert late.send("alice", GOOD) is Rule.SPRAYING


def test_tgs_replies_are_of_no_concern(site: Site) -> None:
    for facts in (WRONG, UNKNOWN, ReplyFacts(kind=MessageKind.TGS_REP)):
        for _ in range(50):
            assert site.gate.note(TGS_REQ, facts, client=OFFICE, realm=REALM, now=1.0) == ()
    assert site.gate.check(KPASSWD_REQ, client=OFFICE, realm=REALM, now=1.0) is None
