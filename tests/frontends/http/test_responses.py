"""The table of statuses and sentences. test_kdc_proxy shows its effect on connections."""

import re
import time
from email.utils import parsedate_to_datetime

import pytest

from kkdcpd.frontends.http import responses
from kkdcpd.values import Outcome

NOT_REFUSED = {Outcome.ANSWERED, Outcome.PREFLIGHT, Outcome.CLIENT_GONE}
REFUSALS = [outcome for outcome in Outcome if outcome not in NOT_REFUSED]
ID = "0123abcd"


@pytest.mark.parametrize("outcome", REFUSALS)
def test_every_outcome_without_a_reply_has_an_error_status(outcome: Outcome) -> None:
    assert 400 <= responses.refuse(outcome, ID).status < 600


@pytest.mark.parametrize("outcome", REFUSALS)
def test_only_a_refusal_by_policy_has_the_status_that_windows_knows(outcome: Outcome) -> None:
    assert (responses.refuse(outcome, ID).status == 403) == (outcome is Outcome.REFUSED)


@pytest.mark.parametrize("outcome", REFUSALS)
def test_no_refusal_is_a_redirect_or_a_request_for_a_password(outcome: Outcome) -> None:
    assert responses.refuse(outcome, ID).status not in {401, 407}


@pytest.mark.parametrize("outcome", REFUSALS)
def test_refusal_is_plain_ascii_text_of_one_line(outcome: Outcome) -> None:
    response = responses.refuse(outcome, ID)
    assert re.fullmatch(rb"[ -~]+\.\n", response.body)
    assert response.content_type.startswith("text/plain")


@pytest.mark.parametrize("outcome", REFUSALS)
def test_no_refusal_looks_like_a_reply(outcome: Outcome) -> None:
    assert not responses.refuse(outcome, ID).body.startswith(b"\x30")


@pytest.mark.parametrize("outcome", REFUSALS)
def test_refusal_has_the_request_id(outcome: Outcome) -> None:
    assert dict(responses.refuse(outcome, ID).headers)["x-ms-request-id"] == ID


@pytest.mark.parametrize("outcome", REFUSALS)
@pytest.mark.parametrize(("may_be_delivered", "word"), [(False, "no"), (True, "maybe")])
def test_refusal_says_whether_a_kdc_may_have_the_message(
    outcome: Outcome, may_be_delivered: bool, word: str
) -> None:
    response = responses.refuse(outcome, ID, may_be_delivered=may_be_delivered)
    assert dict(response.headers)["Kdc-Has-Message"] == word
    assert dict(responses.refuse(outcome, ID).headers)["Kdc-Has-Message"] == "maybe"
    assert "Kdc-Has-Message" not in dict(responses.answer(b"", ID).headers)


@pytest.mark.parametrize("outcome", REFUSALS)
def test_connection_stays_if_and_only_if_the_request_was_well_formed(outcome: Outcome) -> None:
    response = responses.refuse(outcome, ID)
    # A client that sends too many requests may not have sent its body.
    is_well_formed = response.status in {403, 503, 508} and outcome is not Outcome.OVERLOADED
    assert response.closes != is_well_formed


def test_only_method_not_allowed_has_the_allow_header() -> None:
    allowing = [outcome for outcome in REFUSALS if "Allow" in dict(responses.refuse(outcome, ID).headers)]
    assert allowing == [Outcome.METHOD_NOT_ALLOWED]


def test_answer_has_the_body_as_kerberos() -> None:
    response = responses.answer(b"\x30\x00", ID)
    assert (response.status, response.body, response.closes) == (200, b"\x30\x00", False)
    assert response.content_type == "application/kerberos"


def head_of(data: bytes) -> tuple[str, dict[str, str]]:
    """The status line and the headers of a response."""
    head, separator, _ = data.partition(b"\r\n\r\n")
    assert separator
    line, *fields = head.decode("ascii").split("\r\n")
    return line, dict(field.split(": ", 1) for field in fields)


def test_response_is_encoded_with_its_length_and_date() -> None:
    response = responses.answer(b"\x30\x00", ID)
    data = responses.encode(response, is_1_0=False, is_last=False)
    line, headers = head_of(data)
    assert data.endswith(b"\r\n\r\n\x30\x00")
    assert line == "HTTP/1.1 200 OK"
    age = time.time() - parsedate_to_datetime(headers.pop("Date")).timestamp()
    assert -1 < age < 60
    assert headers == {
        "Server": "kkdcpd",
        "Content-Type": "application/kerberos",
        "Content-Length": "2",
        "x-ms-request-id": ID,
    }


@pytest.mark.parametrize(
    ("is_1_0", "is_last", "connection"),
    [(False, False, None), (False, True, "close"), (True, True, None)],
)
def test_last_response_of_http_1_1_has_connection_close(
    is_1_0: bool, is_last: bool, connection: str | None
) -> None:
    data = responses.encode(responses.answer(b"", ID), is_1_0=is_1_0, is_last=is_last)
    line, headers = head_of(data)
    assert line.startswith("HTTP/1.0 " if is_1_0 else "HTTP/1.1 ")
    assert headers.get("Connection") == connection


def test_response_to_head_has_the_length_of_its_body_and_no_body() -> None:
    response = responses.refuse(Outcome.METHOD_NOT_ALLOWED, ID)
    data = responses.encode(response, is_1_0=False, is_last=True, has_body=False)
    assert data.endswith(b"\r\n\r\n")
    assert head_of(data)[1]["Content-Length"] == str(len(response.body))


@pytest.mark.parametrize("outcome", REFUSALS)
def test_every_refusal_can_be_encoded(outcome: Outcome) -> None:
    line, _ = head_of(responses.encode(responses.refuse(outcome, ID), is_1_0=False, is_last=True))
    assert re.fullmatch(r"HTTP/1\.1 [45]\d\d [ -~]+", line)
