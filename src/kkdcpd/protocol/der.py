"""Reads DER strictly and fast, and writes the few elements that an envelope needs (X.690 section 10).

Only what a Kerberos message can hold: tags of one byte, definite lengths in their shortest form, exact
nesting.
The grammars are tables of fields, so no message decides how deep or how long the reader goes. No recursion,
no schema objects: a full AS-REQ costs a twentieth of what a schema decoder takes.

A *span* is the pair (start, stop) of an element's contents within the bytes that it was read from.
"""

from dataclasses import dataclass

from kkdcpd.errors import MalformedError

__all__ = [
    "ABSENT",
    "BIT_STRING",
    "GENERALIZED_TIME",
    "GENERAL_STRING",
    "IA5_STRING",
    "INT32_BYTES",
    "INTEGER",
    "OCTET_STRING",
    "SEQUENCE",
    "UINT32_BYTES",
    "UTF8_STRING",
    "Field",
    "Grammar",
    "Span",
    "encode",
    "encode_explicit",
    "encode_integer",
    "read_bit_string",
    "read_element",
    "read_fields",
    "read_integer",
    "read_items",
    "read_time",
    "scan_fields",
]

INTEGER = b"\x02"
BIT_STRING = b"\x03"
OCTET_STRING = b"\x04"
UTF8_STRING = b"\x0c"
IA5_STRING = b"\x16"
GENERALIZED_TIME = b"\x18"
GENERAL_STRING = b"\x1b"
SEQUENCE = b"\x30"

MAX_ITEMS = 256
"""Items in one SEQUENCE OF: the longest lists seen hold some 30; 256 KiB could hold 80,000."""

MAX_FIELDS = 64
"""Fields of a reply: twice as many as there are tags for."""

INT32_BYTES = 4
UINT32_BYTES = 5
"""The longest of Kerberos' integers (RFC 4120 5.2.4): the first byte of five says that there is no sign."""

Span = tuple[int, int]

ABSENT: Span = (0, 0)
"""The span of a missing optional field. No contents start at byte 0, because a header is there."""


@dataclass(frozen=True, slots=True)
class Field:
    """`[number] EXPLICIT` around an element with one of the tags in `tags`."""

    number: int
    tags: bytes
    is_optional: bool = False


class Grammar:
    """A SEQUENCE of explicitly tagged fields, in order (RFC 4120 5.1 uses no others)."""

    __slots__ = ("name", "rows")

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.rows = tuple((0xA0 | field.number, field.tags, field.is_optional) for field in fields)


def read_element(data: bytes, position: int, end: int, tags: bytes) -> Span:
    """Read the header of an element with one of `tags` that ends at or before `end`; return its span.

    Raises:
        MalformedError: another tag, a length that is indefinite or not minimal, or past `end`.
    """
    try:
        tag = data[position]
        length = data[position + 1]
        start = position + 2
        if length > 0x7F:
            length, start = _read_long_length(data, start, length & 0x7F)
    except IndexError:
        raise MalformedError(f"byte {position}: the message ends within an element's header") from None
    if position >= end or start + length > end:
        raise MalformedError(f"byte {position}: an element reaches past what encloses it")
    if tag not in tags:
        raise MalformedError(f"byte {position}: tag 0x{tag:02x} where 0x{tags.hex('|')} belongs")
    return start, start + length


def _read_long_length(data: bytes, position: int, count: int) -> tuple[int, int]:
    """Read `count` bytes of a long-form length; return it and the start of the contents (X.690 8.1.3.5)."""
    if count == 1:
        length = data[position]
    elif count == 2:
        length = data[position] << 8 | data[position + 1]
    elif 3 <= count <= 4:
        # If the message ends here, the contents begin past its end: the caller finds that.
        length = int.from_bytes(data[position : position + count], "big")
    else:
        raise MalformedError(f"byte {position - 1}: indefinite or oversized length")
    if length < _LEAST_LENGTHS[count]:
        raise MalformedError(f"byte {position - 1}: length not in its shortest form")
    return length, position + count


_LEAST_LENGTHS = (0, 0x80, 1 << 8, 1 << 16, 1 << 24)
"""The least length that needs so many bytes."""


def read_fields(data: bytes, span: Span, grammar: Grammar) -> list[Span]:
    """Read the fields of a SEQUENCE: one span for each row of `grammar`, ABSENT for a missing field.

    Raises:
        MalformedError: a field is missing, unknown, out of order, doubled, of another type, or not nested
            exactly.
    """
    position, end = span
    found: list[Span] = []
    try:
        for outer_tag, inner_tags, is_optional in grammar.rows:
            if position < end and data[position] == outer_tag:
                length = data[position + 1]
                inner = position + 2
                if length > 0x7F:
                    length, inner = _read_long_length(data, inner, length & 0x7F)
                outer_stop = inner + length
                inner_tag = data[inner]
                length = data[inner + 1]
                start = inner + 2
                if length > 0x7F:
                    length, start = _read_long_length(data, start, length & 0x7F)
                if outer_stop > end or start + length != outer_stop or inner_tag not in inner_tags:
                    raise _field_error(grammar, outer_tag, "has the wrong type or length")
                found.append((start, outer_stop))
                position = outer_stop
            elif is_optional:
                found.append(ABSENT)
            else:
                raise _field_error(grammar, outer_tag, "is missing")
    except IndexError:
        raise MalformedError(f"{grammar.name}: the message ends within a field") from None
    if position != end:
        raise MalformedError(f"{grammar.name}: unknown or misplaced field at byte {position}")
    return found


