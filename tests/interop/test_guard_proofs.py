"""Checks the guard's assumptions with real KDCs: MIT's, Heimdal's, and Samba's for Active Directory.

Each realm has a `user` that needs preauthentication, a `lax` one that does not, and an armorer. Heimdal's and
Samba's KDCs require a proof of all three.
"""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.guard.subject import find_subject, hides_names
from kkdcpd.guard.traits import proves_client
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.protocol.principals import fold_principal
from kkdcpd.values import MessageKind, PrincipalName, ProxyMessage, ReplyFacts
from lab.armor import Armor
from lab.client import KerberosClient, RealmServers
from lab.heimdal import HeimdalRealm
from lab.realm import MitRealm
from lab.samba import SambaDomain
from tests.interop.conftest import AD_FLAT_NAME, AD_GUESSED_USERS, AD_PASSWORD, AD_REALM, PASSWORD, REALM
from tests.support import messages

HEIMDAL_REALM = "HD.TEST"
ALWAYS_DEMANDING = {HEIMDAL_REALM, AD_REALM}
REQUIRED = KrbErrorCode.KDC_ERR_PREAUTH_REQUIRED
FAILED = {KrbErrorCode.KDC_ERR_PREAUTH_FAILED, KrbErrorCode.KRB_AP_ERR_BAD_INTEGRITY}
UNKNOWN = KrbErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN
NO_SERVICE = KrbErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN

WRONG_TIMESTAMP = bytes.fromhex("3041a003020112a23a0438") + bytes(56)
SHAPES = (WRONG_TIMESTAMP, b"\x30\x00", b"junk")
IGNORED = (11, 12, 13, 14, 15, 16, 30, 31, 99, 128, 133, 141, 144, 151, 161)
"""Padata that MIT's KDC ignores in its default configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kdc:
    """A KDC, its realm's name, its users, and armor from one of its tickets."""

    realm: str
    place: tuple[str, int]
    armor: Armor
    user: str
    lax: str

    def ask(self, payload: bytes) -> ReplyFacts:
        """Send an AS-REQ by TCP."""
        with socket.create_connection(self.place, 10) as sock, sock.makefile("rwb") as stream:
            stream.write(messages.prefixed(payload))
            stream.flush()
            length = int.from_bytes(stream.read(4), "big")
            return inspect_reply(MessageKind.AS_REQ, stream.read(length))

    def as_req(self, cname: messages.Name | str | None, **fields: Any) -> bytes:
        name = (1, cname.split("/")) if isinstance(cname, str) else cname
        return messages.as_req(realm=self.realm, cname=name, **fields)


KdcMaker = Callable[[str], Kdc]


@pytest.fixture(scope="module")
def heimdal(tmp_path_factory: pytest.TempPathFactory, heimdal_root: Path) -> Iterator[HeimdalRealm]:
    users = dict.fromkeys(("alice", "lax", "bob"), PASSWORD)
    with HeimdalRealm(
        tmp_path_factory.mktemp("heimdal-realm"), heimdal_root, name=HEIMDAL_REALM, users=users
    ) as running:
        yield running


@pytest.fixture(scope="module", params=["mit", "heimdal", "samba"])
def kdc(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kdc:
    directory = tmp_path_factory.mktemp("armor")
    if request.param == "mit":
        realm: MitRealm = request.getfixturevalue("guarded")
        return _kdc(directory, REALM, realm.kdc.endpoints[0], ("alice", "lax", "bob"), PASSWORD)
    if request.param == "heimdal":
        other: HeimdalRealm = request.getfixturevalue("heimdal")
        return _kdc(directory, HEIMDAL_REALM, other.endpoint, ("alice", "lax", "bob"), PASSWORD)
    domain: SambaDomain = request.getfixturevalue("domain")
    return _kdc(directory, AD_REALM, f"{domain.address}:88", AD_GUESSED_USERS, AD_PASSWORD)


def _kdc(directory: Path, realm: str, endpoint: str, users: tuple[str, str, str], password: str) -> Kdc:
    user, lax, armorer = users
    client = KerberosClient(directory, {realm: RealmServers(kdc=(endpoint,))})
    client.kinit(armorer, password).expect_ok()
    host, _, port = endpoint.rpartition(":")
    armor = Armor(client.credential_cache, realm)
    return Kdc(realm=realm, place=(host, int(port)), armor=armor, user=user, lax=lax)


# Proofs


def test_wrong_timestamps_are_errors_even_if_no_proof_is_needed(kdc: Kdc) -> None:
    for user in (kdc.user, kdc.lax):
        for value in SHAPES:
            facts = kdc.ask(kdc.as_req(user, padata=[(messages.PA_ENC_TIMESTAMP, value)]))
            assert facts.error_code in FAILED


def test_proofs_that_the_kdc_ignores_prove_nothing(kdc: Kdc) -> None:
    tickets = []
    for kind in IGNORED:
        payload = kdc.as_req(kdc.lax, padata=[(kind, b"junk")])
        request = classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain=kdc.realm))
        facts = kdc.ask(payload)
        if facts.kind is MessageKind.AS_REP:
            tickets.append(kind)
            assert not proves_client(request, facts)
    assert {12, 13, 30, 31, 151} <= set(tickets) or kdc.realm in ALWAYS_DEMANDING
    assert not tickets or kdc.realm not in ALWAYS_DEMANDING


