import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.der import decoder
from pyasn1.type import univ

from kkdcpd.errors import MalformedError
from kkdcpd.protocol import der
from kkdcpd.protocol.der import ABSENT, Field, Grammar

PAIR = Grammar("Pair", Field(0, der.INTEGER), Field(1, der.OCTET_STRING + der.IA5_STRING, is_optional=True))


def _whole(encoded: bytes) -> der.Span:
    return 0, len(encoded)


@pytest.mark.parametrize(
    ("encoded", "span"),
    [
        (b"\x04\x00", (2, 2)),
        (b"\x04\x03abc", (2, 5)),
        (b"\x04\x7f" + bytes(127), (2, 129)),
        (b"\x04\x81\x80" + bytes(128), (3, 131)),
        (b"\x04\x82\x01\x00" + bytes(256), (4, 260)),
        (b"\x04\x83\x01\x00\x00" + bytes(65536), (5, 65541)),
    ],
    ids=["empty", "short", "127 bytes", "128 bytes", "256 bytes", "65536 bytes"],
)
def test_contents_of_an_element_begin_after_its_header(encoded: bytes, span: der.Span) -> None:
    assert der.read_element(encoded, 0, len(encoded), der.OCTET_STRING) == span


def test_element_is_read_and_the_bytes_after_it_are_left() -> None:
    assert der.read_element(b"xx\x04\x01ayy", 2, 6, der.OCTET_STRING) == (4, 5)


