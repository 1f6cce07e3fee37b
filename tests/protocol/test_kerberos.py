from collections.abc import Callable
from typing import Any

import pytest

from kkdcpd.errors import MalformedError
from kkdcpd.protocol import der, kerberos
from kkdcpd.protocol.kerberos import KdcReq
from kkdcpd.values import MessageKind, PrincipalName, ReplyFacts
from tests.support import der_tree, messages

KRBTGT = PrincipalName(name_type=2, components=("krbtgt", "EXAMPLE.COM"))
ALICE = PrincipalName(name_type=1, components=("alice",))


def _read_request(encoded: bytes) -> KdcReq:
    return kerberos.read_kdc_req(encoded, (0, len(encoded)))


def _read_reply(encoded: bytes) -> ReplyFacts:
    return kerberos.read_reply(encoded, (0, len(encoded)))


def _tagged(tag: int, *fields: tuple[int, bytes]) -> bytes:
    """A message with fields that pyasn1's schemas refuse to write."""
    return der.encode(tag, der.encode(0x30, b"".join(der.encode_explicit(*field) for field in fields)))


def test_names_and_types_of_an_as_req_are_read() -> None:
    request = _read_request(messages.as_req(padata=[(149, b""), (150, b"")], etypes=(18, 17)))

    assert request == KdcReq(
        kind=MessageKind.AS_REQ,
        realm="EXAMPLE.COM",
        cname=ALICE,
        sname=KRBTGT,
        etypes=(18, 17),
        padata_types=(149, 150),
        options=0x40000000,
    )
    assert not request.is_armored


def test_tgs_req_has_no_cname_and_begins_with_its_ticket() -> None:
    request = _read_request(messages.tgs_req())

    assert request.kind is MessageKind.TGS_REQ
    assert request.cname is None
    assert request.sname == PrincipalName(name_type=1, components=("HTTP", "www.example.com"))
    assert request.padata_types == (1,)


@pytest.mark.parametrize(
    "request_", [messages.as_req(padata=[(136, b"fast")]), messages.tgs_req(padata=[(136, b"")])]
)
def test_request_with_fast_is_armored(request_: bytes) -> None:
    assert _read_request(request_).is_armored


def test_as_req_may_lack_everything_that_is_optional() -> None:
    request = _read_request(messages.as_req(padata=(), cname=None, sname=None))

    assert (request.cname, request.sname, request.padata_types) == (None, None, ())


def test_request_may_have_everything_that_is_optional() -> None:
    request = _read_request(
        messages.tgs_req(
            cname=(1, ("alice",)),
            start="20260101000000Z",
            renew="20260108000000Z",
            addresses=[(2, b"\x7f\x00\x00\x01"), (24, bytes(16))],
            authorization=b"encrypted",
            tickets=[(1, ("host", "a")), (1, ("host", "b"))],
        )
    )

    assert request.cname == ALICE


@pytest.mark.parametrize("number", [9, 11], ids=["addresses", "additional tickets"])
def test_list_that_is_empty_is_as_if_absent(number: int) -> None:
    """RFC 4120 5.1.3: it should not be sent, but should be accepted."""
    before, etypes, _ = messages.as_req(padata=(), etypes=(18,)).rpartition(b"\xa8\x05\x30\x03\x02\x01\x12")
    header = b"\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0a"
    body = before[before.index(b"\xa0\x07\x03\x05") :] + etypes + der.encode_explicit(number, b"\x30\x00")
    padata = der.encode_explicit(3, b"\x30\x00")
    fields = header + padata + der.encode_explicit(4, der.encode(0x30, body))

    request = _read_request(der.encode(0x6A, der.encode(0x30, fields)))

    assert (request.cname, request.etypes, request.padata_types) == (ALICE, (18,), ())