def test_no_proof_is_demanded_of_a_principal_that_needs_none(kdc: Kdc) -> None:
    if kdc.realm in ALWAYS_DEMANDING:
        assert kdc.ask(kdc.as_req(kdc.lax)).error_code == REQUIRED
        return
    request = kdc.as_req(kdc.lax)
    for payload in (request, kdc.armor.hide(request, request), kdc.armor.hide(request, kdc.as_req(None))):
        facts = kdc.ask(payload)
        assert (facts.kind, str(facts.cname)) == (MessageKind.AS_REP, kdc.lax)


# Names within armor


@pytest.mark.parametrize("outer", [None, "constant"])
def test_kdc_names_the_true_client_in_errors_to_armored_requests(kdc: Kdc, outer: str | None) -> None:
    shown = kdc.as_req(outer)
    request = kdc.as_req(kdc.user)
    unknown = kdc.as_req("unknown")
    cases = {
        kdc.armor.hide(request, shown): ({REQUIRED}, kdc.user),
        kdc.armor.hide(request, shown, proof=(kdc.user, "wrong")): (FAILED, kdc.user),
        kdc.armor.hide(unknown, shown): ({UNKNOWN}, "unknown"),
    }
    for payload, (codes, name) in cases.items():
        asked = classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain=kdc.realm))
        facts = kdc.ask(payload)
        assert facts.error_code in codes
        assert find_subject(asked, facts).name == name
        assert not find_subject(asked, facts).is_shown


def test_unknown_service_is_named_within_armor(kdc: Kdc) -> None:
    inner = kdc.as_req(kdc.lax, sname=(1, ("nothing",)))
    payload = kdc.armor.hide(inner, kdc.as_req(None))
    asked = classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain=kdc.realm))
    facts = kdc.ask(payload)
    assert facts.error_code == NO_SERVICE
    assert find_subject(asked, facts).name == "nothing"


def test_kdc_that_hides_names_shows_the_anonymous_name(kdc: Kdc) -> None:
    """Heimdal 7.8 ignores the option, and names the client."""
    request = kdc.as_req(kdc.user)
    facts = kdc.ask(kdc.armor.hide(request, request, hides_names=True))
    assert facts.error_code == REQUIRED
    assert hides_names(facts) is (kdc.realm != HEIMDAL_REALM)
    assert hides_names(facts) or str(facts.cname) == kdc.user


# Spellings


def spellings(user: str, realm: str) -> list[PrincipalName]:
    texts = (
        *(user.upper(), f"{user}\0", f" {user}", f"{user} ", f"{user}.", f"{user}$", f"{user}\t"),
        *(f"{user}@{realm}", f"{user}@{realm.lower()}", f"{user}@{AD_FLAT_NAME}", f"{user}@"),
        *(f"{AD_FLAT_NAME}\\{user}", f"{user}@{realm}.", f"{user}\u200b", f"{user}\u00ad"),
        *(user.replace("a", letter, 1) for letter in "á\uff41\u0430ªA"),
        *(user.replace("i", letter, 1) for letter in "ıİí"),
        *(user.replace("n", letter, 1) for letter in "ñＮ"),
    )
    kinds = (0, 1, 2, 3, 10, -128)
    return [PrincipalName(name_type=kind, components=(text,)) for text in texts for kind in kinds]


def test_spellings_that_the_kdc_takes_as_one_fold_to_one(kdc: Kdc) -> None:
    plain = fold_principal(PrincipalName(name_type=1, components=(kdc.user,)))
    taken = [
        name
        for name in spellings(kdc.user, kdc.realm)
        if kdc.ask(kdc.as_req((name.name_type, name.components))).error_code == REQUIRED
    ]
    assert {repr(name) for name in taken if fold_principal(name) != plain} == set()
    assert len(taken) > 1
