"""Seeds of the search: messages of real clients and KDCs, and of the builders in tests/support."""

import base64
import datetime
from collections.abc import Sequence

import dns.message
import dns.rrset
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from tests.protocol import test_cldap, test_proxy_header
from tests.support import messages
from tests.support.captured import CAPTURED, captured

__all__ = [
    "ADDRESSES",
    "BULK_RECORDS",
    "CERTIFICATES",
    "DNS_RESPONSES",
    "ENVELOPES",
    "FAST_ERRORS",
    "FORWARDED",
    "HEIMDAL_HTTP",
    "HTTP_RESPONSES",
    "KPASSWD",
    "PINGS",
    "PROFILES",
    "PROXY_HEADERS",
    "RECORDS",
    "REPLIES",
    "REQUESTS",
    "RESOLV_CONFS",
    "SETTINGS",
    "STREAMS",
    "TUNNEL_FRAMES",
    "VIA",
]

_KRBTGT: messages.Name = (2, ("krbtgt", "EXAMPLE.ORG"))
_TIMESTAMP, _PKINIT, _FOR_USER, _FAST, _COOKIE = 2, 16, 129, 136, 133

REQUESTS: Sequence[bytes] = (
    messages.as_req(),
    messages.as_req(padata=[(_TIMESTAMP, b"proof"), (149, b"")], etypes=(23, -128, 3)),
    messages.as_req(padata=[(_FAST, b"armor")], cname=(11, ("WELLKNOWN", "ANONYMOUS")), etypes=()),
    messages.as_req(padata=[(_PKINIT, b"\x30\x00"), (150, b"")], cname=(1, ("host", "pc.example.com"))),
    messages.as_req(cname=(10, ("alice@example.com",)), realm="example.org", options=b"\x50\x80\x00\x10"),
    messages.as_req(cname=(1, ("B\u00fccher$",)), sname=None, addresses=[(2, b"\xc0\x00\x02\x01")]),
    messages.as_req(start="20260101000000Z", renew="20370919071450Z", nonce=-1, cname=None),
    messages.tgs_req(),
    messages.tgs_req(
        padata=[(_FOR_USER, b"S4U")],
        options=b"\x00\x02\x00\x00",
        tickets=[(1, ("host", "x")), _KRBTGT],
        authorization=b"authorization",
    ),
    messages.tgs_req(sname=_KRBTGT, padata=[(_FAST, b"armor"), (167, b"")]),
    messages.kpasswd_req(),
    messages.kpasswd_req(version=0xFF80, realm="EXAMPLE.ORG"),
)
"""Payloads."""

STREAMS: Sequence[bytes] = (
    *map(messages.prefixed, REQUESTS),
    b"".join(map(messages.prefixed, REQUESTS)),
    messages.prefixed(b"") + messages.prefixed(REQUESTS[0])[:-1],
    b"\x80\x00\x00\x00" + messages.prefixed(REQUESTS[0]),
)
"""Bytes of TCP connections (RFC 4120 7.2.2)."""

HEIMDAL_HTTP: Sequence[bytes] = (
    *(b"GET /" + base64.b64encode(payload) + b" HTTP/1.0\r\n\r\n" for payload in REQUESTS),
    b"GET http://kdc/%2BA%3d%3d HTTP/1.1\r\nHost: kdc\r\n\r\n",
)

ENVELOPES: Sequence[bytes] = (
    *map(captured, CAPTURED),
    *map(messages.envelope, REQUESTS),
    messages.envelope(REQUESTS[0], hint=0x40000400, realm_type="utf8"),
    messages.envelope(REQUESTS[7], hint=-1, realm_type="ia5", has_prefix=False),
    messages.envelope(REQUESTS[10], None, has_prefix=False),
)

_ANONYMOUS: messages.Name = (11, ("WELLKNOWN", "ANONYMOUS"))
_FAST_DATA = bytes.fromhex("3013301103020100a20a0408") + bytes(8)
"""e-data of errors to requests with FAST (RFC 6113 5.4.4): METHOD-DATA, which kkdcpd does not read."""