@pytest.mark.parametrize(
    ("encoded", "end", "problem"),
    [
        (b"", 0, "ends within"),
        (b"\x04", 1, "ends within"),
        (b"\x04\x81", 2, "ends within"),
        (b"\x04\x82\x01", 3, "ends within"),
        (b"\x04\x01", 2, "reaches past"),
        (b"\x04\x02ab", 3, "reaches past"),
        (b"\x04\x00", 0, "reaches past"),
        (b"\x04\x00", 1, "reaches past"),
        (b"\x04\x84\xff\xff\xff\xff", 6, "reaches past"),
        (b"\x04\x80\x00\x00", 4, "indefinite"),
        (b"\x04\x85\x00\x00\x00\x00\x01a", 8, "oversized"),
        (b"\x04\xff" + bytes(127), 129, "oversized"),
        (b"\x04\x81\x00", 3, "shortest form"),
        (b"\x04\x81\x7f" + bytes(127), 130, "shortest form"),
        (b"\x04\x82\x00\x80" + bytes(128), 132, "shortest form"),
        (b"\x05\x00", 2, "tag 0x05 where 0x04 belongs"),
        (b"\x24\x00", 2, "tag 0x24 where 0x04 belongs"),
        (b"\x1f\x04\x00", 3, "tag 0x1f|reaches past"),
    ],
)
def test_element_is_refused_if_not_in_der(encoded: bytes, end: int, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        der.read_element(encoded, 0, end, der.OCTET_STRING)


@pytest.mark.parametrize(
    ("encoded", "spans"),
    [
        (b"\xa0\x03\x02\x01\x07", [(4, 5), ABSENT]),
        (b"\xa0\x03\x02\x01\x07\xa1\x03\x04\x01x", [(4, 5), (9, 10)]),
        (b"\xa0\x03\x02\x01\x07\xa1\x02\x16\x00", [(4, 5), (9, 9)]),
        (b"\xa0\x03\x02\x01\x07\xa1\x81\x83\x04\x81\x80" + bytes(128), [(4, 5), (11, 139)]),
    ],
    ids=["without the optional field", "with it", "empty and of the other type", "long"],
)
def test_sequence_has_a_span_for_each_field(encoded: bytes, spans: list[der.Span]) -> None:
    assert der.read_fields(encoded, _whole(encoded), PAIR) == spans


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        (b"", r"field \[0\] is missing"),
        (b"\xa1\x03\x04\x01x", r"field \[0\] is missing"),
        (b"\xa1\x03\x04\x01x\xa0\x03\x02\x01\x07", r"field \[0\] is missing"),
        (b"\xa0\x03\x02\x01\x07\xa0\x03\x02\x01\x07", "unknown or misplaced field at byte 5"),
        (b"\xa0\x03\x02\x01\x07\xa2\x03\x02\x01\x07", "unknown or misplaced field at byte 5"),
        (b"\xa0\x03\x02\x01\x07\x00", "unknown or misplaced field at byte 5"),
        (b"\xa0\x03\x04\x01\x07", "wrong type"),
        (b"\xa0\x03\x22\x01\x07", "wrong type"),
        (b"\xa0\x04\x02\x01\x07\x00", "wrong type or length"),
        (b"\xa0\x02\x02\x01\x07", "wrong type or length"),
        (b"\xa0\x04\x02\x02\x07", "wrong type or length"),
        (b"\xa0\x03\x02\x02\x07\x07", "wrong type or length"),
        (b"\x80\x01\x07", r"field \[0\] is missing"),
        (b"\xa0\x80\x02\x01\x07\x00\x00", "indefinite"),
        (b"\xa0\x81\x03\x02\x01\x07", "shortest form"),
        (b"\xa0\x04\x02\x81\x01\x07", "shortest form"),
        (b"\xa0\x05\x22\x80\x02\x01\x07\x00\x00", "indefinite"),
        (b"\xa0", "ends within a field"),
        (b"\xa0\x03", "ends within a field"),
        (b"\xa0\x03\x02", "ends within a field"),
        (b"\xa0\x82\x01", "ends within a field"),
    ],
)
def test_sequence_is_refused_if_against_its_grammar(encoded: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        der.read_fields(encoded, _whole(encoded), PAIR)


def test_field_may_not_reach_past_its_sequence_into_what_follows() -> None:
    with pytest.raises(MalformedError, match="wrong type or length"):
        der.read_fields(b"\xa0\x03\x02\x01\x07", (0, 4), PAIR)


def test_list_has_a_span_for_each_item() -> None:
    encoded = b"\x02\x01\x07\x02\x02\x01\x00"

    assert der.read_items(encoded, _whole(encoded), der.INTEGER) == [(2, 3), (5, 7)]
    assert der.read_items(encoded, (3, 3), der.INTEGER) == []


@pytest.mark.parametrize(
    "encoded", [b"\x02\x01\x07\x04\x01a", b"\x02\x01\x07\x00", b"\x02\x01\x07\x02", b"\x02\x02\x07"]
)
def test_list_is_refused_if_an_item_is_another_or_cut_off(encoded: bytes) -> None:
    with pytest.raises(MalformedError):
        der.read_items(encoded, _whole(encoded), der.INTEGER)


def test_list_may_be_as_long_as_the_limit_and_no_longer() -> None:
    longest = b"\x02\x01\x07" * der.MAX_ITEMS

    assert len(der.read_items(longest, _whole(longest), der.INTEGER)) == der.MAX_ITEMS
    with pytest.raises(MalformedError, match="more than 256 items"):
        der.read_items(longest + b"\x02\x01\x07", (0, len(longest) + 3), der.INTEGER)


def test_scanned_fields_may_have_any_number_and_type_and_order() -> None:
    encoded = b"\xbe\x03\x04\x01a\xa0\x02\x30\x00"

    assert der.scan_fields(encoded, _whole(encoded)) == {30: (0x04, 4, 5), 0: (0x30, 9, 9)}


def test_first_of_two_scanned_fields_with_one_number_counts() -> None:
    encoded = b"\xa0\x03\x02\x01\x07\xa0\x03\x02\x01\x08"

    assert der.scan_fields(encoded, _whole(encoded)) == {0: (0x02, 4, 5)}


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x02\x01\x07",
        b"\x80\x01\x07",
        b"\xa0\x00",
        b"\xa0\x06\x02\x01\x07\x02\x01\x08",
        b"\xa0\x04\x02\x01\x07\x00",
        b"\xa0\x03\x02\x02\x07",
        b"\xa0\x04\x02\x01\x07",
        b"\xa0\x80\x02\x01\x07\x00\x00",
        b"\xbf\x20\x03\x02\x01\x07",
        b"\xa0",
        b"\xa0\x03\x02\x01\x07\x00",
    ],
)
def test_scanned_fields_must_be_tagged_and_exactly_nested(encoded: bytes) -> None:
    with pytest.raises(MalformedError):
        der.scan_fields(encoded, _whole(encoded))


