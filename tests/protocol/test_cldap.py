import contextlib
import re
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyasn1.codec.ber.decoder import decode
from pyasn1_modules import rfc2251

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.cldap import (
    DomainControllerFacts,
    DomainControllerFlags,
    decode_ping_answer,
    encode_ping,
)

# Answers of Samba 4.17.12: from the site of the sender, from another site, and about another domain.
SAME_SITE = bytes.fromhex(
    "307902047fffffff64710400306d306b04086e65746c6f676f6e315f045d17000000fd1300006c755178af2eff44a7cbe4de"
    "f8bdf5b504636f7270026164047465737400c01803646331c01804434f5250000344433100001744656661756c742d466972"
    "73742d536974652d4e616d6500c03a05000000ffffffff300f02047fffffff65070a010004000400"
)
OTHER_SITE = bytes.fromhex(
    "307e0203012345647704003073307104086e65746c6f676f6e31650463170000007d1300006c755178af2eff44a7cbe4def8"
    "bdf5b504636f7270026164047465737400c01803646331c01804434f5250000344433100001744656661756c742d46697273"
    "742d536974652d4e616d6500064272616e63680005000000ffffffff300e020301234565070a010004000400"
)
NOTHING = bytes.fromhex("300c02010765070a010004000400")
# The same ping with the name of a known user, and of an unknown user.
KNOWN_USER = bytes.fromhex(
    "307c020109647704003073307104086e65746c6f676f6e3165046319000000fd1300006c755178af2eff44a7cbe4def8bdf5"
    "b504636f7270026164047465737400c01803646331c01804434f525000034443310005616c696365001744656661756c742d"
    "46697273742d536974652d4e616d6500c04005000000ffffffff300c02010965070a010004000400"
)
UNKNOWN_USER = bytes.fromhex(
    "307d020109647804003074307204086e65746c6f676f6e3166046419000000fd1300006c755178af2eff44a7cbe4def8bdf5"
    "b504636f7270026164047465737400c01803646331c01804434f5250000344433100066e6f626f6479001744656661756c74"
    "2d46697273742d536974652d4e616d6500c04105000000ffffffff300c02010965070a010004000400"
)
CAPTURED = [SAME_SITE, OTHER_SITE, NOTHING, KNOWN_USER, UNKNOWN_USER]

HEAD = bytes.fromhex("17000000fd1300006c755178af2eff44a7cbe4def8bdf5b5")
TAIL = bytes.fromhex("05000000ffffffff")
SOME_NAMES = b"\4corp\0\xc0\x18\3dc1\xc0\x18\4CORP\0\3DC1\0\0\4Main\0\xc0\x32"


def element(tag: int, *contents: bytes) -> bytes:
    """Encode as Windows does: every length in four bytes, which is BER and not DER."""
    inside = b"".join(contents)
    return bytes((tag, 0x84)) + len(inside).to_bytes(4, "big") + inside


def answer_with(value: bytes, *, attribute: bytes = b"netlogon", message_id: bytes = b"\1") -> bytes:
    attributes = element(0x30, element(0x04, attribute), element(0x31, element(0x04, value)))
    entry = element(0x64, element(0x04), element(0x30, attributes))
    done = element(0x65, b"\x0a\1\0\4\0\4\0")
    return b"".join(element(0x30, element(0x02, message_id), message) for message in (entry, done))


def netlogon(names: bytes, *, head: bytes = HEAD, tail: bytes = TAIL) -> bytes:
    return head + names + tail


def facts_in(datagram: bytes) -> DomainControllerFacts:
    facts = decode_ping_answer(datagram).facts
    assert facts is not None
    return facts


def test_ping_equals_the_ping_that_samba_answers() -> None:
    assert encode_ping(5, "ad.test") == bytes.fromhex(
        "3049020105634404000a01000a0100020100020100010100a025a3140409446e73446f6d61696e040761642e74657374"
        "a30d04054e74566572040406000000300a04084e65746c6f676f6e"
    )


