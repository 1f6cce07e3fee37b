"""The policy's rules, broken by MIT's clients where possible: refused in one kkdcpd, only logged in another.

For each form of refusal, the kkdcpd `strict` enforces all rules that no ordinary client breaks, and the
kkdcpd `lenient` has all rules on monitor.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lab.client import KerberosClient
from lab.program import Completed
from lab.realm import MitRealm
from tests.interop.conftest import HOST, PASSWORD, REALM, SERVICE, FrontMaker, Site, Witness
from tests.support import messages

FORMS = ("http", "krb_error")
RULES = (
    "kpasswd_set",
    "realm_mismatch",
    "require_armor",
    "weak_etypes",
    "unproven_ticket",
    "initial_service",
    "many_services",
    "s4u2self",
    "s4u2proxy",
    "message_kind",
    "cname",
    "sname",
)
LISTS = """
    cname_deny = ["*/admin"]
    sname_allow = ["HTTP/*.kk.test", "kadmin/changepw"]
    sname_deny = ["HTTP/4.*"]
"""
RC4 = ("permitted_enctypes = arcfour-hmac", "allow_weak_crypto = true")
TOO_MANY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The clients' messages after a refusal by HTTP, without another proxy, and in Kerberos."""

    http: str = "Cannot contact any KDC"
    krb_error: str = "KDC policy rejects request"

    def by(self, form: str) -> str:
        return self.http if form == "http" else self.krb_error


SAID = Said()
# The text is the guard's text for the rule.
KPASSWD_SAID = Said(
    http="Cannot contact any KDC", krb_error="This proxy does not relay requests of this kind"
)


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="module")
def strict(guarded: MitRealm, make_lasting_front: FrontMaker, form: str) -> Site:
    """All rules are enforced that ordinary clients keep."""
    return make_lasting_front(
        guarded,
        sections=f"""
            [guard]
            refusal = "{form}"
            [policy]
            kpasswd_set = "enforce"
            weak_etypes = "enforce"
            unproven_ticket = "enforce"
            initial_service = "enforce"
            s4u2self = "enforce"
            s4u2proxy = "enforce"
            realm_mismatch = "enforce"
            {LISTS}
        """,
    )