@pytest.mark.parametrize(
    ("realm", "cname"),
    [
        ("BÜCHER.EXAMPLE", ("jürgen",)),
        ("B\udcdcCHER", ("j\udcfcrgen",)),
        ("A/B@C", ("a/b", "c@d", "e\\f", "")),
        ("NUL\x00.EXAMPLE", ("\x00\n\x7f",)),
        ("EXAMPLE.COM", ()),
    ],
    ids=["UTF-8", "not UTF-8", "what would be ambiguous", "control characters", "no components"],
)
def test_no_byte_of_a_name_is_lost(realm: str, cname: tuple[str, ...]) -> None:
    request = _read_request(messages.as_req(realm=realm, cname=(10, cname)))

    assert request.realm == realm
    assert request.cname == PrincipalName(name_type=10, components=cname)


@pytest.mark.parametrize(
    ("etypes", "nonce"),
    [((23, -133, -128, 3, 1, 24, -135), 0), ((), -1), ((18,), 2**32 - 1), ((18,), -(2**31))],
    ids=["Windows XP's etypes", "no etypes", "nonce of UInt32", "nonce of Int32"],
)
def test_integers_may_be_negative_or_unsigned(etypes: tuple[int, ...], nonce: int) -> None:
    assert _read_request(messages.as_req(etypes=etypes, nonce=nonce)).etypes == etypes


@pytest.mark.parametrize("options", [b"", b"\x40", bytes(4), b"\xff" * 5])
def test_flags_may_have_fewer_or_more_than_32_bits(options: bytes) -> None:
    assert _read_request(messages.as_req(options=options)).cname == ALICE


@pytest.mark.parametrize(
    ("encoded", "options"),
    [
        (b"", 0),
        (b"\x40", 0x40000000),
        (b"\x00\x02\x00\x00", 1 << 31 - 14),
        (b"\x50\x81\x00\x12", 0x50810012),
        (b"\x80\x00\x00\x01\xff", 0x80000001),
    ],
    ids=["none", "one byte", "bit 14", "all bytes", "40 bits"],
)
def test_first_32_options_are_read_with_bit_0_as_the_highest(encoded: bytes, options: int) -> None:
    assert _read_request(messages.as_req(options=encoded)).options == options


def test_additional_tickets_are_counted() -> None:
    tickets = [(1, ("host", "a")), (1, ("host", "b"))]

    assert _read_request(messages.tgs_req(tickets=tickets)).additional_tickets == 2
    assert _read_request(messages.tgs_req()).additional_tickets == 0


@pytest.mark.parametrize(
    "name", [ALICE, KRBTGT, PrincipalName(name_type=-128, components=("ü", "\udcfc", ""))]
)
def test_built_principal_is_read_back(name: PrincipalName) -> None:
    reply = _tagged(0x7E, (6, b"\x02\x01\x19"), (7, kerberos.encode_text("B\udcdc")))
    error = _tagged(0x7E, (6, b"\x02\x01\x19"), (8, kerberos.encode_principal(name)))

    assert _read_reply(error).cname == name
    assert _read_reply(reply).crealm == "B\udcdc"


@pytest.mark.parametrize(
    ("field", "item", "most"),
    [
        ("etypes", 18, 256),
        ("padata", (149, b""), 256),
        ("addresses", (2, bytes(4)), 256),
        ("tickets", (1, ("host", "a")), 4),
    ],
)
def test_list_may_have_its_maximum_of_items_and_no_more(field: str, item: Any, most: int) -> None:
    _read_request(messages.as_req(**{field: [item] * most}))
    with pytest.raises(MalformedError, match=f"a list of more than {most} items"):
        _read_request(messages.as_req(**{field: [item] * (most + 1)}))


def as_req_of(name: messages.Name) -> bytes:
    return messages.as_req(cname=name)


def as_req_for(name: messages.Name) -> bytes:
    return messages.as_req(sname=name)


def tgs_req_by(name: messages.Name) -> bytes:
    return messages.tgs_req(ticket=messages.ap_req(sname=name))


def tgs_req_with(name: messages.Name) -> bytes:
    return messages.tgs_req(tickets=[name])


NAMED = pytest.mark.parametrize("build", [as_req_of, as_req_for, tgs_req_by, tgs_req_with])


