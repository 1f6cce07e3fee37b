"""Defines Kerberos messages as pyasn1 schemas, after RFC 4120 appendix A and [MS-KKDCP] 2.2.2.

Tests compare the results of kkdcpd.protocol with these schemas, which share no code with it. Strings are
bytes in the schemas, because implementations send UTF-8 in a GeneralString.
"""

from typing import Any

from pyasn1.codec.ber.encoder import IntegerEncoder, SequenceEncoder
from pyasn1.codec.der import decoder, encoder
from pyasn1.error import PyAsn1Error
from pyasn1.type import char, constraint, namedtype, tag, univ, useful

__all__ = [
    "AP_REP",
    "AP_REQ",
    "AS_REP",
    "AS_REQ",
    "KDC_PROXY_MESSAGE",
    "KRB_ERROR",
    "KRB_PRIV",
    "TGS_REP",
    "TGS_REQ",
    "NotDerError",
    "decode",
    "encode",
]


class NotDerError(Exception):
    """The data is not the DER encoding of exactly one value of the schema."""


def decode(data: bytes, schema: Any) -> Any:
    """Decode data that must be the DER encoding of one value.

    pyasn1 accepts some BER, but writes DER only. Data that differs from its written form is not DER.
    """
    try:
        value, rest = decoder.decode(data, asn1Spec=schema)
        again = encode(value)
    except PyAsn1Error as error:
        raise NotDerError(str(error)) from error
    if rest or again != data:
        raise NotDerError("not DER")
    return value


def encode(value: Any) -> bytes:
    """Encode a value of a schema in DER."""
    return bytes(_Encoder()(value))


class _MinimalInteger(IntegerEncoder):  # type: ignore[misc]
    """Corrects pyasn1 0.6, which writes -128 and every other -2^(8n-1) with a byte too many."""

    def encodeValue(self, value: Any, *_: Any, **__: Any) -> tuple[bytes, bool, bool]:  # noqa: N802
        number = int(value)
        data = (number + (number < 0)).bit_length() // 8 + 1
        return number.to_bytes(data, "big", signed=True), False, True


_ENCODERS = {
    univ.Integer: _MinimalInteger(),
    # pyasn1's DER encoder omits an optional list that is empty. That is DER, but contradicts RFC 4120 5.1.3.
    univ.Sequence: SequenceEncoder(),
}


class _ItemEncoder(encoder.SingleItemEncoder):  # type: ignore[misc]
    TAG_MAP = {**encoder.TAG_MAP, **{kind.tagSet: codec for kind, codec in _ENCODERS.items()}}  # noqa: RUF012
    TYPE_MAP = {**encoder.TYPE_MAP, **{kind.typeId: codec for kind, codec in _ENCODERS.items()}}  # noqa: RUF012


class _Encoder(encoder.Encoder):  # type: ignore[misc]
    SINGLE_ITEM_ENCODER = _ItemEncoder


def _explicit(number: int, schema: Any, tag_class: int = tag.tagClassContext) -> Any:
    return schema.subtype(explicitTag=tag.Tag(tag_class, tag.tagFormatConstructed, number))


def _application(number: int, schema: Any) -> Any:
    return _explicit(number, schema, tag.tagClassApplication)


def _sequence(*fields: Any) -> Any:
    return univ.Sequence(componentType=namedtype.NamedTypes(*fields))


def _field(number: int, name: str, schema: Any) -> Any:
    return namedtype.NamedType(name, _explicit(number, schema))


def _optional(number: int, name: str, schema: Any) -> Any:
    return namedtype.OptionalNamedType(name, _explicit(number, schema))


def _choice(**alternatives: Any) -> Any:
    return univ.Choice(
        componentType=namedtype.NamedTypes(*(namedtype.NamedType(*item) for item in alternatives.items()))
    )


def _string(string: Any) -> Any:
    """Return the string type with bytes of any character set as its contents."""
    return univ.OctetString().subtype(implicitTag=string.tagSet.superTags[-1])


def _integer(lower: int, upper: int) -> Any:
    return univ.Integer().subtype(subtypeSpec=constraint.ValueRangeConstraint(lower, upper))


_INT32 = _integer(-(2**31), 2**31 - 1)
_ANY_INT32 = _integer(-(2**31), 2**32 - 1)
"""An Int32 or UInt32: implementations differ about the sign of 32 bits (RFC 4120 5.2.9 has an example)."""

