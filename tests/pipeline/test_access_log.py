import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.columns import FIXED, REQUEST_SECONDS, REQUESTS
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.pipeline.access_log import AccessLog, AccessRecord
from kkdcpd.values import (
    ClientCertificate,
    ClientConnection,
    KdcReply,
    KdcService,
    MessageKind,
    Outcome,
    PrincipalName,
    ProxyRequest,
    Refusal,
    ReplyFacts,
    RequestResult,
    Rule,
)

ALICE = PrincipalName(name_type=1, components=("alice",))
KRBTGT = PrincipalName(name_type=2, components=("krbtgt", "EXAMPLE.COM"))

AS_REQ = ProxyRequest(
    kind=MessageKind.AS_REQ,
    service=KdcService.KDC,
    target_domain="example.com",
    realm="EXAMPLE.COM",
    kerb_message=b"\x00\x00\x00\x06secret",
    cname=ALICE,
    sname=KRBTGT,
    padata_types=(2, 149),
)
TGS_REQ = replace(AS_REQ, kind=MessageKind.TGS_REQ, cname=None)
KPASSWD_REQ = replace(
    AS_REQ,
    kind=MessageKind.KPASSWD_REQ,
    service=KdcService.KPASSWD,
    cname=None,
    sname=PrincipalName(name_type=1, components=("kadmin", "changepw")),
    padata_types=(),
    kpasswd_version=0xFF80,
)
ENDPOINT = KdcEndpoint(name="kdc.example.com", address="192.0.2.10", port=88, transport=Transport.TCP)
AS_REP = ReplyFacts(kind=MessageKind.AS_REP, cname=PrincipalName(name_type=1, components=("Alice",)))
UNKNOWN_PRINCIPAL = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=6)
WRONG_PASSWORD = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=24)


def answered(
    facts: ReplyFacts = AS_REP, endpoint: KdcEndpoint = ENDPOINT, attempts: int = 1
) -> RequestResult:
    reply = KdcReply(payload=b"secret too", facts=facts, endpoint=endpoint, attempts=attempts)
    return RequestResult(outcome=Outcome.ANSWERED, realm="EXAMPLE.COM", reply=reply, attempts=attempts)


LOG = AccessLog(Counters.discarding())

RECORD = AccessRecord(
    request_id="0123abcd",
    client=ClientConnection(address="192.0.2.7", port=50123, tls="TLSv1.3"),
    result=answered(),
    request=AS_REQ,
    status=200,
    seconds=0.00125,
    bytes_in=199,
    bytes_out=900,
)

REFUSED = replace(
    RECORD,
    client=ClientConnection(
        address="192.0.2.7",
        tls="TLSv1.2",
        network="192.0.2.7",
        proxy="192.0.2.1",
        certificate=ClientCertificate(subject="CN=laptop,O=Example", names=("dns:laptop.example.com",)),
        token=b"digest of a secret",
    ),
    result=replace(
        answered(),
        outcome=Outcome.REFUSED,
        detail="a ticket for alice without preauthentication",
        refusal=Refusal(
            rule=Rule.UNPROVEN_TICKET,
            outcome=Outcome.REFUSED,
            text="This is for the client.",
            retry_after=60.0,
        ),
        monitored=(Rule.REQUIRE_ARMOR, Rule.WEAK_ETYPES),
    ),
    status=403,
)


LOCAL = replace(RECORD, client=ClientConnection(address="unix", uid=0), status=None, copies=2)
"""A request of a local program that runs as root and has sent three copies."""


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "kkdcpd")
    return caplog


def written(record: AccessRecord, log: pytest.LogCaptureFixture) -> dict[str, Any]:
    log.clear()
    LOG.enter(record)
    (line,) = log.records
    assert line.message == "exchange"
    fields: dict[str, Any] = line.fields  # type: ignore[attr-defined]
    return {key: str(value) if isinstance(value, PrincipalName) else value for key, value in fields.items()}


def test_answered_request_has_its_fields_in_order(log: pytest.LogCaptureFixture) -> None:
    assert list(written(RECORD, log).items()) == [
        ("id", "0123abcd"),
        ("client", "192.0.2.7"),
        ("port", 50123),
        ("tls", "TLSv1.3"),
        ("realm", "EXAMPLE.COM"),
        ("kind", "AS_REQ"),
        ("cname", "alice"),
        ("sname", "krbtgt/EXAMPLE.COM"),
        ("padata", "2,149"),
        ("kdc", "kdc.example.com:88"),
        ("transport", "tcp"),
        ("reply", "AS_REP"),
        ("attempts", 1),
        ("outcome", "answered"),
        ("status", 200),
        ("ms", 1.2),
        ("in", 199),
        ("out", 900),
    ]


