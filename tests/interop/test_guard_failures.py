"""Guessing of passwords and names through a real kkdcpd at a real KDC, beside other clients.

Attackers and offices have their own addresses (lab.forwarder), and the settings are the defaults.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from lab.client import KerberosClient
from lab.forwarder import Forwarder
from lab.program import Completed
from lab.realm import MitRealm, Principal
from tests.interop.conftest import PASSWORD, REALM, ForwarderMaker, FrontMaker, Site, Witness
from tests.support import messages
from tests.support.http_client import Response, post

ATTACKER = "127.0.0.66"
OFFICE = "127.0.0.200"
HOME = "127.0.0.7"

GUESSES = 10
SPRAYED = 15
UNKNOWN = 15
KPASSWD_FAILURES = 20
ALERT_CLIENTS = 5
BLOCK_SECONDS = 60

VICTIMS = tuple(f"victim{number}" for number in range(500))
COLLEAGUES = tuple(f"colleague{number}" for number in range(200))
# One in ten users mistypes.
MISTYPERS = frozenset(COLLEAGUES[5::10])
PARALLEL_CLIENTS = 4

WITHIN = 20
"""The number of tries that a spray may get."""

# EncryptedData of AES-256 that no key opens (RFC 4120 5.2.9).
_WRONG_PROOF = bytes.fromhex("3041a003020112a23a0438") + bytes(56)
KPASSWD_WITHOUT_TICKET = messages.kpasswd_req(realm=REALM)


def guess(principal: str) -> bytes:
    """Build an AS-REQ with a wrong proof, as a wrong password makes it."""
    return messages.as_req(
        realm=REALM, cname=(1, principal.split("/")), padata=[(messages.PA_ENC_TIMESTAMP, _WRONG_PROOF)]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A kkdcpd, and forwarders to it from other addresses."""

    site: Site
    forwarder: Forwarder

    def at(self, address: str) -> KerberosClient:
        """Return a client at an address."""
        return self.site.clients(f"https://127.0.0.1:{self.forwarder.port_of(address)}/KdcProxy")

    def log_in(self, user: str, address: str, password: str = PASSWORD) -> Completed:
        return self.at(address).kinit(user, password)

    def send_all(self, payloads: Sequence[bytes], address: str) -> list[Response]:
        """Send messages of this test one after the other over one connection."""
        with self.site.connect(self.forwarder.port_of(address)) as client:
            return [client.ask(post(messages.envelope(payload, REALM))) for payload in payloads]

    def lines_of(self, address: str, after: int = 0) -> list[dict[str, str]]:
        return [line for line in self.site.all_exchanges(after) if line["client"] == address]

    def warnings(self) -> list[str]:
        """Return the log lines of attacks without the time."""
        self.site.all_exchanges()
        lines = (line.partition(" ")[2] for line in self.site.daemon.lines)
        return [line for line in lines if line.startswith("warning ")]


PlaceMaker = Callable[..., Place]


@pytest.fixture
def make_place(guarded: MitRealm, make_front: FrontMaker, make_forwarder: ForwarderMaker) -> PlaceMaker:
    def make(realm: MitRealm = guarded, *, sections: str = "") -> Place:
        site = make_front(realm, sections=sections)
        return Place(site=site, forwarder=make_forwarder(site))

    return make


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    """A realm with many users.

    Users that log on have the same password. The others have random keys, which are faster to make.
    """
    with_password = {*COLLEAGUES, *VICTIMS[:WITHIN], VICTIMS[-1]}
    people = [
        Principal(
            name=name,
            password=PASSWORD if name in with_password else None,
            options=("+requires_preauth",),
        )
        for name in VICTIMS + COLLEAGUES
    ]
    with MitRealm(tmp_path_factory.mktemp("town"), name=REALM, principals=people) as realm:
        yield realm


# Guessing


def test_guesses_block_only_the_pair_of_client_and_principal(make_place: PlaceMaker) -> None:
    place = make_place()
    for _ in range(GUESSES):
        assert "Password incorrect" in place.log_in("alice", ATTACKER, "wrong").output
    witness = Witness(place.site.realm)
    for password in ("wrong", PASSWORD):
        assert "Cannot contact any KDC" in place.log_in("alice", ATTACKER, password).output
    assert witness.seen() == []
    refused = [line for line in place.lines_of(ATTACKER) if line["outcome"] == "refused"]
    assert {(line["rule"], line["status"], line["cname"]) for line in refused} == {
        ("guessing", "403", "alice")
    }
    place.log_in("bob", ATTACKER).expect_ok()
    place.log_in("alice", HOME).expect_ok()
    assert place.warnings() == [
        f"warning client_blocked rule=guessing client={ATTACKER} realm={REALM} seconds=60 cname=alice"
    ]