_GENERAL_STRING = _string(char.GeneralString())
_REALM = _GENERAL_STRING
_FLAGS = univ.BitString()
_KERBEROS_TIME = useful.GeneralizedTime().subtype(subtypeSpec=constraint.ValueSizeConstraint(15, 15))
_PVNO = _integer(5, 5)
_PRINCIPAL_NAME = _sequence(
    _field(0, "name-type", _INT32),
    _field(1, "name-string", univ.SequenceOf(componentType=_GENERAL_STRING)),
)
_HOST_ADDRESS = _sequence(_field(0, "addr-type", _INT32), _field(1, "address", univ.OctetString()))
_HOST_ADDRESSES = univ.SequenceOf(componentType=_HOST_ADDRESS)
_PA_DATA = _sequence(_field(1, "padata-type", _INT32), _field(2, "padata-value", univ.OctetString()))
_ENCRYPTED_DATA = _sequence(
    _field(0, "etype", _INT32),
    _optional(1, "kvno", _ANY_INT32),
    _field(2, "cipher", univ.OctetString()),
)
_TICKET = _application(
    1,
    _sequence(
        _field(0, "tkt-vno", _PVNO),
        _field(1, "realm", _REALM),
        _field(2, "sname", _PRINCIPAL_NAME),
        _field(3, "enc-part", _ENCRYPTED_DATA),
    ),
)
_KDC_REQ_BODY = _sequence(
    _field(0, "kdc-options", _FLAGS),
    _optional(1, "cname", _PRINCIPAL_NAME),
    _field(2, "realm", _REALM),
    _optional(3, "sname", _PRINCIPAL_NAME),
    _optional(4, "from", _KERBEROS_TIME),
    _field(5, "till", _KERBEROS_TIME),
    _optional(6, "rtime", _KERBEROS_TIME),
    _field(7, "nonce", _ANY_INT32),
    _field(8, "etype", univ.SequenceOf(componentType=_INT32)),
    _optional(9, "addresses", _HOST_ADDRESSES),
    _optional(10, "enc-authorization-data", _ENCRYPTED_DATA),
    _optional(11, "additional-tickets", univ.SequenceOf(componentType=_TICKET)),
)


def _kdc_req(msg_type: int) -> Any:
    return _application(
        msg_type,
        _sequence(
            _field(1, "pvno", _PVNO),
            _field(2, "msg-type", _integer(msg_type, msg_type)),
            _optional(3, "padata", univ.SequenceOf(componentType=_PA_DATA)),
            _field(4, "req-body", _KDC_REQ_BODY),
        ),
    )


def _kdc_rep(msg_type: int) -> Any:
    return _application(
        msg_type,
        _sequence(
            _field(0, "pvno", _PVNO),
            _field(1, "msg-type", _integer(msg_type, msg_type)),
            _optional(2, "padata", univ.SequenceOf(componentType=_PA_DATA)),
            _field(3, "crealm", _REALM),
            _field(4, "cname", _PRINCIPAL_NAME),
            _field(5, "ticket", _TICKET),
            _field(6, "enc-part", _ENCRYPTED_DATA),
        ),
    )


AS_REQ = _kdc_req(10)
AS_REP = _kdc_rep(11)
TGS_REQ = _kdc_req(12)
TGS_REP = _kdc_rep(13)
AP_REQ = _application(
    14,
    _sequence(
        _field(0, "pvno", _PVNO),
        _field(1, "msg-type", _integer(14, 14)),
        _field(2, "ap-options", _FLAGS),
        _field(3, "ticket", _TICKET),
        _field(4, "authenticator", _ENCRYPTED_DATA),
    ),
)
AP_REP = _application(
    15,
    _sequence(
        _field(0, "pvno", _PVNO),
        _field(1, "msg-type", _integer(15, 15)),
        _field(2, "enc-part", _ENCRYPTED_DATA),
    ),
)
KRB_PRIV = _application(
    21,
    _sequence(
        _field(0, "pvno", _PVNO),
        _field(1, "msg-type", _integer(21, 21)),
        _field(3, "enc-part", _ENCRYPTED_DATA),
    ),
)
KRB_ERROR = _application(
    30,
    _sequence(
        _field(0, "pvno", _PVNO),
        _field(1, "msg-type", _integer(30, 30)),
        _optional(2, "ctime", _KERBEROS_TIME),
        _optional(3, "cusec", _INT32),
        _field(4, "stime", _KERBEROS_TIME),
        _field(5, "susec", _INT32),
        _field(6, "error-code", _INT32),
        _optional(7, "crealm", _REALM),
        _optional(8, "cname", _PRINCIPAL_NAME),
        _field(9, "realm", _REALM),
        _field(10, "sname", _PRINCIPAL_NAME),
        _optional(11, "e-text", _GENERAL_STRING),
        _optional(12, "e-data", univ.OctetString()),
    ),
)
KDC_PROXY_MESSAGE = _sequence(
    _field(0, "kerb-message", univ.OctetString()),
    _optional(
        1,
        "target-domain",
        _choice(
            general=_GENERAL_STRING,
            utf8=_string(char.UTF8String()),
            ia5=_string(char.IA5String()),
        ),
    ),
    _optional(2, "dclocator-hint", _ANY_INT32),
)
