"""Tests of the principal that a reply is about, with replies as real KDCs make them."""

import pytest

from kkdcpd.guard.subject import Subject, find_subject, fold_named, hides_names
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.values import MessageKind, PrincipalName, ProxyMessage, ProxyRequest, ReplyFacts
from tests.support import messages

FAST = [(136, b"armor")]
ANONYMOUS = (11, ("WELLKNOWN", "ANONYMOUS"))
ALICE = (1, ("alice",))


def request(cname: messages.Name | None = ALICE, **fields: object) -> ProxyRequest:
    payload = messages.as_req(cname=cname, **fields)  # type: ignore[arg-type]
    return classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain="EXAMPLE.COM"))


def error(code: int = 24, **fields: object) -> ReplyFacts:
    return inspect_reply(MessageKind.AS_REQ, messages.krb_error(code, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("cname", [None, ALICE, (1, ("bob",)), ANONYMOUS])
def test_request_without_armor_is_about_the_shown_name(cname: messages.Name | None) -> None:
    assert find_subject(request(), error(cname=cname)) == Subject(name="alice", is_shown=True)
    assert find_subject(request(None), error(cname=cname)) == Subject(name=None, is_shown=False)


@pytest.mark.parametrize(
    ("shown", "named", "subject"),
    [
        (ALICE, ALICE, Subject(name="alice", is_shown=True)),
        ((1, ("ALICE@EXAMPLE.COM",)), ALICE, Subject(name="alice", is_shown=True)),
        (None, ALICE, Subject(name="alice", is_shown=False)),
        ((1, ("other",)), ALICE, Subject(name="alice", is_shown=False)),
        (ANONYMOUS, ALICE, Subject(name="alice", is_shown=False)),
        (ALICE, None, Subject(name=None, is_shown=False)),
        (ALICE, ANONYMOUS, Subject(name=None, is_shown=False)),
        (ANONYMOUS, ANONYMOUS, Subject(name=None, is_shown=False)),
    ],
)
def test_request_with_armor_is_about_the_name_in_the_reply(
    shown: messages.Name | None, named: messages.Name | None, subject: Subject
) -> None:
    assert find_subject(request(shown, padata=FAST), error(cname=named)) == subject


def test_unknown_service_is_the_subject() -> None:
    sname = 1, ("bob",)
    asked = request(sname=sname)
    assert find_subject(asked, error(7, sname=sname)) == Subject(name="bob", is_shown=True)
    hidden = request(padata=FAST)
    assert find_subject(hidden, error(7, sname=sname)) == Subject(name="bob", is_shown=False)


def test_only_a_request_without_armor_has_a_subject_before_its_reply() -> None:
    assert find_subject(request()) == Subject(name="alice", is_shown=True)
    assert find_subject(request(padata=FAST)) == Subject(name=None, is_shown=False)


def test_empty_and_anonymous_names_are_none() -> None:
    assert fold_named(None) is None
    assert fold_named(PrincipalName(name_type=0, components=())) is None
    assert fold_named(PrincipalName(name_type=11, components=("WELLKNOWN", "ANONYMOUS"))) is None


@pytest.mark.parametrize(
    ("fields", "is_hidden"),
    [
        ({"cname": ANONYMOUS}, True),  # MIT
        ({"sname": (0, ())}, True),  # Samba
        ({}, False),  # Active Directory, which names no client
        ({"cname": ALICE}, False),
    ],
)
def test_hidden_names_are_recognized(fields: dict[str, object], is_hidden: bool) -> None:
    assert hides_names(error(25, **fields)) is is_hidden