FAST_ERRORS: Sequence[bytes] = (
    # MIT and Heimdal; MIT with hidden names; Samba with hidden names; Active Directory.
    *(messages.krb_error(code, cname=(1, ("alice",)), data=_FAST_DATA) for code in (6, 7, 18, 24, 25, 31)),
    *(messages.krb_error(code, cname=_ANONYMOUS, crealm="WELLKNOWN:ANONYMOUS") for code in (6, 24, 25)),
    *(messages.krb_error(code, realm="", sname=(0, ()), data=_FAST_DATA) for code in (6, 24, 25)),
    *(messages.krb_error(code, data=_FAST_DATA) for code in (6, 7, 24, 25)),
    messages.krb_error(24, cname=(1, ("al\0ice", "\udcff")), sname=(1, ("@",)), data=b""),
    messages.as_rep(padata=[(_FAST, b"armored")]),
)

REPLIES: Sequence[bytes] = (
    messages.as_rep(),
    messages.as_rep(padata=[(_FAST, b"armored"), (19, b"\x30\x00")], srealm="EXAMPLE.ORG"),
    messages.as_rep(cname=(1, ("pc$",)), sname=(1, ("kadmin", "changepw"))),
    messages.tgs_rep(),
    messages.tgs_rep(sname=_KRBTGT, padata=[(_FAST, b"armored")]),
    messages.krb_error(
        25, cname=(1, ("alice",)), crealm="EXAMPLE.COM", text="NEEDED_PREAUTH", data=b"\x30\x00"
    ),
    *(messages.krb_error(code, cname=(1, ("alice",))) for code in (6, 12, 18, 24, 29, 52, 68, -1)),
    messages.kpasswd_rep(),
    messages.kpasswd_rep(version=0xFF80),
    messages.kpasswd_error(41),
)

_PARTS = (
    messages.ap_req() + messages.krb_priv(),
    messages.ap_rep() + messages.krb_priv(),
    messages.krb_error(60, data=b"\x00\x05denied"),
)
KPASSWD: Sequence[bytes] = tuple(
    bytes((version,)) + length.to_bytes(2, "big") + part
    for version in (0, 1)
    for part, length in zip(_PARTS, (len(messages.ap_req()), len(messages.ap_rep()), 0), strict=True)
)
"""The version, the length of the first part, and both parts. The target makes the frame of these."""

PINGS: Sequence[bytes] = tuple(test_cldap.CAPTURED)

_SPELLINGS = (
    "192.0.2.9",
    "::ffff:192.0.2.9",
    "::FFFF:C000:209",
    "0:0:0:0:0:ffff:c000:0209",
    "0000:0000:0000:0000:0000:0000:192.0.2.9",
    "::ffff:0:192.0.2.9",
    "64:ff9b::192.0.2.9",
    "2001:db8::5",
    "2001:DB8:0:0::0005",
    "::",
    "::1",
    "fe80::1%eth0",
    "::ffff:192.0.2.9%2",
)
"""Addresses in every textual form (RFC 4291 2.2, RFC 4007 11)."""

ADDRESSES: Sequence[bytes] = (
    *(spelling.encode() for spelling in _SPELLINGS),
    "\n".join(f"{spelling}/120" for spelling in _SPELLINGS).encode(),
    "\n".join(f"[{spelling}]:88" for spelling in _SPELLINGS).encode(),
    b"0.0.0.0/0\n::/0\n::ffff:0:0/96\n128.0.0.0/1\nudp://[fe80::77%eth0]\n*:443\nunix:/run/x",
)

PROXY_HEADERS: Sequence[bytes] = (
    *(data for data, _, _ in test_proxy_header.GOOD.values()),
    *(data + b"\x16\x03\x01\x02\x00" for data, _, _ in test_proxy_header.GOOD.values()),
    *test_proxy_header.BAD.values(),
    *(f"PROXY TCP6 {spelling} {spelling} 1 65535\r\n".encode() for spelling in _SPELLINGS),
)

_ANSWER = messages.envelope(messages.as_rep(), None)
_HEAD = b"HTTP/1.1 %d Status\r\nServer: x\r\nContent-Length: %d\r\n"

