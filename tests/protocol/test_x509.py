"""Certificates and revocation lists that `cryptography` makes. It also reads their expected contents."""

import datetime
import ipaddress
from collections.abc import Callable, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.x509 import read_certificate, read_crl

KEY = ec.generate_private_key(ec.SECP256R1())
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(2027, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
COMMON_NAME = NameOID.COMMON_NAME


def named(*attributes: x509.NameAttribute[str]) -> x509.Name:
    return x509.Name(attributes)


ANN = named(x509.NameAttribute(COMMON_NAME, "Ann"))
ROOT = named(
    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(COMMON_NAME, "Root")
)


def certificate(
    subject: x509.Name = ANN, names: Sequence[x509.GeneralName] = (), end: datetime.datetime = END
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ROOT)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def revocation_list(*serials: int, next_update: datetime.datetime = END) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(ROOT).last_update(START).next_update(next_update)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(START).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_certificate_is_read() -> None:
    facts = read_certificate(certificate())
    assert (facts.subject, facts.issuer, facts.end, facts.names) == ("CN=Ann", "CN=Root,O=Example", END, ())


@pytest.mark.parametrize("year", [2027, 2049, 2050, 9999])
def test_either_form_of_a_time_is_read(year: int) -> None:
    end = END.replace(year=year)
    assert read_certificate(certificate(end=end)).end == end
    assert read_crl(revocation_list(next_update=end)).next_update == end


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Ann", "Ann"),
        ("Ännchen Öß", "Ännchen Öß"),
        ("Ann, O=Evil", r"Ann\, O=Evil"),
        (r'a+b"c\d<e>f;g', r"a\+b\"c\\d\<e\>f\;g"),
        ("#1", r"\#1"),
        (" both ", r"\ both\ "),
        (" ", r"\ "),
        ("a\nb\0\x7f\x85", r"a\0Ab\00\7F\C2\85"),
    ],
)
def test_subject_is_escaped_as_in_rfc_4514(value: str, written: str) -> None:
    subject = named(x509.NameAttribute(COMMON_NAME, value))
    assert read_certificate(certificate(subject)).subject == f"CN={written}"


@given(
    values=st.lists(
        st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20),
        min_size=1,
        max_size=4,
    )
)
def test_subject_is_what_cryptography_writes(values: list[str]) -> None:
    kinds = [
        NameOID.COMMON_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.USER_ID,
    ]
    subject = named(*map(x509.NameAttribute, kinds, values))
    assert read_certificate(certificate(subject)).subject == subject.rfc4514_string()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (_ASN1Type.BMPString, "Ännchen €"),
        (_ASN1Type.UniversalString, "Ännchen €"),
        (_ASN1Type.T61String, "Ann"),
        (_ASN1Type.IA5String, "Ann"),
        (_ASN1Type.PrintableString, "Ann"),
    ],
)
def test_every_kind_of_text_is_read(kind: _ASN1Type, value: str) -> None:
    subject = named(x509.NameAttribute(COMMON_NAME, value, kind))
    assert read_certificate(certificate(subject)).subject == f"CN={value}"


def test_attributes_of_one_rdn_stand_together_and_unknown_ones_as_bytes() -> None:
    subject = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")]),
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(COMMON_NAME, "Ann"), x509.NameAttribute(NameOID.SERIAL_NUMBER, "7")]
            ),
            x509.RelativeDistinguishedName([x509.NameAttribute(x509.ObjectIdentifier("2.999.16384.1"), "x")]),
        ]
    )
    written = read_certificate(certificate(subject)).subject
    first, second, third = written.split(",")
    assert (first, set(second.split("+")), third) == (
        "2.999.16384.1=#0c0178",
        {"CN=Ann", "serialNumber=7"},
        "C=DE",
    )