@NAMED
def test_name_may_have_16_components_and_no_more(build: Callable[[messages.Name], bytes]) -> None:
    _read_request(build((1, ["a"] * 16)))
    with pytest.raises(MalformedError, match="a list of more than 16 items"):
        _read_request(build((1, ["a"] * 17)))


@NAMED
def test_name_may_be_as_long_as_in_active_directory_and_not_much_longer(
    build: Callable[[messages.Name], bytes],
) -> None:
    _read_request(build((10, ["\N{GRINNING FACE}" * 1023])))
    with pytest.raises(MalformedError, match="a name of more than 4096 bytes"):
        _read_request(build((10, ["a" * 2048, "b" * 2048])))


@pytest.mark.parametrize(
    "build",
    [
        lambda realm: messages.as_req(realm=realm, sname=None),
        lambda realm: messages.tgs_req(ticket=messages.ap_req(realm=realm)),
    ],
    ids=["AS-REQ", "ticket"],
)
def test_realm_has_the_same_limits(build: Callable[[str], bytes]) -> None:
    _read_request(build("R" * 4096))
    with pytest.raises(MalformedError, match="a name of more than 4096 bytes"):
        _read_request(build("R" * 4097))


@pytest.mark.parametrize(
    "build",
    [
        lambda number: messages.as_req(cname=(number, ("alice",))),
        lambda number: messages.as_req(etypes=(18, number)),
        lambda number: messages.as_req(padata=[(number, b"")]),
        lambda number: messages.as_req(addresses=[(number, b"")]),
    ],
    ids=["name-type", "etype", "padata-type", "addr-type"],
)
def test_int32_has_a_sign(build: Callable[[int], bytes]) -> None:
    for number in (-(2**31), -135, 2**31 - 1):
        _read_request(build(number))
    # pyasn1's schema refuses these values too, so the test inserts the bytes.
    encoded = build(0x7F0F0F0F)
    place = encoded.index(b"\x02\x04\x7f\x0f\x0f\x0f")
    tree = der_tree.parse(encoded)
    (node,) = (node for node in tree.walk() if node.contents == encoded[place + 2 : place + 6])
    with pytest.raises(MalformedError, match="an INTEGER of 5 bytes"):
        _read_request(der_tree.break_at(tree, node, b"\x02\x05\x00\xff\x0f\x0f\x0f"))


@pytest.mark.parametrize(
    ("request_", "old", "new"),
    [
        (messages.as_req(), b"\xa1\x03\x02\x01\x05", b"\xa1\x03\x02\x01\x04"),
        (messages.as_req(), b"\xa2\x03\x02\x01\x0a", b"\xa2\x03\x02\x01\x0c"),
        (messages.tgs_req(), b"\xa2\x03\x02\x01\x0c", b"\xa2\x03\x02\x01\x0a"),
        (
            messages.tgs_req(),
            b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x0e",
            b"\xa0\x03\x02\x01\x04\xa1\x03\x02\x01\x0e",
        ),
        (messages.tgs_req(), b"\xa1\x03\x02\x01\x0e", b"\xa1\x03\x02\x01\x0f"),
        (messages.tgs_req(), b"\xa0\x03\x02\x01\x05\xa1\x0d", b"\xa0\x03\x02\x01\x04\xa1\x0d"),
        (messages.tgs_req(), b"\x6e\x82", b"\x6f\x82"),
        (messages.as_req(), b"20370919071450Z", b"2037091907145.Z"),
        (messages.as_req(), b"\x03\x05\x00\x40", b"\x03\x05\x08\x40"),
    ],
    ids=[
        "pvno 4",
        "AS-REQ that says it is a TGS-REQ",
        "TGS-REQ that says it is an AS-REQ",
        "AP-REQ of pvno 4",
        "AP-REQ that says it is an AP-REP",
        "ticket of version 4",
        "PA-TGS-REQ that holds an AP-REP",
        "till with a fraction",
        "eight unused bits",
    ],
)
def test_request_with_a_wrong_value_is_refused(request_: bytes, old: bytes, new: bytes) -> None:
    assert request_.count(old) == 1

    with pytest.raises(MalformedError):
        _read_request(request_.replace(old, new))