def _field_error(grammar: Grammar, outer_tag: int, problem: str) -> MalformedError:
    return MalformedError(f"{grammar.name}: field [{outer_tag & 0x1F}] {problem}")


def read_items(data: bytes, span: Span, tags: bytes, maximum: int = MAX_ITEMS) -> list[Span]:
    """Read a SEQUENCE OF at most `maximum` elements with one of `tags`.

    Raises:
        MalformedError: as `read_element`, or too many.
    """
    position, end = span
    items: list[Span] = []
    while position != end:
        item = read_element(data, position, end, tags)
        items.append(item)
        position = item[1]
        if len(items) > maximum:
            raise MalformedError(f"byte {span[0]}: a list of more than {maximum} items")
    return items


def scan_fields(data: bytes, span: Span) -> dict[int, tuple[int, int, int]]:
    """Read explicitly tagged fields with any numbers: {number: (inner tag, start, stop)}.

    For replies, which come from the KDC: unknown fields are ignored.

    Raises:
        MalformedError: an element is no explicitly tagged field, or is not exactly nested.
    """
    position, end = span
    fields: dict[int, tuple[int, int, int]] = {}
    count = 0
    try:
        while position != end:
            tag = data[position]
            length = data[position + 1]
            inner = position + 2
            if length > 0x7F:
                length, inner = _read_long_length(data, inner, length & 0x7F)
            stop = inner + length
            length = data[inner + 1]
            start = inner + 2
            if length > 0x7F:
                length, start = _read_long_length(data, start, length & 0x7F)
            if tag not in _CONTEXT_TAGS or stop > end or start + length != stop:
                raise MalformedError(f"byte {position}: this isn't a tagged field with one element")
            fields.setdefault(tag & 0x1F, (data[inner], start, stop))
            position = stop
            count += 1
            if count > MAX_FIELDS:
                raise MalformedError(f"byte {position}: more than {MAX_FIELDS} fields")
    except IndexError:
        raise MalformedError(f"byte {position}: the message ends within a field") from None
    return fields


_CONTEXT_TAGS = bytes(range(0xA0, 0xBF))


def read_integer(data: bytes, span: Span, longest: int = INT32_BYTES) -> int:
    """Read the contents of an INTEGER of 32 bits: two's complement, shortest form.

    It is an Int32. If `longest` is UINT32_BYTES, it may be an UInt32 too.

    Raises:
        MalformedError: empty, not minimal (X.690 8.3.2) or of more than 32 bits.
    """
    start, stop = span
    if stop - start == 1:
        byte = data[start]
        return byte if byte < 0x80 else byte - 0x100
    if not 1 <= stop - start <= longest:
        raise MalformedError(f"byte {start}: an INTEGER of {stop - start} bytes")
    if data[start] in (0, 0xFF) and data[start] >> 7 == data[start + 1] >> 7:
        raise MalformedError(f"byte {start}: an INTEGER not in its shortest form")
    if stop - start == UINT32_BYTES and data[start]:
        raise MalformedError(f"byte {start}: an INTEGER of more than 32 bits")
    return int.from_bytes(data[start:stop], "big", signed=True)


def read_bit_string(data: bytes, span: Span) -> bytes:
    """Read the contents of a BIT STRING: its bytes, unused bits zero.

    Raises:
        MalformedError: no count of unused bits, more than seven, or any of them set (X.690 11.2.1).
    """
    start, stop = span
    unused = data[start] if start < stop else 8
    if unused > 7 or (unused and (stop - start == 1 or data[stop - 1] & (1 << unused) - 1)):
        raise MalformedError(f"byte {start}: a BIT STRING with wrong unused bits")
    return data[start + 1 : stop]


def read_time(data: bytes, span: Span) -> bytes:
    """Read the contents of a KerberosTime: YYYYMMDDHHMMSSZ, without fractions (RFC 4120 5.2.3).

    Raises:
        MalformedError: anything else.
    """
    text = data[span[0] : span[1]]
    if len(text) != 15 or text[14] != 0x5A or not text[:14].isdigit():
        raise MalformedError(f"byte {span[0]}: a KerberosTime that isn't YYYYMMDDHHMMSSZ")
    return text


def encode(tag: int, contents: bytes) -> bytes:
    """Build an element with a tag of one byte."""
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    encoded = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(encoded))) + encoded + contents


def encode_explicit(number: int, element: bytes) -> bytes:
    """Build `[number] EXPLICIT` around an element."""
    return encode(0xA0 | number, element)


def encode_integer(value: int) -> bytes:
    """Build an INTEGER in its shortest form."""
    length = (value + (value < 0)).bit_length() // 8 + 1
    return encode(INTEGER[0], value.to_bytes(length, "big", signed=True))