@given(st.integers(-(2**31), 2**32 - 1))
def test_integer_is_written_and_read_as_it_is(value: int) -> None:
    element = der.encode_integer(value)

    span = der.read_element(element, 0, len(element), der.INTEGER)
    assert der.read_integer(element, span, der.UINT32_BYTES) == value
    assert decoder.decode(element, asn1Spec=univ.Integer()) == (value, b"")


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "0080"),
        (256, "0100"),
        (2**31, "0080000000"),
        (2**32 - 1, "00ffffffff"),
        (-1, "ff"),
        (-128, "80"),
        (-129, "ff7f"),
        (-32768, "8000"),
        (-(2**31), "80000000"),
    ],
)
def test_integer_takes_as_few_bytes_as_can_be(value: int, encoded: str) -> None:
    contents = bytes.fromhex(encoded)

    assert der.encode_integer(value) == der.encode(0x02, contents)
    assert der.read_integer(contents, _whole(contents), der.UINT32_BYTES) == value


@pytest.mark.parametrize("encoded", ["0080000000", "00ffffffff"])
def test_int32_is_no_uint32(encoded: str) -> None:
    with pytest.raises(MalformedError, match="an INTEGER of 5 bytes"):
        der.read_integer(bytes.fromhex(encoded), (0, 5))


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        ("", "of 0 bytes"),
        ("0000", "shortest form"),
        ("007f", "shortest form"),
        ("ffff", "shortest form"),
        ("ff80", "shortest form"),
        ("0000000080", "shortest form"),
        ("0100000000", "more than 32 bits"),
        ("7fffffffff", "more than 32 bits"),
        ("8000000000", "more than 32 bits"),
        ("ff7fffffff", "more than 32 bits"),
        ("008000000000", "of 6 bytes"),
    ],
)
def test_integer_is_refused_if_not_minimal_or_too_large(encoded: str, problem: str) -> None:
    contents = bytes.fromhex(encoded)

    with pytest.raises(MalformedError, match=problem):
        der.read_integer(contents, _whole(contents), der.UINT32_BYTES)


@pytest.mark.parametrize(
    ("encoded", "bits"),
    [("00", ""), ("0040810010", "40810010"), ("01fe", "fe"), ("0780", "80"), ("07ff80", "ff80")],
)
def test_bit_string_gives_its_bytes(encoded: str, bits: str) -> None:
    contents = bytes.fromhex(encoded)

    assert der.read_bit_string(contents, _whole(contents)) == bytes.fromhex(bits)


@pytest.mark.parametrize("encoded", ["", "01", "07", "0800", "ff00", "01ff", "0740", "040f"])
def test_bit_string_is_refused_if_its_unused_bits_are_wrong(encoded: str) -> None:
    contents = bytes.fromhex(encoded)

    with pytest.raises(MalformedError, match="wrong unused bits"):
        der.read_bit_string(contents, _whole(contents))


def test_time_gives_its_bytes() -> None:
    assert der.read_time(b"--19700101000000Z--", (2, 17)) == b"19700101000000Z"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"19700101000000",
        b"197001010000Z",
        b"19700101000000z",
        b"19700101000000.5Z",
        b"19700101000000+0100",
        b"1970010100000\xb2Z",
        b"-9700101000000Z",
        b"1970010100 000Z",
        b"700101000000Z",
    ],
)
def test_time_is_refused_in_any_other_form(text: bytes) -> None:
    with pytest.raises(MalformedError, match="KerberosTime"):
        der.read_time(text, _whole(text))


@given(st.binary(max_size=70) | st.sampled_from([127, 128, 255, 256, 65535, 65536]).map(bytes))
def test_what_is_written_is_der(contents: bytes) -> None:
    element = der.encode(0x04, contents)
    start, stop = der.read_element(element, 0, len(element), der.OCTET_STRING)

    assert element[start:] == contents
    assert stop == len(element)
    assert decoder.decode(element, asn1Spec=univ.OctetString()) == (univ.OctetString(contents), b"")


def test_explicit_tag_goes_around_the_element() -> None:
    assert der.encode_explicit(2, der.encode_integer(7)) == b"\xa2\x03\x02\x01\x07"


def test_reply_of_endless_fields_is_not_read_to_its_end() -> None:
    field = der.encode_explicit(0, der.encode_integer(1))
    assert len(der.scan_fields(field * 64, (0, 64 * len(field)))) == 1
    with pytest.raises(MalformedError, match="more than 64 fields"):
        der.scan_fields(field * 65, (0, 65 * len(field)))