def test_line_of_a_refused_request_has_proxy_certificate_and_rule(log: pytest.LogCaptureFixture) -> None:
    assert list(written(REFUSED, log).items()) == [
        ("id", "0123abcd"),
        ("client", "192.0.2.7"),
        ("proxy", "192.0.2.1"),
        ("tls", "TLSv1.2"),
        ("certificate", "CN=laptop,O=Example"),
        ("realm", "EXAMPLE.COM"),
        ("kind", "AS_REQ"),
        ("cname", "alice"),
        ("sname", "krbtgt/EXAMPLE.COM"),
        ("padata", "2,149"),
        ("kdc", "kdc.example.com:88"),
        ("transport", "tcp"),
        ("reply", "AS_REP"),
        ("attempts", 1),
        ("outcome", "refused"),
        ("rule", "unproven_ticket"),
        ("monitored", "require_armor,weak_etypes"),
        ("detail", "a ticket for alice without preauthentication"),
        ("status", 403),
        ("ms", 1.2),
        ("in", 199),
        ("out", 900),
    ]


def test_line_of_an_answered_request_names_rules_in_monitor_mode(log: pytest.LogCaptureFixture) -> None:
    result = replace(answered(), monitored=(Rule.GUESSING,))
    fields = written(replace(RECORD, result=result), log)
    assert (fields["outcome"], fields["monitored"], "rule" in fields) == ("answered", "guessing", False)


def test_port_of_a_client_behind_a_proxy_is_logged_if_known(log: pytest.LogCaptureFixture) -> None:
    client = ClientConnection(address="192.0.2.7", port=50123, proxy="unix")
    fields = written(replace(RECORD, client=client), log)
    assert (fields["client"], fields["port"], fields["proxy"]) == ("192.0.2.7", 50123, "unix")


def test_client_of_a_local_socket_has_its_uid(log: pytest.LogCaptureFixture) -> None:
    fields = written(LOCAL, log)
    assert (fields["client"], fields["uid"], fields["copies"]) == ("unix", 0, 2)


def test_error_of_a_kdc_has_number_and_name(log: pytest.LogCaptureFixture) -> None:
    fields = written(replace(RECORD, result=answered(WRONG_PASSWORD)), log)
    assert (fields["reply"], fields["error"], fields["error_name"]) == (
        "KRB_ERROR",
        24,
        "KDC_ERR_PREAUTH_FAILED",
    )


def test_request_that_cannot_be_read_has_no_fields_of_its_message(log: pytest.LogCaptureFixture) -> None:
    result = RequestResult(outcome=Outcome.MALFORMED_MESSAGE, detail="byte 0: no")
    record = replace(RECORD, request=None, result=result, status=400, bytes_out=90)
    assert list(written(record, log)) == [
        "id",
        "client",
        "port",
        "tls",
        "outcome",
        "detail",
        "status",
        "ms",
        "in",
        "out",
    ]


def test_realm_that_is_not_served_is_the_target_domain(log: pytest.LogCaptureFixture) -> None:
    result = RequestResult(outcome=Outcome.REALM_NOT_SERVED, detail="neither")
    assert written(replace(RECORD, result=result, status=503), log)["realm"] == "example.com"


def test_line_of_a_failure_has_attempts_and_detail(log: pytest.LogCaptureFixture) -> None:
    result = RequestResult(
        outcome=Outcome.NO_KDC_REACHED,
        realm="EXAMPLE.COM",
        attempts=2,
        detail="tcp://a:88 refused; tcp://b:88 refused",
    )
    fields = written(replace(RECORD, result=result, status=503), log)
    assert (fields["attempts"], fields["detail"]) == (2, "tcp://a:88 refused; tcp://b:88 refused")
    assert {"kdc", "transport", "reply"}.isdisjoint(fields)


def test_client_that_is_gone_has_no_status(log: pytest.LogCaptureFixture) -> None:
    record = replace(RECORD, result=RequestResult(outcome=Outcome.CLIENT_GONE), status=None)
    assert "status" not in written(record, log)


def test_hidden_cname_is_that_of_the_reply(log: pytest.LogCaptureFixture) -> None:
    assert written(replace(RECORD, request=TGS_REQ), log)["cname"] == "Alice"


def test_unknown_cname_is_left_out(log: pytest.LogCaptureFixture) -> None:
    assert "cname" not in written(replace(RECORD, request=TGS_REQ, result=answered(WRONG_PASSWORD)), log)


def test_password_change_has_its_version_and_no_padata(log: pytest.LogCaptureFixture) -> None:
    fields = written(replace(RECORD, request=KPASSWD_REQ), log)
    assert (fields["version"], "padata" in fields) == ("0xff80", False)


def test_version_of_a_password_change_has_four_digits(log: pytest.LogCaptureFixture) -> None:
    request = replace(KPASSWD_REQ, kpasswd_version=1)
    assert written(replace(RECORD, request=request), log)["version"] == "0x0001"