def test_additional_ticket_must_be_a_ticket() -> None:
    before, _, after = messages.tgs_req(tickets=[(1, ("host",))]).rpartition(b"\x61\x82")

    with pytest.raises(MalformedError, match="tag 0x62 where 0x61 belongs"):
        _read_request(before + b"\x62\x82" + after)


def test_tgs_req_without_its_ticket_is_refused() -> None:
    as_req = messages.as_req()
    tgs_req = as_req.replace(b"\xa2\x03\x02\x01\x0a", b"\xa2\x03\x02\x01\x0c").replace(b"\x6a", b"\x6c", 1)

    with pytest.raises(MalformedError, match="a TGS-REQ without PA-TGS-REQ"):
        _read_request(tgs_req)


@pytest.mark.parametrize(
    "ticket", [b"", b"x", messages.ap_req()[:-1], messages.ap_req() + b"\x00", messages.ap_rep()]
)
def test_tgs_req_is_refused_if_its_pa_tgs_req_is_no_ap_req(ticket: bytes) -> None:
    with pytest.raises(MalformedError):
        _read_request(messages.tgs_req(ticket=ticket))


@pytest.mark.parametrize("second", [b"x", messages.ap_req()])
def test_tgs_req_has_no_second_pa_tgs_req(second: bytes) -> None:
    with pytest.raises(MalformedError, match="more than one PA-TGS-REQ"):
        _read_request(messages.tgs_req(padata=[(1, second)]))


def test_contents_of_other_padata_are_not_read() -> None:
    request = _read_request(messages.as_req(padata=[(1, b"x"), (2, b"\x30\x80"), (-1, b"")]))

    assert request.padata_types == (1, 2, -1)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        messages.as_rep(),
        messages.krb_error(25),
        messages.ap_req(),
        messages.krb_priv(),
        b"\x30\x00",
        b"\x6a\x00",
    ],
    ids=["nothing", "AS-REP", "KRB-ERROR", "AP-REQ", "KRB-PRIV", "SEQUENCE", "empty AS-REQ"],
)
def test_anything_but_an_as_req_or_tgs_req_is_no_request(encoded: bytes) -> None:
    with pytest.raises(MalformedError):
        _read_request(encoded)


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x00", b"\x05\x00", messages.as_req()])
def test_request_is_refused_with_bytes_after_it(tail: bytes) -> None:
    with pytest.raises(MalformedError, match="bytes after the end"):
        _read_request(messages.as_req() + tail)


def test_message_is_read_from_the_middle_of_bytes() -> None:
    request = messages.as_req()

    assert kerberos.read_kdc_req(b"before" + request + b"after", (6, 6 + len(request))) == _read_request(
        request
    )


def test_ticket_of_an_ap_req_is_read() -> None:
    encoded = messages.ap_req(realm="EXAMPLE.ORG", sname=(1, ("kadmin", "changepw")))

    ticket = kerberos.read_ap_req(encoded, (0, len(encoded)))

    assert ticket.realm == "EXAMPLE.ORG"
    assert ticket.sname == PrincipalName(name_type=1, components=("kadmin", "changepw"))


@pytest.mark.parametrize("tail", [b"", b"\x05\x00"], ids=["nothing", "an element"])
def test_ticket_holds_one_sequence_and_nothing_after_it(tail: bytes) -> None:
    encrypted = der.encode(
        0x30, der.encode_explicit(0, b"\x02\x01\x12") + der.encode_explicit(2, b"\x04\x01x")
    )
    sname = der.encode(0x30, der.encode_explicit(0, b"\x02\x01\x01") + der.encode_explicit(1, b"\x30\x00"))
    contents = _tagged(0x61, (0, b"\x02\x01\x05"), (1, b"\x1b\x01X"), (2, sname), (3, encrypted))[2:]
    ap_req = _tagged(
        0x6E,
        (0, b"\x02\x01\x05"),
        (1, b"\x02\x01\x0e"),
        (2, b"\x03\x05" + bytes(5)),
        (3, der.encode(0x61, contents + tail)),
        (4, encrypted),
    )

    if not tail:
        assert kerberos.read_ap_req(ap_req, (0, len(ap_req))).realm == "X"
        return
    with pytest.raises(MalformedError, match="bytes after the end of a Ticket"):
        kerberos.read_ap_req(ap_req, (0, len(ap_req)))


