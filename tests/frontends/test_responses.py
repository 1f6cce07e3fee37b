"""The table of statuses and sentences. What it does to a connection is seen in test_https."""

import re

import pytest

from kkdcpd.frontends import responses
from kkdcpd.values import Outcome

REFUSALS = [outcome for outcome in Outcome if outcome not in {Outcome.ANSWERED, Outcome.CLIENT_GONE}]
ID = "0123abcd"


@pytest.mark.parametrize("outcome", REFUSALS)
def test_every_outcome_without_a_reply_has_an_error_status(outcome: Outcome) -> None:
    assert 400 <= responses.refuse(outcome, ID).status < 600


@pytest.mark.parametrize("outcome", REFUSALS)
def test_only_policy_has_the_status_that_windows_takes_for_one(outcome: Outcome) -> None:
    assert (responses.refuse(outcome, ID).status == 403) == (outcome is Outcome.REFUSED)


@pytest.mark.parametrize("outcome", REFUSALS)
def test_no_refusal_sends_clients_elsewhere_or_asks_them_for_a_password(outcome: Outcome) -> None:
    assert responses.refuse(outcome, ID).status not in {401, 407}


@pytest.mark.parametrize("outcome", REFUSALS)
def test_refusal_is_plain_ascii_text_of_one_line(outcome: Outcome) -> None:
    response = responses.refuse(outcome, ID)
    assert response.text
    assert re.fullmatch(r"[ -~]+\.\n", response.text)
    assert response.content_type == "text/plain"


@pytest.mark.parametrize("outcome", REFUSALS)
def test_no_refusal_can_be_taken_for_a_reply(outcome: Outcome) -> None:
    body = responses.refuse(outcome, ID).body
    assert isinstance(body, bytes)
    assert not body.startswith(b"\x30")


@pytest.mark.parametrize("outcome", REFUSALS)
def test_refusal_bears_the_request_id(outcome: Outcome) -> None:
    assert responses.refuse(outcome, ID).headers["x-ms-request-id"] == ID


@pytest.mark.parametrize("outcome", REFUSALS)
def test_connection_stays_exactly_where_the_request_was_well_formed(outcome: Outcome) -> None:
    keeps_connection = responses.refuse(outcome, ID).keep_alive is not False
    # Who is told that there is too much has perhaps not even sent his body.
    is_well_formed = responses.refuse(outcome, ID).status in {403, 503} and outcome is not Outcome.OVERLOADED
    assert keeps_connection == is_well_formed


def test_only_method_not_allowed_says_what_is_allowed() -> None:
    allowing = [outcome for outcome in REFUSALS if "Allow" in responses.refuse(outcome, ID).headers]
    assert allowing == [Outcome.METHOD_NOT_ALLOWED]


def test_answer_bears_the_body_as_kerberos() -> None:
    response = responses.Answer(b"\x30\x00", ID)
    assert (response.status, response.body) == (200, b"\x30\x00")