def test_armored_request_has_the_armor_field(log: pytest.LogCaptureFixture) -> None:
    assert written(replace(RECORD, request=replace(AS_REQ, is_armored=True)), log)["armor"] == "fast"


@pytest.mark.parametrize(
    ("hint", "shown"), [(0, "0x0"), (0x600, "0x600"), (-0x80000000, "0x80000000"), (0x80000000, "0x80000000")]
)
def test_hint_is_a_flag_field_however_it_was_encoded(
    log: pytest.LogCaptureFixture, hint: int, shown: str
) -> None:
    assert written(replace(RECORD, request=replace(AS_REQ, dclocator_hint=hint)), log)["hint"] == shown


def test_kdc_by_ipv6_address_has_brackets(log: pytest.LogCaptureFixture) -> None:
    endpoint = replace(ENDPOINT, name="2001:db8::1", address="2001:db8::1")
    assert written(replace(RECORD, result=answered(endpoint=endpoint)), log)["kdc"] == "[2001:db8::1]:88"


def test_client_of_a_unix_socket_has_no_port(log: pytest.LogCaptureFixture) -> None:
    fields = written(replace(RECORD, client=ClientConnection(address="unix")), log)
    assert (fields["client"], fields["tls"], "port" in fields) == ("unix", "none", False)


@pytest.mark.parametrize("outcome", Outcome)
def test_level_shows_whether_the_administrator_should_act(
    log: pytest.LogCaptureFixture, outcome: Outcome
) -> None:
    written(replace(RECORD, result=RequestResult(outcome=outcome)), log)
    expected = {
        Outcome.NO_KDC_KNOWN: "WARNING",
        Outcome.DNS_FAILED: "WARNING",
        Outcome.NO_KDC_REACHED: "WARNING",
        Outcome.NO_KDC_REPLY: "WARNING",
        Outcome.LOOP_DETECTED: "WARNING",
        Outcome.INTERNAL_ERROR: "ERROR",
    }
    assert log.records[0].levelname == expected.get(outcome, "INFO")


@pytest.mark.parametrize("record", [RECORD, REFUSED], ids=["answered", "refused"])
def test_nothing_of_a_message_or_a_token_gets_into_the_line(
    log: pytest.LogCaptureFixture, record: AccessRecord
) -> None:
    assert "secret" not in str(written(record, log))


def test_nothing_is_written_below_the_level(log: pytest.LogCaptureFixture) -> None:
    log.set_level(logging.WARNING, "kkdcpd")
    LOG.enter(RECORD)
    assert not log.records


def test_line_has_the_time_of_its_writing(log: pytest.LogCaptureFixture) -> None:
    before = time.time()
    written(RECORD, log)
    assert before <= log.records[0].created <= time.time()


def test_times_are_rounded(log: pytest.LogCaptureFixture) -> None:
    assert written(replace(RECORD, seconds=1.2345678), log)["ms"] == 1234.6


@pytest.mark.parametrize(
    ("realm", "error_code", "is_told"),
    [
        ("example.com", 6, True),
        ("Example.COM", 7, True),
        ("example.com", 68, True),
        ("EXAMPLE.COM", 6, False),
        ("example.com", 24, False),
        ("OTHER.COM", 6, False),
    ],
)
def test_realm_in_the_wrong_case_that_the_kdc_does_not_know_is_named(
    caplog: pytest.LogCaptureFixture, realm: str, error_code: int, *, is_told: bool
) -> None:
    facts = ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=error_code)
    with caplog.at_level(logging.INFO, "kkdcpd"):
        LOG.enter(replace(RECORD, request=replace(AS_REQ, realm=realm), result=answered(facts)))
    (record,) = caplog.records
    fields: dict[str, Any] = record.fields  # type: ignore[attr-defined]
    assert ("advice" in fields) is is_told
    if is_told:
        assert f"requests {realm}, the configuration has EXAMPLE.COM" in fields["advice"]
        assert "write the KDC's spelling" in fields["advice"]


def test_every_request_is_a_line_and_a_count(log: pytest.LogCaptureFixture) -> None:
    metrics = make_metrics(1)
    access_log = AccessLog(Counters(metrics.take_row(0)))
    unread = replace(RECORD, request=None, result=RequestResult(outcome=Outcome.MALFORMED_HTTP), status=400)
    for record in (RECORD, RECORD, unread):
        access_log.enter(record)
    assert [line.message for line in log.records] == ["exchange"] * 3
    reader = MetricsReader(metrics)
    counts = {
        (realm, *labels): count
        for realm, words in reader.realms().items()
        for labels, count in zip(REQUESTS.series, words, strict=True)
        if count
    }
    assert counts == {("EXAMPLE.COM", "answered", "AS_REQ"): 2, ("", "malformed_http", ""): 1}
    # 1.25 ms: the third bucket of the first kind.
    assert reader.fixed()[FIXED[REQUEST_SECONDS] + 2] == 2