HTTP_RESPONSES: Sequence[bytes] = (
    _HEAD % (200, len(_ANSWER)) + b"Content-Type: application/kerberos\r\n\r\n" + _ANSWER,
    _HEAD % (503, 3) + b"Kdc-Has-Message: no\r\nRetry-After: 30\r\nx-ms-request-id: 0123abcd\r\n\r\nno\n",
    _HEAD % (429, 0)
    + b"Date: Fri, 27 Nov 2026 10:00:00 GMT\r\nRetry-After: Fri, 27 Nov 2026 10:02:00 GMT\r\n\r\n",
    _HEAD % (403, 0) + b"Keep-Alive: timeout=5, max=100\r\nKdc-Has-Message: maybe\r\n\r\n" + _ANSWER,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\nX: y\r\n\r\n"
    % (len(_ANSWER), _ANSWER),
    b"HTTP/1.0 200 OK\r\n\r\n" + _ANSWER,
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
)
"""Responses of KDC proxies, and of other servers."""

VIA: Sequence[bytes] = (
    b"1.1 kkdcpd-0123456789ab",
    b"1.0 fred, 1.1 p.example.net:8443 (a comment)\nHTTP/2.0 front",
    b", ".join(b"1.1 proxy%d" % number for number in range(20)),
)

FORWARDED: Sequence[bytes] = (
    b"203.0.113.5",
    b"198.51.100.7, 203.0.113.5:4711, 192.0.2.7\n2001:db8::2",
    b"[2001:db8:1::5]:4711,unknown, ::ffff:192.0.2.9",
    b'for=198.51.100.7;proto=https;by=192.0.2.1, For="[2001:db8:1::5]:_port" ; host="a, for=\\"b"',
    b'for=_secret, for=192.0.2.9\nfor=unknown;ext="\\\\"',
    b"fe80::1%eth0,\t192.0.2.1\xff",
    ", ".join(_SPELLINGS).encode(),
    ", ".join(f"[{spelling}]:4711" for spelling in _SPELLINGS).encode(),
    ", ".join(f'for="[{spelling}]"' for spelling in _SPELLINGS).encode(),
    *(f'for="[{spelling}]:_port"'.encode() for spelling in _SPELLINGS),
)


def _dns_response(kind: str, *texts: str) -> bytes:
    query = dns.message.make_query("_kerberos.example.com", kind, use_edns=0, id=1)
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text("_kerberos.example.com.", 60, "IN", kind, *texts))
    return response.to_wire(max_size=65535)


DNS_RESPONSES: Sequence[bytes] = (
    _dns_response("URI", *(f'{number} 1 "krb5srv:m:tcp:k{number}"' for number in range(300))),
    _dns_response("SRV", *(f"0 {number} 88 kdc{number}.example.com." for number in range(300))),
    _dns_response("A", "192.0.2.1", "192.0.2.2"),
    _dns_response("AAAA", "2001:db8::1"),
    _dns_response("CNAME", "kdc1.example.com."),
    _dns_response("SRV", "0 0 0 ."),
)

RESOLV_CONFS: Sequence[bytes] = (
    b"nameserver 192.0.2.53\nnameserver dns.example.com\nsearch a..b\noptions edns0 timeout:1\n",
    b"nameserver fe80::1%eth0\nnameserver 127.0.0.1#5353\n\0nameserver 127.1\r\n",
)

RECORDS: Sequence[bytes] = (
    b"krb5srv:m:tcp:kdc1.example.com",
    b"krb5srv::udp:kdc1.example.com:1088",
    b"KRB5SRV:xM:TCP:[2001:db8::1]:1088\nkrb5srv::udp:2001:db8::1",
    b"krb5srv::tcp:192.0.2.1:88\nkrb5srv:m:udp:192.0.2.1:88\nkrb5srv::tcp:.",
    b"krb5srv:m:kkdcp:https://kdc.example.com/KdcProxy\nhttps://example.com/",
    b"krb5srv:m:kkdcp:wss://[2001:db8::1]:8443/KdcTunnel?a\nkrb5srv::kkdcp:https://a b/\x01#",
    b"krb5srv::tcp:[2001:db8::1%eth0]\nkrb5srv::tcp:kdc1:65536\n.",
    b"krb5srv::tcp:kdc1:" + b"8" * 4301,
)