def test_refusal_says_in_http_when_to_come_again(make_place: PlaceMaker) -> None:
    place = make_place()
    *answered, refused = place.send_all([guess("alice")] * (GUESSES + 1), ATTACKER)
    assert {response.status for response in answered} == {200}
    assert refused.status == 403
    assert 0 < int(refused.headers["retry-after"]) <= BLOCK_SECONDS
    assert refused.body.startswith(
        b"Logging on with this name failed too often from your network; try again in "
    )


def test_refusal_as_krb_error_has_the_code_for_policy(make_place: PlaceMaker) -> None:
    place = make_place(sections='[guard]\nrefusal = "krb_error"')
    place.send_all([guess("alice")] * GUESSES, ATTACKER)
    assert "KDC policy rejects request" in place.log_in("alice", ATTACKER).output
    (line,) = place.lines_of(ATTACKER)[GUESSES:][:1]
    assert (line["outcome"], line["rule"], line["status"]) == ("refused", "guessing", "200")


# Spraying


def test_spray_is_stopped_while_an_office_and_the_attacked_log_in(
    make_place: PlaceMaker, town: MitRealm
) -> None:
    place = make_place(town)

    def arrive(colleague: str) -> list[Completed]:
        passwords = ["mistyped", PASSWORD] if colleague in MISTYPERS else [PASSWORD]
        return [place.log_in(colleague, OFFICE, password) for password in passwords]

    with ThreadPoolExecutor(PARALLEL_CLIENTS + 1) as threads:
        spray = threads.submit(place.send_all, [guess(victim) for victim in VICTIMS], ATTACKER)
        office = dict(zip(COLLEAGUES, threads.map(arrive, COLLEAGUES), strict=True))
        tries = [response.status for response in spray.result()]
    assert {name: logins[-1].output for name, logins in office.items() if not logins[-1].is_ok} == {}
    mistaken = [logins[0].output for logins in office.values() if len(logins) > 1]
    assert ["Password incorrect" in output for output in mistaken] == [True] * len(MISTYPERS)

    order = [line["client"] for line in place.site.all_exchanges()]
    assert order.index(OFFICE) < len(order) - order[::-1].index(ATTACKER), "they didn't come at the same time"
    reached = [line for line in place.lines_of(ATTACKER) if "kdc" in line]
    assert len(reached) <= WITHIN
    assert tries == [200] * len(reached) + [403] * (len(VICTIMS) - len(reached))
    assert {line["error_name"] for line in reached} == {"KDC_ERR_PREAUTH_FAILED"}
    refused = [line for line in place.lines_of(ATTACKER) if "kdc" not in line]
    assert {(line["outcome"], line["rule"]) for line in refused} == {("refused", "spraying")}
    assert place.warnings() == [
        f"warning client_blocked rule=spraying client={ATTACKER} realm={REALM} seconds=60"
    ]

    attacked = [line["cname"] for line in reached]
    for number, victim in enumerate(attacked, 1):
        place.log_in(victim, f"127.0.1.{number}").expect_ok()
    # The attacker knows one right password, and gains nothing by it.
    assert "Cannot contact any KDC" in place.log_in(VICTIMS[-1], ATTACKER).output


def test_spray_by_kinit_ends_as_soon(make_place: PlaceMaker, town: MitRealm) -> None:
    place = make_place(town)
    victims = VICTIMS[: SPRAYED + 3]
    said = [place.log_in(victim, ATTACKER, "Winter2026").output for victim in victims]
    assert ["Password incorrect" in output for output in said] == [True] * (SPRAYED + 1) + [False] * 2


def test_spray_in_parallel_gets_no_more_once_it_is_noticed(make_place: PlaceMaker, town: MitRealm) -> None:
    place = make_place(town)
    parts = [VICTIMS[number::PARALLEL_CLIENTS] for number in range(PARALLEL_CLIENTS)]
    with ThreadPoolExecutor(PARALLEL_CLIENTS) as threads:
        replies = list(threads.map(lambda part: place.send_all([*map(guess, part)], ATTACKER), parts))
    assert sum(response.status == 200 for response in itertools.chain(*replies)) <= WITHIN


# Enumeration


