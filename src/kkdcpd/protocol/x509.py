"""Reads names and validity dates of certificates and revocation lists (RFC 5280 4.1, 4.2.1.6 and 5.1).

OpenSSL decides whether a certificate is valid, and accepts more than RFC 5280 allows. So a part that cannot
be read is left out, and the other parts are still read. Subjects are written as in RFC 4514, so that a
separator within a value differs from a separator between values.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address

from pyasn1.codec.ber.decoder import decode
from pyasn1.error import PyAsn1Error
from pyasn1.type.base import Asn1Item
from pyasn1.type.namedtype import DefaultedNamedType, NamedType, NamedTypes
from pyasn1.type.tag import Tag, tagClassContext, tagFormatConstructed
from pyasn1.type.univ import Any, Boolean, ObjectIdentifier, OctetString, SetOf
from pyasn1.type.univ import Sequence as Asn1Sequence
from pyasn1.type.univ import SequenceOf as Asn1SequenceOf

from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen

__all__ = ["CertificateFacts", "CrlFacts", "folded_name", "read_certificate", "read_crl"]


def _context(number: int) -> Tag:
    return Tag(tagClassContext, tagFormatConstructed, number)


_ELEMENTS = Asn1SequenceOf(componentType=Any())
_ATTRIBUTE = Asn1Sequence(
    componentType=NamedTypes(NamedType("type", ObjectIdentifier()), NamedType("value", Any()))
)
_NAME = Asn1SequenceOf(componentType=SetOf(componentType=_ATTRIBUTE))
_EXTENSION = Asn1Sequence(
    componentType=NamedTypes(
        NamedType("extnID", ObjectIdentifier()),
        DefaultedNamedType("critical", Boolean(value=False)),
        NamedType("extnValue", OctetString()),
    )
)
_EXTENSIONS = Asn1SequenceOf(componentType=_EXTENSION).subtype(explicitTag=_context(3))
_OTHER_NAME = Asn1Sequence(
    componentType=NamedTypes(
        NamedType("type-id", ObjectIdentifier()),
        NamedType("value", Any().subtype(explicitTag=_context(0))),
    )
).subtype(implicitTag=_context(0))

# pyasn1 has an error of its own, but a length or tag beyond all measure brings about Python's.
_NOT_ASN1 = (PyAsn1Error, LookupError, OverflowError)

# Tags of fields, each in one byte.
_INTEGER, _UTC_TIME, _GENERALIZED_TIME = 0x02, 0x17, 0x18
_VERSION_TAG, _EXTENSIONS_TAG = 0xA0, 0xA3
_OTHER_NAME_TAG, _IP_ADDRESS_TAG = 0xA0, 0x87
_NAME_KINDS = {0x81: "email", 0x82: "dns", 0x86: "uri"}

_SUBJECT_ALTERNATIVE_NAME = "2.5.29.17"
_USER_PRINCIPAL_NAME = "1.3.6.1.4.1.311.20.2.3"  # [MS-WCCE]

# RFC 4514 3, and those that OpenSSL has a short name for beside them.
_ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.12": "title",
    "2.5.4.42": "GN",
    "1.2.840.113549.1.9.1": "emailAddress",
}
# X.680 41: the tags of texts. TeletexString is used for Latin 1, although T.61 is another set.
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


@frozen
class CertificateFacts:
    """The names and dates of a certificate. Text that cannot be read is empty, a date is None.

    `names` are of subjectAltName, after `dns:`, `email:`, `uri:`, `upn:` or `ip:`.
    """

    subject: str
    issuer: str
    start: datetime | None
    end: datetime | None
    names: tuple[str, ...]


@frozen
class CrlFacts:
    """The issuer of a revocation list, its date, and when the next list is due, if it says so."""

    issuer: str
    start: datetime | None
    next_update: datetime | None


def read_certificate(encoded: bytes) -> CertificateFacts:
    """Read a Certificate.

    Raises:
        MalformedError: the bytes are no certificate.
    """
    body = _signed_part(encoded)
    if body and body[0][0] == _VERSION_TAG:
        del body[0]
    if len(body) < 6:
        raise MalformedError("a certificate that lacks fields")
    _serial, _algorithm, issuer, validity, subject, *rest = body
    start, end = _dates(validity)
    return CertificateFacts(
        subject=_distinguished_name(subject),
        issuer=_distinguished_name(issuer),
        start=start,
        end=end,
        names=tuple(_alternative_names(rest)),
    )


def read_crl(encoded: bytes) -> CrlFacts:
    """Read a CertificateList, except its entries.

    Raises:
        MalformedError: the bytes are no revocation list.
    """
    body = _signed_part(encoded)
    if body and body[0][0] == _INTEGER:
        del body[0]
    if len(body) < 3:
        raise MalformedError("a revocation list that lacks fields")
    _algorithm, issuer, start, *rest = body
    return CrlFacts(
        issuer=_distinguished_name(issuer), start=_time(start), next_update=_time(rest[0]) if rest else None
    )


def folded_name(name: str) -> str:
    """Return a text that is equal for equal names (RFC 5280 7.1, as far as it matters)."""
    return " ".join(name.casefold().split())


def _decoded(encoded: bytes, form: Asn1Item) -> Asn1Item:
    try:
        value, _rest = decode(encoded, asn1Spec=form)
    except _NOT_ASN1 as error:
        raise MalformedError("ASN.1 that isn't what it should be") from error
    return value


def _elements(encoded: bytes) -> list[bytes]:
    """Return the elements of a SEQUENCE, each with its tag."""
    return [bytes(element) for element in _decoded(encoded, _ELEMENTS)]


def _signed_part(encoded: bytes) -> list[bytes]:
    """Return the fields of the first element, which is signed."""
    return _elements(next(iter(_elements(encoded)), b""))


def _contents(element: bytes) -> bytes:
    """Return the contents of an element with any tag."""
    contents: bytes = _decoded(b"\x04" + element[1:], OctetString()).asOctets()
    return contents


def _dates(validity: bytes) -> tuple[datetime | None, datetime | None]:
    with suppress(MalformedError, ValueError):
        start, end = _elements(validity)
        return _time(start), _time(end)
    return None, None


def _time(element: bytes) -> datetime | None:
    """Read a Time as RFC 5280 4.1.2.5 writes it; OpenSSL compares no other form."""
    if element[0] not in {_UTC_TIME, _GENERALIZED_TIME}:
        return None
    found = _TIME.fullmatch(_contents(element))
    if not found or len(found[1]) != {_UTC_TIME: 2, _GENERALIZED_TIME: 4}[element[0]]:
        return None
    year, *others = map(int, found.groups())
    if element[0] == _UTC_TIME:
        year += 1900 if year >= 50 else 2000  # RFC 5280 4.1.2.5.1
    with suppress(ValueError):
        return datetime(year, *others, tzinfo=UTC)  # type: ignore[arg-type, misc]
    return None


def _distinguished_name(encoded: bytes) -> str:
    """Write a Name as RFC 4514 2 has it: the last RDN first."""
    with suppress(MalformedError):
        relative = list(_decoded(encoded, _NAME))
        return ",".join("+".join(map(_attribute, item)) for item in reversed(relative))
    return ""


def _attribute(attribute: Asn1Item) -> str:
    identifier, value = str(attribute["type"]), bytes(attribute["value"])
    text = _text(value) if identifier in _ATTRIBUTES else None
    written = f"#{value.hex()}" if text is None else _escaped(text)
    return f"{_ATTRIBUTES.get(identifier, identifier)}={written}"


def _text(element: bytes) -> str | None:
    encoding = _ENCODINGS.get(element[0])
    return _contents(element).decode(encoding, "replace") if encoding else None


def _escaped(text: str) -> str:
    return _printable(_SPECIAL.sub(r"\\\g<0>", text))


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: "".join(f"\\{byte:02X}" for byte in found[0].encode()), text)


def _alternative_names(fields: Sequence[bytes]) -> Iterator[str]:
    """Return the names of each subjectAltName among the last fields of a TBSCertificate."""
    for field in fields:
        with suppress(MalformedError):
            for extension in _decoded(field, _EXTENSIONS) if field[0] == _EXTENSIONS_TAG else ():
                if str(extension["extnID"]) == _SUBJECT_ALTERNATIVE_NAME:
                    yield from _general_names(bytes(extension["extnValue"]))


def _general_names(encoded: bytes) -> Iterator[str]:
    for element in _elements(encoded):
        with suppress(MalformedError, ValueError):
            if kind := _NAME_KINDS.get(element[0]):
                yield f"{kind}:{_printable(_contents(element).decode(errors='replace'))}"
            elif element[0] == _IP_ADDRESS_TAG:
                yield f"ip:{ip_address(_contents(element))}"
            elif element[0] == _OTHER_NAME_TAG:
                yield from _user_principal_name(element)


def _user_principal_name(element: bytes) -> Iterator[str]:
    other = _decoded(element, _OTHER_NAME)
    if str(other["type-id"]) == _USER_PRINCIPAL_NAME and (text := _text(bytes(other["value"]))):
        yield f"upn:{_printable(text)}"