BULK_RECORDS: Sequence[bytes] = (
    *RECORDS,
    "\n".join(f"krb5srv:m:tcp:k{number}.example.com" for number in range(200)).encode(),
    "\n".join([*_SPELLINGS, *(f"kdc{number}.example.com" for number in range(200))]).encode(),
    "\n".join(f"krb5srv::udp:[{spelling}]" for spelling in _SPELLINGS).encode(),
    "\n".join(f"192.0.2.{number}" for number in range(250)).encode(),
)
"""Targets and addresses, one on a line: each answer of the hostile DNS server has all of them."""

PROFILES: Sequence[bytes] = (
    b"""[libdefaults]
    default_realm = EXAMPLE.COM
    dns_lookup_kdc = false
[realms]
    EXAMPLE.COM = {
        kdc = kdc1.example.com:88
        kdc = tcp/kdc2.example.com # a comment
        master_kdc = [2001:db8::1]:88
        admin_server = kdc1.example.com
        kpasswd_server = udp://192.0.2.1:464
    }
""",
    b"""[realms]*
EXAMPLE.COM =
 { this text is ignored
kdc* = "kdc1 \\t\\"\\\\" lost
 kdc = https://proxy/KdcProxy
}*
""",
    b"""include /etc/other.conf
includedir /etc/krb5.conf.d
module /usr/lib/x.so:y
[a]
b = {
c = {
d = e
}
}
\0[realms]
example.com = {
kdc = a
}
""",
    b"""[capaths]
A = {
B = .
}
[realms]
 EXAMPLE.COM = {
 auth_to_local = RULE:[1:$1]
 kdc = /run/kdc.sock
}
""",
)
"""A krb5.conf; after a NUL, what it includes."""

SETTINGS: Sequence[bytes] = (
    b"""[[listen]]
address = "127.0.0.1:8080"
[realms."EXAMPLE.COM"]
kdc = ["kdc1.example.com", "udp://192.0.2.1"]
""",
    b"""[policy]
require_armor = "enforce"
cname_deny = ["*/admin"]
[realms."*.example.com"]
discovery = "dns"
[realms."*.example.com".policy]
message_kinds = ["as_req"]
[guard.rates]
client_rate = 1.5
""",
    b"""[connections]
trusted_proxies = ["192.0.2.0/24", "2001:db8::/64"]
forwarded = "forwarded"
[log]
level = "info"
""",
)

_MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _certificates() -> Sequence[bytes]:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Bücher, Inc. "),
            x509.NameAttribute(NameOID.COMMON_NAME, "#Ann"),
            x509.NameAttribute(NameOID.PSEUDONYM, "an attribute without a short name"),
        ]
    )
    names = [
        x509.DNSName("pc.example.com"),
        x509.RFC822Name("ann@example.com"),
        x509.UniformResourceIdentifier("https://example.com/"),
        x509.DirectoryName(name),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x0fann@EXAMPLE.COM"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.2.2"), b"\x30\x00"),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_MOMENT)
    )
    lists = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(_MOMENT)
    made: list[x509.Certificate | x509.CertificateRevocationList] = []
    for years in (1, 40):
        until = _MOMENT.replace(year=_MOMENT.year + years)
        certificate = builder.not_valid_after(until)
        revoked = x509.RevokedCertificateBuilder().serial_number(2).revocation_date(_MOMENT).build()
        made += (
            certificate.sign(key, None),
            certificate.add_extension(x509.SubjectAlternativeName(names), critical=True).sign(key, None),
            lists.next_update(until).sign(key, None),
            lists.next_update(until).add_revoked_certificate(revoked).sign(key, None),
        )
    return tuple(item.public_bytes(serialization.Encoding.DER) for item in made)


CERTIFICATES = _certificates()

TUNNEL_FRAMES: Sequence[bytes] = (
    b"\x01\x00\x00\x00\x05envelope",
    b"\x02\x00\x00\x00\x01envelope",
    b"\x03\x00\x00\x00\x02\x01\xad\x00\x02\x00too many requests",
    b"\x03\x00\x00\x00\x03\x01\xf7\x00\x00\x01",
    b"\x04\x00\x00\x00\x04",
    b"\x05\x00\x00\x00\x03",
)
"""Frames of both ends. Four exchanges are in flight at the requester."""