def test_krb_priv_is_read_and_an_ap_req_is_none() -> None:
    krb_priv, ap_req = messages.krb_priv(), messages.ap_req()

    kerberos.read_krb_priv(krb_priv, (0, len(krb_priv)))
    with pytest.raises(MalformedError):
        kerberos.read_krb_priv(ap_req, (0, len(ap_req)))


def test_krb_priv_has_no_field_2() -> None:
    encrypted = der.encode(
        0x30, der.encode_explicit(0, b"\x02\x01\x12") + der.encode_explicit(2, b"\x04\x01x")
    )
    encoded = _tagged(0x75, (0, b"\x02\x01\x05"), (1, b"\x02\x01\x15"), (2, encrypted))

    with pytest.raises(MalformedError):
        kerberos.read_krb_priv(encoded, (0, len(encoded)))


def test_client_and_service_of_an_as_rep_are_read() -> None:
    assert _read_reply(messages.as_rep()) == ReplyFacts(
        kind=MessageKind.AS_REP, crealm="EXAMPLE.COM", cname=ALICE, srealm="EXAMPLE.COM", sname=KRBTGT
    )


def test_client_and_service_of_a_tgs_rep_are_read() -> None:
    assert _read_reply(messages.tgs_rep(sname=(3, ("host", "a.example.com")))) == ReplyFacts(
        kind=MessageKind.TGS_REP,
        crealm="EXAMPLE.COM",
        cname=ALICE,
        srealm="EXAMPLE.COM",
        sname=PrincipalName(name_type=3, components=("host", "a.example.com")),
    )


def test_realms_of_the_client_and_of_the_ticket_are_read_separately() -> None:
    facts = _read_reply(messages.tgs_rep(realm="EXAMPLE.ORG", srealm="EXAMPLE.COM"))

    assert (facts.crealm, facts.srealm) == ("EXAMPLE.ORG", "EXAMPLE.COM")


@pytest.mark.parametrize("reply", [messages.as_rep, messages.tgs_rep])
def test_padata_types_of_a_reply_are_read(reply: Callable[..., bytes]) -> None:
    assert _read_reply(reply()).padata_types == ()
    assert _read_reply(reply(padata=[(19, b"x"), (136, b""), (-1, b"")])).padata_types == (19, 136, -1)


@pytest.mark.parametrize("padata", [b"\x04\x01x", b"\x30\x03\xa0\x01\x02", b"\x30\x02\x30\x00"])
def test_padata_of_a_reply_that_cannot_be_read_are_as_if_absent(padata: bytes) -> None:
    assert _read_reply(_tagged(0x6B, (2, padata))) == ReplyFacts(kind=MessageKind.AS_REP)


def test_code_and_names_of_a_krb_error_are_read() -> None:
    reply = messages.krb_error(
        25, crealm="EXAMPLE.ORG", cname=(1, ("alice",)), text="NEEDED_PREAUTH", data=b"x"
    )

    assert _read_reply(reply) == ReplyFacts(
        kind=MessageKind.KRB_ERROR, error_code=25, crealm="EXAMPLE.ORG", cname=ALICE, sname=KRBTGT
    )


def test_krb_error_may_name_no_client() -> None:
    facts = _read_reply(messages.krb_error(60))

    assert (facts.error_code, facts.crealm, facts.cname) == (60, None, None)


def test_krb_error_may_have_an_unknown_code() -> None:
    assert _read_reply(messages.krb_error(-1765328384)).error_code == -1765328384


