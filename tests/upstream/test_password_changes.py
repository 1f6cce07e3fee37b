"""Tests of the host that requests prefer after a password change."""

from typing import Any

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.protocol.messages import inspect_reply
from kkdcpd.shared_memory.areas import make_area
from kkdcpd.shared_memory.notes import Notes, notes_bytes
from kkdcpd.upstream.choice import host_mark
from kkdcpd.upstream.password_changes import TICKET_SECONDS, PasswordChanges
from kkdcpd.values import KdcReply
from tests.support import messages
from tests.support.messages import Name
from tests.support.upstream import request_of

REALM = "example.com"
NETWORK, OTHER_NETWORK = "192.0.2.1", "198.51.100.1"
SECONDS = 300.0
CHANGEPW = (1, ("kadmin", "changepw"))
ALICE, BOB = (1, ("alice",)), (1, ("bob",))
ENTERPRISE = (10, ("Alice.A@EXAMPLE.COM",))
ANONYMOUS = (11, ("WELLKNOWN", "ANONYMOUS"))
FAST = ((136, b""),)
ONE_TICKET, OTHER_TICKET = b"one" * 30, b"two" * 30
HOST = KdcEndpoint(name="a.example.com", address="192.0.2.88", port=464, transport=Transport.TCP)
KDC = KdcEndpoint(name="b.example.com", address="192.0.2.99", port=88, transport=Transport.TCP)


class Site:
    """Two worker processes with one memory: the first learns, the second chooses the host."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.now = 1000.0
        area = make_area(notes_bytes())
        self._learner, self._chooser = (
            PasswordChanges(Notes(area), seconds, lambda: self.now) for _ in range(2)
        )

    def issue_ticket(
        self,
        requested: Name | None = ALICE,
        issued_to: Name = ALICE,
        cipher: bytes = ONE_TICKET,
        **asked: Any,
    ) -> None:
        """Let an AS exchange issue a ticket for a password change."""
        request = messages.as_req(cname=requested, sname=CHANGEPW, **asked)
        self.answer(request, messages.as_rep(cname=issued_to, sname=CHANGEPW, cipher=cipher))

    def change(self, cipher: bytes = ONE_TICKET, reply: bytes | None = None, network: str = NETWORK) -> None:
        """Let HOST answer a password change."""
        request = messages.kpasswd_req(cipher=cipher)
        self.answer(request, messages.kpasswd_rep() if reply is None else reply, host=HOST, network=network)

    def answer(
        self, request: bytes, reply: bytes, *, host: KdcEndpoint = KDC, network: str = NETWORK
    ) -> None:
        """Let a host answer a request."""
        asked = request_of(request)
        facts = inspect_reply(asked.kind, reply)
        self._learner.learn(
            asked, KdcReply(payload=reply, facts=facts, endpoint=host, attempts=1), REALM, network
        )

    def prefers_host(self, request: bytes, *, network: str = NETWORK, realm: str = REALM) -> bool:
        """Whether the request prefers HOST; it prefers no other."""
        mark = self._chooser.host_for(request_of(request), realm, network)
        assert mark in (None, host_mark(HOST))
        return mark is not None

    def log_on_prefers_host(self, cname: Name | None = ALICE, **where: Any) -> bool:
        return self.prefers_host(messages.as_req(cname=cname), **where)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def changed(site: Site) -> Site:
    """Alice has changed her password."""
    site.issue_ticket()
    site.change()
    return site


def test_log_on_of_the_user_prefers_the_host_that_took_the_change(changed: Site) -> None:
    assert changed.log_on_prefers_host()


def test_no_host_is_preferred_before_a_change(site: Site) -> None:
    assert not site.log_on_prefers_host()
    site.issue_ticket()
    assert not site.log_on_prefers_host()


def test_other_users_of_the_network_prefer_no_host(changed: Site) -> None:
    assert not changed.log_on_prefers_host(BOB)
    assert not changed.log_on_prefers_host(None)


def test_user_of_the_same_name_in_another_realm_prefers_no_host(changed: Site) -> None:
    assert not changed.log_on_prefers_host(realm="example.org")


def test_user_is_recognized_from_another_network(changed: Site) -> None:
    assert changed.log_on_prefers_host(network=OTHER_NETWORK)


def test_requests_with_a_ticket_prefer_no_host(changed: Site) -> None:
    assert not changed.prefers_host(messages.tgs_req())


def test_next_change_prefers_the_same_host(changed: Site) -> None:
    changed.issue_ticket(cipher=OTHER_TICKET)
    assert changed.prefers_host(messages.kpasswd_req(cipher=OTHER_TICKET))


def test_preference_ends(changed: Site) -> None:
    changed.now += SECONDS - 1
    assert changed.log_on_prefers_host()
    changed.now += 1
    assert not changed.log_on_prefers_host()


def test_note_about_a_ticket_ends(site: Site) -> None:
    site.issue_ticket()
    site.now += TICKET_SECONDS
    site.change()
    assert not site.log_on_prefers_host()


def test_no_host_is_ever_preferred_for_zero_seconds() -> None:
    site = Site(seconds=0)
    site.issue_ticket()
    site.change()
    assert not site.log_on_prefers_host()


@pytest.mark.parametrize("reply", [messages.krb_error(60), messages.kpasswd_error()], ids=["bare", "framed"])
def test_change_that_ends_in_an_error_sets_no_preference(site: Site, reply: bytes) -> None:
    site.issue_ticket()
    site.change(reply=reply)
    assert not site.log_on_prefers_host()


def test_tickets_of_two_users_of_one_network_differ(site: Site) -> None:
    site.issue_ticket(ALICE, ALICE, ONE_TICKET)
    site.issue_ticket(BOB, BOB, OTHER_TICKET)
    site.change(ONE_TICKET)
    assert site.log_on_prefers_host(ALICE)
    assert not site.log_on_prefers_host(BOB)


def test_tickets_for_other_services_are_not_noted(site: Site) -> None:
    site.answer(messages.as_req(), messages.as_rep(cipher=ONE_TICKET))
    site.change()
    assert not site.log_on_prefers_host()


@pytest.mark.parametrize("name", [ALICE, ENTERPRISE, (1, ("Alice",)), (10, ("alice@example.com",))])
def test_user_is_recognized_by_the_requested_name_and_by_the_name_in_the_reply(
    site: Site, name: Name
) -> None:
    site.issue_ticket(ENTERPRISE, ALICE)
    site.change()
    assert site.log_on_prefers_host(name)


def test_ticket_of_a_tgs_exchange_names_its_user_too(site: Site) -> None:
    site.answer(messages.tgs_req(), messages.tgs_rep(sname=CHANGEPW, cipher=ONE_TICKET))
    site.change()
    assert site.log_on_prefers_host(ALICE)
    assert not site.log_on_prefers_host(None)


@pytest.mark.parametrize("outer_name", [None, ANONYMOUS])
def test_network_stands_for_a_user_hidden_by_fast(site: Site, outer_name: Name | None) -> None:
    site.issue_ticket(outer_name, ANONYMOUS, padata=FAST)
    site.change()
    assert site.log_on_prefers_host(None)
    assert site.log_on_prefers_host(ANONYMOUS)
    assert not site.log_on_prefers_host(ALICE)
    assert not site.log_on_prefers_host(None, network=OTHER_NETWORK)


def test_user_in_the_reply_is_recognized_by_name_and_by_network(site: Site) -> None:
    site.issue_ticket(None, ALICE, padata=FAST)
    site.change()
    assert site.log_on_prefers_host(ALICE)
    assert site.log_on_prefers_host(None)