def test_enumeration_is_stopped_and_is_called_by_its_name(make_place: PlaceMaker) -> None:
    place = make_place()
    for number in range(3):
        assert "not found in Kerberos database" in place.log_in(f"unknown{number}", ATTACKER, "x").output
    asked = [messages.as_req(realm=REALM, cname=(1, [f"unknown{number}"])) for number in range(100)]
    answered = [response.status for response in place.send_all(asked, ATTACKER)].count(200)
    assert answered == UNKNOWN + 1
    assert "Cannot contact any KDC" in place.log_in("alice", ATTACKER).output
    assert {line.get("rule") for line in place.lines_of(ATTACKER)} == {None, "enumeration"}
    place.log_in("alice", HOME).expect_ok()


# Password changes


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("http", "Cannot contact any KDC"),
        ("krb_error", "Changing passwords failed too often from your network"),
    ],
)
def test_failing_password_changes_end_password_changes(
    make_place: PlaceMaker, guarded: MitRealm, form: str, said: str
) -> None:
    place = make_place(sections=f'[guard]\nrefusal = "{form}"')
    place.send_all([KPASSWD_WITHOUT_TICKET] * KPASSWD_FAILURES, ATTACKER)
    witness = Witness(guarded)
    refused = place.at(ATTACKER).kpasswd("carol", PASSWORD, "battery staple")
    assert not refused.is_ok
    assert said.lower() in refused.output.lower()
    assert witness.password_changes() == []
    rules = {line["rule"] for line in place.lines_of(ATTACKER) if line["outcome"] == "refused"}
    assert rules == {"kpasswd_failures"}
    place.log_in("carol", ATTACKER).expect_ok()
    place.at(HOME).kpasswd("carol", PASSWORD, "battery staple").expect_ok()
    place.at(HOME).kpasswd("carol", "battery staple", PASSWORD).expect_ok()


# Many clients, one principal


def test_principal_that_fails_from_many_addresses_is_logged_and_still_logs_in(make_place: PlaceMaker) -> None:
    place = make_place()
    for number in range(ALERT_CLIENTS + 2):
        place.send_all([guess("alice")] * 2, f"127.0.2.{number + 1}")
    place.log_in("alice", HOME).expect_ok()
    assert place.warnings() == [
        f"warning principal_under_attack realm={REALM} cname=alice clients={ALERT_CLIENTS}"
    ]


# Logged, but not refused


MONITORED = '[guard.failures]\nmode = "monitor"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Messages with one too many, and the expected log of the next message."""

    rule: str
    payloads: tuple[bytes, ...]


ATTACKS = (
    Attack(rule="guessing", payloads=(guess("alice"),) * GUESSES),
    Attack(rule="spraying", payloads=tuple(map(guess, VICTIMS[: SPRAYED + 1]))),
    Attack(
        rule="enumeration",
        payloads=tuple(
            messages.as_req(realm=REALM, cname=(1, [f"unknown{number}"])) for number in range(UNKNOWN + 1)
        ),
    ),
    Attack(rule="kpasswd_failures", payloads=(KPASSWD_WITHOUT_TICKET,) * KPASSWD_FAILURES),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.rule)
def test_attack_is_logged_and_passes_in_monitor_mode(
    make_place: PlaceMaker, guarded: MitRealm, town: MitRealm, attack: Attack
) -> None:
    place = make_place(town if attack.rule == "spraying" else guarded, sections=MONITORED)
    place.send_all(attack.payloads, ATTACKER)
    assert not [line for line in place.lines_of(ATTACKER) if "monitored" in line]
    if attack.rule == "kpasswd_failures":
        place.at(ATTACKER).kpasswd("bob", PASSWORD, PASSWORD)
    else:
        user = VICTIMS[0] if attack.rule == "spraying" else "alice"
        place.log_in(user, ATTACKER).expect_ok()
    lines = place.lines_of(ATTACKER)
    assert {line["outcome"] for line in lines} == {"answered"}
    assert lines[-1]["monitored"] == attack.rule
    place.log_in("alice" if attack.rule != "spraying" else VICTIMS[0], HOME).expect_ok()
    assert not [line for line in place.lines_of(HOME) if "monitored" in line]


def test_no_failure_is_counted_in_mode_off(make_place: PlaceMaker) -> None:
    place = make_place(sections='[guard.failures]\nmode = "off"')
    statuses = [response.status for response in place.send_all([guess("alice")] * 30, ATTACKER)]
    assert statuses == [200] * 30
    assert place.warnings() == []
    assert not [line for line in place.site.all_exchanges() if "monitored" in line]