@pytest.fixture(scope="module")
def lenient(guarded: MitRealm, make_lasting_front: FrontMaker) -> Site:
    """All rules are on monitor."""
    modes = "\n".join(f'{rule} = "monitor"' for rule in RULES)
    lists = f'message_kinds = ["as_req", "tgs_req"]\n{LISTS}'
    return make_lasting_front(guarded, sections=f"[policy]\nservices = {TOO_MANY}\n{lists}\n{modes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A command of a client against a rule. `first` is an allowed command that it needs before."""

    rule: str
    do: Callable[[Site, KerberosClient], Completed]
    first: Callable[[Site, KerberosClient], Completed] | None = None
    libdefaults: tuple[str, ...] = ()
    kind: str = "AS_REQ"


def log_in(user: str, *options: str) -> Callable[[Site, KerberosClient], Completed]:
    return lambda _site, client: client.kinit(user, PASSWORD, *options)


def log_in_by_keytab(principal: str) -> Callable[[Site, KerberosClient], Completed]:
    return lambda site, client: client.run("kinit", "-k", "-t", keytab(site), principal)


def get(service: str, *options: str) -> Callable[[Site, KerberosClient], Completed]:
    return lambda _site, client: client.kvno(service, *options)


def keytab(site: Site) -> str:
    return str(site.realm.directory / "keytab")


def pkinit(realm: MitRealm) -> tuple[str, ...]:
    """Options of a client for anonymous PKINIT."""
    return (
        f"pkinit_anchors = FILE:{realm.directory / 'pkinit' / 'ca.pem'}",
        "pkinit_kdc_hostname = kdc.kk.test",
        "pkinit_eku_checking = kpServerAuth",
    )


def is_broken(line: dict[str, str], rule: str) -> bool:
    return rule in line.get("monitored", "").split(",")


UNPROVEN = Act(rule="unproven_ticket", do=log_in("lax"))
ACTS = (
    Act(rule="initial_service", do=log_in("alice", "-S", SERVICE)),
    Act(rule="weak_etypes", do=log_in("old"), libdefaults=RC4),
    UNPROVEN,
    Act(
        rule="s4u2self",
        first=log_in_by_keytab(SERVICE),
        do=get(SERVICE, "-U", "alice"),
        kind="TGS_REQ",
    ),
)
# MIT's database does not have this name.
ENTERPRISE = Act(rule="cname", do=log_in("Alice/ADMIN@KK.TEST", "-E"))
LISTED = (
    Act(rule="cname", do=log_in("alice/admin")),
    Act(rule="sname", first=log_in("alice"), do=get("HTTP/4.kk.test"), kind="TGS_REQ"),
    Act(rule="sname", first=log_in("alice"), do=get(HOST), kind="TGS_REQ"),
    Act(rule="sname", do=log_in("alice", "-S", HOST)),
)


@pytest.mark.parametrize("act", [*ACTS, *LISTED, ENTERPRISE], ids=lambda act: act.rule)
def test_what_is_enforced_is_refused_and_the_client_says_so(strict: Site, form: str, act: Act) -> None:
    client = strict.clients(libdefaults=act.libdefaults)
    if act.first:
        act.first(strict, client).expect_ok()
    before = strict.mark()
    witness = Witness(strict.realm)
    done = act.do(strict, client)
    assert not done.is_ok
    assert SAID.by(form) in done.output
    lines = strict.all_exchanges(before)
    refused = [line for line in lines if line["outcome"] == "refused"]
    assert {(line["rule"], line["kind"]) for line in refused} == {(act.rule, act.kind)}
    assert {line["status"] for line in refused} == {"403" if form == "http" else "200"}
    assert len(witness.seen()) == len([line for line in lines if "reply" in line])
    if act is not UNPROVEN:
        # kkdcpd does not forward a request that breaks a rule visibly.
        assert not [line for line in refused if "kdc" in line]


@pytest.mark.parametrize("act", [*ACTS, *LISTED], ids=lambda act: act.rule)
def test_request_against_a_monitored_rule_passes_and_is_logged(lenient: Site, act: Act) -> None:
    client = lenient.clients(libdefaults=act.libdefaults)
    if act.first:
        act.first(lenient, client).expect_ok()
    before = lenient.mark()
    act.do(lenient, client).expect_ok()
    lines = lenient.all_exchanges(before)
    assert {line["outcome"] for line in lines} == {"answered"}
    assert {line["kind"] for line in lines if is_broken(line, act.rule)} == {act.kind}
    assert not any("rule" in line for line in lines)


def test_withheld_reply_is_logged(strict: Site) -> None:
    before = strict.mark()
    strict.clients().kinit("lax", PASSWORD)
    line = strict.all_exchanges(before)[0]
    assert (line["reply"], line["rule"]) == ("AS_REP", "unproven_ticket")
    assert line["detail"] == "a ticket for lax without preauthentication"


def test_constrained_delegation_is_refused_or_logged(strict: Site, lenient: Site) -> None:
    """MIT's database allows no delegation: the KDC refuses the requests that pass."""
    proxied = "-U", "alice", "-P"
    before = lenient.mark()
    client = lenient.clients()
    log_in_by_keytab(SERVICE)(lenient, client).expect_ok()
    assert "can't fulfill requested option" in client.kvno("HTTP/1.kk.test", *proxied).output
    logged = [line for line in lenient.all_exchanges(before) if is_broken(line, "s4u2proxy")]
    assert {(line["sname"], line["error_name"]) for line in logged} == {
        ("HTTP/1.kk.test", "KDC_ERR_BADOPTION"),
    }
    # The client got its ticket to itself elsewhere.
    before = strict.mark()
    request = messages.tgs_req(
        realm=REALM, options=b"\x40\x02\x00\x00", tickets=[(1, ("HTTP", "www.kk.test"))]
    )
    strict.ask(request)
    (line,) = strict.wait_for_exchanges(1, before)
    assert (line["outcome"], line["rule"]) == ("refused", "s4u2proxy")


def test_ordinary_clients_dont_notice_the_strict_rules(strict: Site) -> None:
    before = strict.mark()
    client = strict.clients()
    client.kinit("alice", PASSWORD, "-r", "1d").expect_ok()
    client.kvno(SERVICE).expect_ok()
    client.run("kinit", "-R").expect_ok()
    client.kpasswd("carol", PASSWORD, "battery staple").expect_ok()
    client.kpasswd("carol", "battery staple", PASSWORD).expect_ok()
    log_in_by_keytab(HOST)(strict, client).expect_ok()
    lines = strict.all_exchanges(before)
    assert {line["outcome"] for line in lines} == {"answered"}
    assert not any("monitored" in line for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Build a message that no client of MIT sends."""

    rule: str
    payload: bytes
    detail: str


BY_HAND = (
    Message(
        rule="realm_mismatch",
        payload=messages.as_req(realm="OTHER.TEST"),
        detail="requested KK.TEST, but the message names OTHER.TEST",
    ),
    Message(
        rule="realm_mismatch",
        payload=messages.tgs_req(realm="OTHER.TEST"),
        detail="requested KK.TEST, but the message names OTHER.TEST",
    ),
    Message(
        rule="realm_mismatch",
        payload=messages.kpasswd_req(realm="OTHER.TEST"),
        detail="requested KK.TEST, but the message names OTHER.TEST",
    ),
    Message(
        rule="kpasswd_set",
        payload=messages.kpasswd_req(realm=REALM, version=0xFF80),
        detail="kpasswd version 0xff80",
    ),
    Message(
        rule="weak_etypes",
        payload=messages.as_req(realm=REALM, etypes=(23, 3, 1)),
        detail="offers only etypes 23,3,1",
    ),
)


@pytest.mark.parametrize("message", BY_HAND, ids=lambda message: message.rule)
def test_message_against_a_rule_is_refused_before_it_reaches_a_kdc(
    strict: Site, form: str, message: Message
) -> None:
    before = strict.mark()
    witness = Witness(strict.realm)
    response = strict.ask(message.payload)
    (line,) = strict.wait_for_exchanges(1, before)
    assert (line["outcome"], line["rule"], line["detail"]) == ("refused", message.rule, message.detail)
    assert (witness.seen(), witness.password_changes()) == ([], [])
    if form == "http":
        assert response.status == 403
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
    else:
        assert (response.status, response.headers["content-type"]) == (200, "application/kerberos")


@pytest.mark.parametrize("message", BY_HAND, ids=lambda message: message.rule)
def test_message_against_a_rule_is_answered_in_monitor_mode(lenient: Site, message: Message) -> None:
    before = lenient.mark()
    assert lenient.ask(message.payload).status == 200
    (line,) = lenient.wait_for_exchanges(1, before)
    assert (line["outcome"], "kdc" in line) == ("answered", True)
    assert is_broken(line, message.rule)


@pytest.mark.parametrize("asked", ["KK.TEST", "kk.test", "KK.TEST.", "Short", "KK"])
def test_names_of_one_realm_agree(guarded: MitRealm, make_front: FrontMaker, asked: str) -> None:
    site = make_front(guarded, of_realm='aliases = ["SHORT", "KK"]')
    for inner in ("KK.TEST", "kk.test", "SHORT", "kk"):
        assert site.ask(messages.as_req(realm=inner), realm=asked).status == 200
    assert site.ask(messages.as_req(realm="KK.TEST.EVIL"), realm=asked).status == 403


# Armor


@pytest.fixture(scope="module")
def armored(guarded: MitRealm, make_lasting_front: FrontMaker, form: str) -> Site:
    return make_lasting_front(
        guarded,
        sections=f"""
            [guard]
            refusal = "{form}"
            [policy]
            require_armor = "enforce"
            cname_deny = ["*/admin"]
        """,
    )


def test_password_without_armor_is_refused(armored: Site, form: str) -> None:
    before = armored.mark()
    witness = Witness(armored.realm)
    refused = armored.clients().kinit("alice", PASSWORD)
    assert not refused.is_ok
    assert SAID.by(form) in refused.output
    lines = armored.all_exchanges(before)
    assert [line["outcome"] for line in lines[:2]] == ["answered", "refused"]
    assert {line.get("rule") for line in lines if line["outcome"] == "refused"} == {"require_armor"}
    # kkdcpd forwarded the first request, but not the proof.
    assert len(witness.seen()) == len([line for line in lines if line["outcome"] == "answered"])


def armor_of_the_host(site: Site) -> KerberosClient:
    client = site.clients()
    client.run("kinit", "-k", "-t", keytab(site), HOST).expect_ok()
    return client


def anonymous_armor(site: Site) -> KerberosClient:
    client = site.clients(libdefaults=pkinit(site.realm))
    client.run("kinit", "-n").expect_ok()
    assert "WELLKNOWN/ANONYMOUS" in client.klist().output
    return client


@pytest.mark.parametrize("get_armor", [armor_of_the_host, anonymous_armor])
def test_armor_is_obtained_and_used_through_the_same_proxy(
    armored: Site, get_armor: Callable[[Site], KerberosClient]
) -> None:
    before = armored.mark()
    armor = get_armor(armored).credential_cache
    user = armored.clients()
    user.kinit("alice", PASSWORD, "-T", armor).expect_ok()
    user.kvno(SERVICE).expect_ok()
    lines = armored.all_exchanges(before)
    assert {line["outcome"] for line in lines} == {"answered"}
    (login,) = [line for line in lines if (line["cname"], line["reply"]) == ("alice", "AS_REP")]
    assert login["armor"] == "fast"


def test_denied_principal_is_denied_in_armor_too(armored: Site, form: str) -> None:
    armor = armor_of_the_host(armored).credential_cache
    before = armored.mark()
    refused = armored.clients().kinit("alice/admin", PASSWORD, "-T", armor)
    assert not refused.is_ok
    assert SAID.by(form) in refused.output
    assert {(line["rule"], line.get("armor")) for line in armored.all_exchanges(before)} == {
        ("cname", "fast")
    }


def test_ticket_without_preauthentication_does_not_bypass_armor(armored: Site, form: str) -> None:
    before = armored.mark()
    refused = armored.clients().kinit("lax", PASSWORD)
    assert not refused.is_ok
    assert SAID.by(form) in refused.output
    line = armored.all_exchanges(before)[0]
    assert (line["rule"], line["reply"], line["monitored"]) == ("require_armor", "AS_REP", "unproven_ticket")


def test_password_without_armor_is_logged_in_monitor_mode(lenient: Site) -> None:
    before = lenient.mark()
    lenient.clients().kinit("alice", PASSWORD).expect_ok()
    assert [line.get("monitored") for line in lenient.all_exchanges(before)] == [None, "require_armor"]


# Kinds of messages


def test_password_changes_can_be_left_out(guarded: MitRealm, make_front: FrontMaker, form: str) -> None:
    site = make_front(
        guarded,
        sections=f"""
            [guard]
            refusal = "{form}"
            [policy]
            message_kinds = ["as_req", "tgs_req"]
        """,
    )
    witness = Witness(guarded)
    refused = site.clients().kpasswd("bob", PASSWORD, "battery staple")
    assert not refused.is_ok
    assert KPASSWD_SAID.by(form) in refused.output
    assert site.all_exchanges()[-1]["rule"] == "message_kind"
    assert witness.password_changes() == []
    client = site.clients()
    client.kinit("bob", PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()


def test_password_changes_pass_where_their_kind_is_monitored(lenient: Site) -> None:
    before = lenient.mark()
    client = lenient.clients()
    client.kpasswd("bob", PASSWORD, "battery staple").expect_ok()
    client.kpasswd("bob", "battery staple", PASSWORD).expect_ok()
    lines = lenient.all_exchanges(before)
    assert {line["kind"] for line in lines if is_broken(line, "message_kind")} == {"KPASSWD_REQ"}


# Many services


def test_many_services_are_refused_in_enforce_mode(
    guarded: MitRealm, make_front: FrontMaker, form: str
) -> None:
    site = make_front(
        guarded,
        sections=f"""
            [guard]
            refusal = "{form}"
            [policy]
            many_services = "enforce"
            services = {TOO_MANY}
        """,
    )
    client = site.clients()
    client.kinit("alice", PASSWORD).expect_ok()
    for number in range(TOO_MANY):
        client.kvno(f"HTTP/{number}.kk.test").expect_ok()
    before = site.mark()
    refused = client.kvno(f"HTTP/{TOO_MANY}.kk.test")
    assert not refused.is_ok
    assert SAID.by(form) in refused.output
    assert {line.get("rule") for line in site.all_exchanges(before)} == {"many_services"}
    # A log-on is not a request for a service.
    client.kinit("alice", PASSWORD).expect_ok()


def test_many_services_are_logged_in_monitor_mode(lenient: Site) -> None:
    client = lenient.clients()
    client.kinit("alice", PASSWORD).expect_ok()
    before = lenient.mark()
    for number in range(TOO_MANY + 1):
        client.kvno(f"HTTP/{number}.kk.test").expect_ok()
    assert is_broken(lenient.all_exchanges(before)[-1], "many_services")