def test_another_decoder_reads_a_ping_as_a_search() -> None:
    message, rest = decode(encode_ping(2**31 - 1, "ad.test"), asn1Spec=rfc2251.LDAPMessage())
    assert (rest, int(message["messageID"])) == (b"", 2**31 - 1)
    search = message["protocolOp"]["searchRequest"]
    assert (bytes(search["baseObject"]), int(search["scope"])) == (b"", 0)
    assert [bytes(attribute) for attribute in search["attributes"]] == [b"Netlogon"]
    conditions = [part["equalityMatch"] for part in search["filter"]["and"]]
    assert {bytes(each["attributeDesc"]): bytes(each["assertionValue"]) for each in conditions} == {
        b"DnsDomain": b"ad.test",
        b"NtVer": b"\6\0\0\0",
    }


def test_domain_of_any_length_makes_a_ping() -> None:
    assert b"x" * 250 in encode_ping(2**31 - 1, "x" * 250)


def test_answer_has_the_facts_of_the_controller() -> None:
    answer = decode_ping_answer(SAME_SITE)
    assert answer.message_id == 2**31 - 1
    assert answer.facts is not None
    assert (answer.facts.forest, answer.facts.domain, answer.facts.host) == (
        "corp.ad.test",
        "corp.ad.test",
        "dc1.corp.ad.test",
    )
    assert (answer.facts.netbios_domain, answer.facts.netbios_host) == ("CORP", "DC1")
    assert answer.facts.site == answer.facts.client_site == "Default-First-Site-Name"
    assert str(answer.facts.domain_guid) == "7851756c-2eaf-44ff-a7cb-e4def8bdf5b5"


def test_flags_are_read_and_unknown_flags_are_kept() -> None:
    flags = facts_in(SAME_SITE).flags
    assert (
        DomainControllerFlags.PDC
        | DomainControllerFlags.KDC
        | DomainControllerFlags.WRITABLE
        | DomainControllerFlags.CLOSEST
    ) in flags
    assert DomainControllerFlags.DS_8 not in flags
    assert flags == 0x13FD


def test_sites_of_client_and_controller_may_differ() -> None:
    facts = facts_in(OTHER_SITE)
    assert (facts.site, facts.client_site) == ("Default-First-Site-Name", "Branch")
    assert DomainControllerFlags.CLOSEST not in facts.flags


def test_controller_of_another_domain_has_no_facts() -> None:
    answer = decode_ping_answer(NOTHING)
    assert (answer.message_id, answer.facts) == (7, None)


@pytest.mark.parametrize("captured", [KNOWN_USER, UNKNOWN_USER])
def test_answer_about_a_user_has_the_facts_of_the_controller(captured: bytes) -> None:
    facts = facts_in(captured)
    assert (facts.host, facts.client_site) == ("dc1.corp.ad.test", "Default-First-Site-Name")


def test_lengths_in_windows_style_are_read() -> None:
    facts = facts_in(answer_with(netlogon(SOME_NAMES), attribute=b"Netlogon"))
    assert (facts.domain, facts.host, facts.site, facts.client_site) == ("corp", "dc1.corp", "Main", "Main")


def test_controller_with_a_paused_logon_service_has_no_facts() -> None:
    value = netlogon(SOME_NAMES, head=b"\x18" + HEAD[1:])
    assert decode_ping_answer(answer_with(value)).facts is None


def test_data_after_the_names_is_ignored() -> None:
    sock_addr = b"\x10\2\0" + bytes(14) + b"\4Next\0"
    assert facts_in(answer_with(netlogon(SOME_NAMES + sock_addr))).client_site == "Main"


def test_entry_without_the_attribute_has_no_facts() -> None:
    assert decode_ping_answer(answer_with(netlogon(SOME_NAMES), attribute=b"other")).facts is None


def test_attribute_without_values_has_no_facts() -> None:
    attributes = element(0x30, element(0x04, b"netlogon"), element(0x31))
    entry = element(0x64, element(0x04), element(0x30, attributes))
    assert decode_ping_answer(element(0x30, element(0x02, b"\1"), entry)).facts is None