def test_krb_error_may_have_unknown_fields() -> None:
    facts = _read_reply(_tagged(0x7E, (6, b"\x02\x01\x19"), (13, b"\x30\x00"), (30, b"\x7f\x00")))

    assert facts == ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=25)


@pytest.mark.parametrize(
    "fields",
    [(), ((0, b"\x02\x01\x05"),), ((6, b"\x04\x01\x19"),), ((6, b"\x02\x00"),), ((6, b"\x02\x02\x00\x19"),)],
    ids=["no field", "no code", "OCTET STRING", "empty", "not minimal"],
)
def test_krb_error_is_refused_without_its_code(fields: tuple[tuple[int, bytes], ...]) -> None:
    with pytest.raises(MalformedError):
        _read_reply(_tagged(0x7E, *fields))


@pytest.mark.parametrize("name", [b"\x04\x01x", b"\x30\x00", b"\x30\x03\xa0\x01\x02"])
def test_name_in_a_reply_that_cannot_be_read_is_as_if_absent(name: bytes) -> None:
    error = _tagged(0x7E, (6, b"\x02\x01\x19"), (7, name), (8, name), (10, name))
    reply = _tagged(0x6B, (3, name), (4, name), (5, name))
    odd_ticket = _tagged(0x6B, (5, der.encode(0x61, name)))

    assert _read_reply(error) == ReplyFacts(kind=MessageKind.KRB_ERROR, error_code=25)
    assert _read_reply(reply) == ReplyFacts(kind=MessageKind.AS_REP)
    assert _read_reply(odd_ticket) == ReplyFacts(kind=MessageKind.AS_REP)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        messages.as_req(),
        messages.tgs_req(),
        messages.ap_rep(),
        messages.krb_priv(),
        messages.kpasswd_rep(),
    ],
    ids=["nothing", "AS-REQ", "TGS-REQ", "AP-REP", "KRB-PRIV", "kpasswd reply"],
)
def test_anything_but_an_as_rep_or_tgs_rep_or_krb_error_is_no_reply(encoded: bytes) -> None:
    with pytest.raises(MalformedError):
        _read_reply(encoded)


@pytest.mark.parametrize("reply", [messages.as_rep(), messages.tgs_rep(), messages.krb_error(25)])
@pytest.mark.parametrize("tail", [b"\x00", b"\x05\x00"])
def test_reply_is_refused_with_bytes_after_it(reply: bytes, tail: bytes) -> None:
    with pytest.raises(MalformedError, match="bytes after the end"):
        _read_reply(reply + tail)


def test_caches_are_bounded() -> None:
    for number in range(3000):
        request = messages.as_req(cname=(1, (f"user{number}",)), padata=[(number, b"")], etypes=(number, 18))
        for _ in range(2):  # once read, once known
            read = _read_request(request)
            assert (read.padata_types, read.etypes) == ((number,), (number, 18))
            assert read.cname == PrincipalName(name_type=1, components=(f"user{number}",))
    for known in (kerberos._known_principals, kerberos._known_etypes, kerberos._known_padata):
        assert 0 < len(known) <= 1024


def test_no_proof_is_in_a_cache() -> None:
    proof = bytes(range(60))
    _read_request(messages.as_req(padata=[(2, proof), (149, b"")]))
    assert not any(proof in encoded for encoded in kerberos._known_padata)


@pytest.mark.parametrize(
    ("code", "data", "offers"),
    [
        (25, "3013301103020100a20a0408" + "00" * 8, False),
        (25, "300c300aa10402020097a2020400", True),
        (24, "300c300aa10402020097a2020400", False),
        (25, "", False),
        (25, None, False),
    ],
)
def test_offer_of_spake_is_found_in_a_demand(code: int, data: str | None, offers: bool) -> None:
    payload = messages.krb_error(code, data=None if data is None else bytes.fromhex(data))
    facts = kerberos.read_reply(payload, (0, len(payload)))
    assert facts.offers_spake is offers