def test_names_of_five_kinds_are_read_and_others_passed_over() -> None:
    names = [
        x509.DNSName("Host.example.com"),
        x509.OtherName(UPN, b"\x0c\x0fann@EXAMPLE.COM"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.2.2"), b"\x30\x00"),
        x509.RFC822Name("ann@example.com"),
        x509.UniformResourceIdentifier("spiffe://example.com/ann"),
        x509.RegisteredID(UPN),
        x509.DirectoryName(ANN),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.DNSName("a\nb"),
    ]
    assert read_certificate(certificate(names=names)).names == (
        "dns:Host.example.com",
        "upn:ann@EXAMPLE.COM",
        "email:ann@example.com",
        "uri:spiffe://example.com/ann",
        "ip:192.0.2.1",
        "ip:2001:db8::1",
        r"dns:a\0Ab",
    )


def test_revocation_list_is_read_however_long_it_is() -> None:
    facts = read_crl(revocation_list(*range(1, 500)))
    assert (facts.issuer, facts.start, facts.next_update) == ("CN=Root,O=Example", START, END)


END_BYTES = b"\x17\x0d270203040506Z"


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (END_BYTES, b"\x17\x0d271303040506Z", {"end": None}),
        (END_BYTES, b"\x17\x0dABCDEFGHIJKLM", {"end": None}),
        (END_BYTES, b"\x17\x0d2702030405+01", {"end": None}),
        (END_BYTES, b"\x18\x0d270203040506Z", {"end": None}),
        (END_BYTES, b"\x02\x0d270203040506Z", {"end": None}),
        (END_BYTES, END_BYTES.replace(b"27", b"55"), {"end": END.replace(year=1955)}),
        (b"\x06\x03\x55\x04\x03\x0c\x03Ann", b"\x06\x03\x55\x04\x83\x0c\x03Ann", {"subject": ""}),
        (b"\x0c\x03Ann", b"\x0c\x03A\xffn", {"subject": "CN=A\ufffdn"}),
        (b"\x82\x05b.com", b"\x82\x05\xe4.com", {"names": ("dns:a.com", "dns:\ufffd.com")}),
        (b"\x82\x05b.com", b"\x87\x05b.com", {"names": ("dns:a.com",)}),
        (b"\x06\x03\x55\x1d\x11", b"\x06\x03\x55\x1d\x91", {"names": ()}),
    ],
)
def test_part_that_cannot_be_read_is_left_out_and_the_others_are_read(
    old: bytes, new: bytes, changed: dict[str, object]
) -> None:
    whole = certificate(names=[x509.DNSName("a.com"), x509.DNSName("b.com")])
    assert old in whole
    facts = read_certificate(whole.replace(old, new.ljust(len(old))))
    for name in ("subject", "issuer", "start", "end", "names"):
        assert getattr(facts, name) == changed.get(name, getattr(read_certificate(whole), name))


@pytest.mark.parametrize("length", [b"\x84\xff\xff\xff\xff", b"\x88" + b"\xff" * 8, b"\xfe" + b"\xff" * 126])
@pytest.mark.parametrize("read", [read_certificate, read_crl])
def test_huge_length_is_malformed(read: Callable[[bytes], object], length: bytes) -> None:
    for head in (b"\x30", b"\x30\x80\x30", b"\x1f\xff\xff", b"\x24"):
        with pytest.raises(MalformedError):
            read(head + length + b"\x30\x00")


@pytest.mark.parametrize("first", [b"\x02", b"\x04"], ids=["with a version", "without one"])
@pytest.mark.parametrize(
    ("read", "kind"), [(read_certificate, "a certificate"), (read_crl, "a revocation list")]
)
def test_missing_fields_are_malformed(read: Callable[[bytes], object], kind: str, first: bytes) -> None:
    with pytest.raises(MalformedError, match=f"{kind} that lacks fields"):
        read(b"\x30\x05\x30\x03" + first + b"\x01\x07")


SAMPLES = {
    read_certificate: certificate(names=[x509.DNSName("a"), x509.OtherName(UPN, b"\x0c\x01a")]),
    read_crl: revocation_list(7),
}


@pytest.mark.parametrize(("read", "encoded"), SAMPLES.items(), ids=["certificate", "list"])
def test_truncated_certificate_is_malformed(read: object, encoded: bytes) -> None:
    assert callable(read)
    for length in range(len(encoded)):
        with pytest.raises(MalformedError):
            read(encoded[:length])


@given(data=st.data())
@pytest.mark.parametrize(("read", "encoded"), SAMPLES.items(), ids=["certificate", "list"])
def test_altered_bytes_are_malformed_or_read(read: object, encoded: bytes, data: st.DataObject) -> None:
    assert callable(read)
    altered = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    try:
        facts = read(bytes(altered))
    except MalformedError:
        return
    assert facts
