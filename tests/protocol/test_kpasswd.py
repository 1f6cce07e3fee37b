from zlib import crc32

import pytest

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.kpasswd import (
    KpasswdReq,
    encode_kpasswd_error,
    is_kpasswd,
    read_kpasswd_reply,
    read_kpasswd_req,
)
from kkdcpd.values import MessageKind, PrincipalName, ReplyFacts
from tests.support import messages

AP_REQ, AP_REP, KRB_PRIV = messages.ap_req(), messages.ap_rep(), messages.krb_priv()
VERSIONS = pytest.mark.parametrize("version", [1, 0xFF80], ids=hex)


def _is_kpasswd(encoded: bytes) -> bool:
    return is_kpasswd(encoded, (0, len(encoded)))


def _read(encoded: bytes) -> KpasswdReq:
    return read_kpasswd_req(encoded, (0, len(encoded)))


def _read_reply(encoded: bytes) -> ReplyFacts:
    return read_kpasswd_reply(encoded, (0, len(encoded)))


def _with_first_length(encoded: bytes, length: int) -> bytes:
    return encoded[:4] + length.to_bytes(2, "big") + encoded[6:]


@VERSIONS
def test_version_and_ticket_of_a_request_are_read(version: int) -> None:
    payload = messages.kpasswd_req(version=version)
    request = _read(payload)
    assert request == KpasswdReq(
        version=version,
        realm="EXAMPLE.COM",
        sname=PrincipalName(name_type=1, components=("kadmin", "changepw")),
        ticket_affinity=crc32(messages.TICKET_CIPHER[-64:]),
    )


@VERSIONS
def test_message_is_known_by_its_length_and_version(version: int) -> None:
    assert _is_kpasswd(messages.kpasswd_req(version=version))
    assert _is_kpasswd(messages.kpasswd_rep(version=version))
    assert _is_kpasswd(messages.kpasswd_error(version=version))


@pytest.mark.parametrize("version", [0, 2, 0xFF7F, 0xFF81, 0x8000])
def test_no_other_version_is_known(version: int) -> None:
    encoded = messages.kpasswd_req(version=version)

    assert not _is_kpasswd(encoded)
    with pytest.raises(MalformedError, match="wrong length or version"):
        _read(encoded)


@pytest.mark.parametrize("error", [-1, 1])
def test_length_that_is_off_by_one_is_refused(error: int) -> None:
    encoded = messages.kpasswd_frame(AP_REQ, KRB_PRIV, length_error=error)

    assert not _is_kpasswd(encoded)
    with pytest.raises(MalformedError, match="wrong length or version"):
        _read(encoded)


@pytest.mark.parametrize("length", range(6))
def test_fewer_bytes_than_the_header_are_no_message(length: int) -> None:
    encoded = (length.to_bytes(2, "big") + b"\x00\x01\x00\x00")[:length]

    assert not _is_kpasswd(encoded)
    with pytest.raises(MalformedError):
        _read(encoded)


@pytest.mark.parametrize(
    "encoded", [messages.as_req(), messages.tgs_req(), messages.as_rep(), messages.krb_error(60)]
)
def test_no_other_message_is_taken_for_one(encoded: bytes) -> None:
    assert not _is_kpasswd(encoded)


@pytest.mark.parametrize(
    "length",
    [
        0,
        1,
        len(AP_REQ) - 1,
        len(AP_REQ) + 1,
        len(AP_REQ) + len(KRB_PRIV),
        len(AP_REQ) + len(KRB_PRIV) + 1,
        0xFFFF,
    ],
)
def test_request_with_a_wrong_ap_req_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedError):
        _read(_with_first_length(messages.kpasswd_req(), length))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (AP_REQ, b""),
        (b"", KRB_PRIV),
        (b"", b""),
        (AP_REQ, AP_REQ),
        (KRB_PRIV, AP_REQ),
        (AP_REP, KRB_PRIV),
        (AP_REQ, KRB_PRIV + b"\x00"),
        (AP_REQ, KRB_PRIV + KRB_PRIV),
        (AP_REQ + b"\x00", KRB_PRIV),
        (AP_REQ[:-1], KRB_PRIV),
        (AP_REQ, KRB_PRIV[:-1]),
        (b"", messages.krb_error(60)),
    ],
    ids=[
        "no KRB-PRIV",
        "no AP-REQ",
        "nothing",
        "another AP-REQ for the KRB-PRIV",
        "the two exchanged",
        "a reply",
        "an byte after the KRB-PRIV",
        "two KRB-PRIVs",
        "an byte after the AP-REQ",
        "AP-REQ cut off",
        "KRB-PRIV cut off",
        "a framed error",
    ],
)
def test_request_is_an_ap_req_and_a_krb_priv_and_nothing_else(first: bytes, second: bytes) -> None:
    with pytest.raises(MalformedError):
        _read(messages.kpasswd_frame(first, second))


def test_messages_are_read_from_the_midst_of_bytes() -> None:
    request, reply = messages.kpasswd_req(), messages.kpasswd_error(34)

    assert read_kpasswd_req(b"before" + request + b"after", (6, 6 + len(request))) == _read(request)
    assert read_kpasswd_reply(b"before" + reply + b"after", (6, 6 + len(reply))) == _read_reply(reply)


@VERSIONS
def test_facts_of_an_encrypted_reply_are_empty(version: int) -> None:
    assert _read_reply(messages.kpasswd_rep(version=version)) == ReplyFacts(kind=MessageKind.KPASSWD_REP)


@VERSIONS
def test_code_and_names_of_a_framed_krb_error_are_read(version: int) -> None:
    sname = PrincipalName(name_type=1, components=("kadmin", "changepw"))

    facts = _read_reply(messages.kpasswd_error(34, version=version, sname=(1, sname.components)))

    assert facts == ReplyFacts(kind=MessageKind.KPASSWD_REP, error_code=34, sname=sname)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (AP_REP, b""),
        (b"", b""),
        (b"", KRB_PRIV),
        (b"", messages.as_rep()),
        (AP_REP, messages.krb_error(60)),
        (AP_REQ, KRB_PRIV),
        (AP_REP, KRB_PRIV + b"\x00"),
        (AP_REP + b"\x00", KRB_PRIV),
        (b"", messages.krb_error(60) + b"\x00"),
    ],
    ids=[
        "no KRB-PRIV",
        "nothing",
        "no AP-REP",
        "an AS-REP",
        "a KRB-ERROR after an AP-REP",
        "a request",
        "an byte after the KRB-PRIV",
        "an byte after the AP-REP",
        "an byte after the KRB-ERROR",
    ],
)
def test_reply_is_an_ap_rep_and_a_krb_priv_or_a_krb_error(first: bytes, second: bytes) -> None:
    with pytest.raises(MalformedError):
        _read_reply(messages.kpasswd_frame(first, second))


@pytest.mark.parametrize("length", [1, len(AP_REP) - 1, len(AP_REP) + 1, 0xFFFF])
def test_reply_with_a_wrong_ap_rep_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedError):
        _read_reply(_with_first_length(messages.kpasswd_rep(), length))


@pytest.mark.parametrize(
    "reply", [messages.krb_error(60), messages.kpasswd_frame(AP_REP, KRB_PRIV, version=2)]
)
def test_reply_without_the_frame_is_no_framed_reply(reply: bytes) -> None:
    with pytest.raises(MalformedError, match="wrong length or version"):
        _read_reply(reply)


def test_framed_error_is_read_as_an_error() -> None:
    framed = encode_kpasswd_error(messages.krb_error(12))

    assert framed == messages.kpasswd_error(12)
    assert _read_reply(framed).error_code == 12