@pytest.mark.parametrize("captured", CAPTURED)
def test_truncated_answer_is_refused(captured: bytes) -> None:
    # Without the message that ends the search, the entry before it is still complete.
    whole = set(accumulate(map(len, re.split(rb"(?=\x30.\x02[\x01-\x04].{1,4}\x65)", captured))))
    for length in set(range(len(captured))) - whole - {0}:
        with pytest.raises(MalformedError):
            decode_ping_answer(captured[:length])


def test_truncated_value_is_refused() -> None:
    value = netlogon(SOME_NAMES)
    for length in range(len(value)):
        with pytest.raises(MalformedError):
            decode_ping_answer(answer_with(value[:length]))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(netlogon(SOME_NAMES, head=b"\x13" + HEAD[1:]), id="another operation code"),
        pytest.param(netlogon(SOME_NAMES, tail=TAIL[:4] + b"\xff\xff\0\0"), id="another end"),
        pytest.param(netlogon(b"\xc0\x18" + bytes(7)), id="pointer to itself"),
        pytest.param(netlogon(b"\xc0\x1a\xc0\x18" + bytes(7)), id="pointers to each other"),
        pytest.param(netlogon(b"\1a\xc0\x18" + bytes(7)), id="name that goes on with itself"),
        pytest.param(netlogon(b"\xc0\x20" + bytes(8)), id="pointer ahead"),
        pytest.param(netlogon(b"\xc0\0" + bytes(7)), id="pointer into the flags"),
        pytest.param(netlogon(b"\xff\xff" + bytes(7)), id="pointer past the end"),
        pytest.param(netlogon(b"\x40a" + bytes(8)), id="neither label nor pointer"),
        pytest.param(netlogon(b"\2\xc3\x28\0" + bytes(7)), id="label that is no UTF-8"),
        pytest.param(netlogon(b"\x3f" + b"a" * 20), id="label past the end"),
        pytest.param(netlogon((b"\x3f" + b"a" * 63) * 4 + bytes(8)), id="name of 256 bytes"),
        pytest.param(netlogon(bytes(7)), id="name missing"),
        pytest.param(b"", id="empty"),
    ],
)
def test_hostile_names_are_refused(value: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_ping_answer(answer_with(value))


def test_each_name_may_point_to_the_name_before() -> None:
    names = b"\1a\0" + b"\xc0\x18" + b"".join(bytes((0xC0, 0x1B + 2 * number)) for number in range(6))
    assert facts_in(answer_with(netlogon(names))).client_site == "a"


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30\x80\x02\1\1\x65\0\0\0", id="indefinite length"),
        pytest.param(b"\x30\x85\0\0\0\0\7\x02\1\1\x65\2\0\0", id="length of five bytes"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff\x02\1\1", id="4 GiB announced"),
        pytest.param(b"\x30\5\x02\0\x65\1\0", id="empty message id"),
        pytest.param(b"\x30\x0b\x02\6\1\1\1\1\1\1\x65\1\0", id="oversized message id"),
        pytest.param(b"\x30\5\x02\1\1\x73\0", id="a referral"),
        pytest.param(b"\x30\3\x02\1\1", id="no operation"),
        pytest.param(NOTHING + b"\0", id="trailing bytes"),
        pytest.param(NOTHING * 9, id="nine messages"),
        pytest.param(NOTHING + NOTHING.replace(b"\2\1\7", b"\2\1\x08"), id="two message ids"),
    ],
)
def test_datagram_without_ldap_answer_is_refused(datagram: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_ping_answer(datagram)


@given(st.binary(max_size=300))
@example(b"\x30\0")
def test_random_bytes_raise_no_other_error(datagram: bytes) -> None:
    decode_or_refuse(datagram)


@given(st.sampled_from(CAPTURED), st.data())
def test_damaged_answers_raise_no_other_error(captured: bytes, data: st.DataObject) -> None:
    damaged = bytearray(captured)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(captured) - 1))] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(damaged))


@given(st.binary(max_size=200))
def test_random_names_raise_no_other_error(names: bytes) -> None:
    decode_or_refuse(answer_with(netlogon(names)))


def decode_or_refuse(datagram: bytes) -> None:
    with contextlib.suppress(MalformedError):
        decode_ping_answer(datagram)
