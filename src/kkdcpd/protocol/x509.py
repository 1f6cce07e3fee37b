"""Whose certificates and revocation lists are, and until when they hold (RFC 5280 4.1, 4.2.1.6 and 5.1).

Whether a signature is good is OpenSSL's business. Subjects are written as in RFC 4514, so that a separator
within a value can't be taken for one between values. Of a revocation list, only what stands before the first
entry is read.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.protocol import der

__all__ = ["CertificateFacts", "CrlFacts", "read_certificate", "read_crl"]

_OBJECT_IDENTIFIER, _SET, _ANY = b"\x06", b"\x31", bytes(range(256))
_UTC_TIME, _GENERALIZED_TIME = 0x17, der.GENERALIZED_TIME[0]
_EXPLICIT = b"\xa0"
_VERSION, _EXTENSIONS = 0xA0, 0xA3  # explicit tags of a TBSCertificate
_OTHER_NAME, _EMAIL, _DNS, _URI = 0xA0, 0x81, 0x82, 0x86  # implicit tags of a GeneralName

_SUBJECT_ALTERNATIVE_NAME = bytes.fromhex("551d11")
_USER_PRINCIPAL_NAME = bytes.fromhex("2b060104018237140203")  # 1.3.6.1.4.1.311.20.2.3, [MS-WCCE]

# RFC 4514 3, and those that OpenSSL has a short name for beside them.
_ATTRIBUTES = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550409"): "STREET",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("0992268993f22c640101"): "UID",
    bytes.fromhex("550404"): "SN",
    bytes.fromhex("550405"): "serialNumber",
    bytes.fromhex("55040c"): "title",
    bytes.fromhex("55042a"): "GN",
    bytes.fromhex("2a864886f70d010901"): "emailAddress",
}
# X.680 41: the tags of texts. TeletexString is used for Latin 1 whatever T.61 says.
_ENCODINGS = {
    0x0C: "utf-8",
    0x12: "latin-1",
    0x13: "latin-1",
    0x14: "latin-1",
    0x16: "latin-1",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
_SPECIAL = re.compile(r'[",+;<>\\]|^[ #]| \Z')
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TIME = re.compile(rb"(\d{2,4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")

_MAX_OID_BYTES = 128  # RFC 2578 7.1.3 has 128 numbers at most; those in use take some ten octets

_Element = tuple[int, der.Span]


@frozen
class CertificateFacts:
    """Whose a certificate is. `names` are of subjectAltName, after `dns:`, `email:`, `uri:` or `upn:`."""

    subject: str
    issuer: str
    end: datetime
    names: tuple[str, ...]


@frozen
class CrlFacts:
    """Whose revocation list it is, from when, and when the next one is due."""

    issuer: str
    start: datetime
    next_update: datetime | None


def read_certificate(octets: bytes) -> CertificateFacts:
    """Read a Certificate.

    Raises:
        MalformedError: it isn't one.
    """
    body = _body(octets)
    if body and body[0][0] == _VERSION:
        del body[0]
    if len(body) < 6:
        raise MalformedError("a certificate that lacks fields")
    _serial, _algorithm, (_tag, issuer), (_tag, validity), (_tag, subject), *rest = body
    times = list(_elements(octets, validity))
    if len(times) != 2:
        raise MalformedError("a certificate without a validity")
    extensions = next((span for tag, span in rest if tag == _EXTENSIONS), None)
    return CertificateFacts(
        subject=_distinguished_name(octets, subject),
        issuer=_distinguished_name(octets, issuer),
        end=_time(octets, times[1]),
        names=tuple(_alternative_names(octets, extensions)) if extensions else (),
    )


def read_crl(octets: bytes) -> CrlFacts:
    """Read a CertificateList.

    Raises:
        MalformedError: it isn't one.
    """
    body = _body(octets, at_most=5)
    if body and body[0][0] == der.INTEGER[0]:
        del body[0]
    if len(body) < 3:
        raise MalformedError("a revocation list that lacks fields")
    _algorithm, (_tag, issuer), start, *rest = body
    has_next = bool(rest) and rest[0][0] in {_UTC_TIME, _GENERALIZED_TIME}
    return CrlFacts(
        issuer=_distinguished_name(octets, issuer),
        start=_time(octets, start),
        next_update=_time(octets, rest[0]) if has_next else None,
    )


def _body(octets: bytes, *, at_most: int = 16) -> list[_Element]:
    """Return the first elements of what is signed."""
    whole = der.read_element(octets, 0, len(octets), der.SEQUENCE)
    signed = der.read_element(octets, whole[0], whole[1], der.SEQUENCE)
    return list(islice(_elements(octets, signed), at_most))


def _elements(octets: bytes, span: der.Span) -> Iterator[_Element]:
    position, end = span
    while position != end:
        inner = der.read_element(octets, position, end, _ANY)
        yield octets[position], inner
        position = inner[1]


def _time(octets: bytes, element: _Element) -> datetime:
    tag, (start, stop) = element
    found = _TIME.fullmatch(octets[start:stop])
    if not found or len(found[1]) != {_UTC_TIME: 2, _GENERALIZED_TIME: 4}.get(tag):
        raise MalformedError("a time that isn't one")
    year, *others = map(int, found.groups())
    if tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000  # RFC 5280 4.1.2.5.1
    try:
        return datetime(year, *others, tzinfo=UTC)  # type: ignore[arg-type, misc]
    except ValueError as error:
        raise MalformedError("a time that isn't one") from error


def _distinguished_name(octets: bytes, span: der.Span) -> str:
    """Write a Name as RFC 4514 2 has it: the last RDN first."""
    relative = der.read_items(octets, span, _SET)
    return ",".join("+".join(_attributes(octets, item)) for item in reversed(relative))


def _attributes(octets: bytes, span: der.Span) -> Iterator[str]:
    for start, stop in der.read_items(octets, span, der.SEQUENCE):
        identifier = der.read_element(octets, start, stop, _OBJECT_IDENTIFIER)
        value = der.read_element(octets, identifier[1], stop, _ANY)
        oid = octets[slice(*identifier)]
        text = _text(octets, (octets[identifier[1]], value)) if oid in _ATTRIBUTES else None
        if text is None:
            yield f"{_ATTRIBUTES.get(oid) or _dotted(oid)}=#{octets[identifier[1] : value[1]].hex()}"
        else:
            yield f"{_ATTRIBUTES[oid]}={_escaped(text)}"


def _text(octets: bytes, element: _Element) -> str | None:
    tag, (start, stop) = element
    encoding = _ENCODINGS.get(tag)
    return octets[start:stop].decode(encoding, "replace") if encoding else None


def _escaped(text: str) -> str:
    return _printable(_SPECIAL.sub(r"\\\g<0>", text))


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: "".join(f"\\{octet:02X}" for octet in found[0].encode()), text)


def _dotted(oid: bytes) -> str:
    """Write an OBJECT IDENTIFIER's contents (X.690 8.19)."""
    if len(oid) > _MAX_OID_BYTES:
        raise MalformedError("an OBJECT IDENTIFIER too long to be one")
    numbers, number = [], 0
    for octet in oid:
        number = number << 7 | octet & 0x7F
        if octet < 0x80:
            numbers.append(number)
            number = 0
    first, *others = numbers or [0]
    root = min(first // 40, 2)
    return ".".join(map(str, (root, first - 40 * root, *others)))


def _alternative_names(octets: bytes, span: der.Span) -> Iterator[str]:
    for start, stop in der.read_items(octets, der.read_element(octets, *span, der.SEQUENCE), der.SEQUENCE):
        identifier = der.read_element(octets, start, stop, _OBJECT_IDENTIFIER)
        *_critical, (_tag, value) = ((0, (stop, stop)), *_elements(octets, (identifier[1], stop)))
        if octets[slice(*identifier)] == _SUBJECT_ALTERNATIVE_NAME:
            names = der.read_element(octets, *value, der.SEQUENCE)
            for element in _elements(octets, names):
                yield from _general_name(octets, element)


def _general_name(octets: bytes, element: _Element) -> Iterator[str]:
    tag, (start, stop) = element
    kind = {_EMAIL: "email", _DNS: "dns", _URI: "uri"}.get(tag)
    if kind:
        yield f"{kind}:{_printable(octets[start:stop].decode('latin-1'))}"
    elif tag == _OTHER_NAME:
        identifier = der.read_element(octets, start, stop, _OBJECT_IDENTIFIER)
        value = der.read_element(octets, identifier[1], stop, _EXPLICIT)
        if octets[slice(*identifier)] == _USER_PRINCIPAL_NAME:
            texts = (_text(octets, inner) for inner in _elements(octets, value))
            yield from (f"upn:{_printable(text)}" for text in texts if text)
