"""Access and rates: client certificates by curl, tokens by kinit, rates by address."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.authority import Authority, CertificateFiles
from lab.client import KerberosClient, RealmServers
from lab.program import Completed
from lab.realm import MitRealm
from tests.interop.conftest import PASSWORD, REALM, SERVICE, ForwarderMaker, FrontMaker, Site, Witness
from tests.support import messages
from tests.support.fake_kdc import FakeKdcThread, reply
from tests.support.http_client import Response, post

REQUEST = messages.as_req(realm=REALM)
BODY = messages.envelope(REQUEST, REALM)
HERE = "127.0.0.1"
ELSEWHERE = "127.0.0.8"

# Client certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """A kkdcpd with a listener of each kind, and the certificates of clients."""

    site: Site
    good: CertificateFiles
    other: CertificateFiles
    revoked: CertificateFiles
    strange: CertificateFiles

    def curl(self, listener: str, *shown: str) -> Completed:
        """Send a request by curl with the certificate of this name; the last line of output is the status."""
        kinds = ("none", "none6", "optional", "required")
        port = self.site.daemon.ports[kinds.index(listener)]
        pairs: list[CertificateFiles] = [getattr(self, name) for name in shown]
        certificate = [
            word for pair in pairs for word in ("--cert", str(pair.certificate), "--key", str(pair.key))
        ]
        body = self.site.daemon.config.with_name("body")
        body.write_bytes(BODY)
        return self.site.clients().run(
            *("curl", "--silent", "--show-error", "--cacert", str(self.site.authority.certificate)),
            *certificate,
            *("--data-binary", f"@{body}", "--output", str(body.with_name("response"))),
            *("--write-out", "%{http_code}", f"https://localhost:{port}/KdcProxy"),
        )


CertificatesMaker = Callable[..., Certificates]


@pytest.fixture(scope="module")
def make_certificates(
    guarded: MitRealm, make_lasting_front: FrontMaker, tmp_path_factory: pytest.TempPathFactory
) -> CertificatesMaker:
    def make(*patterns: str, sections: str = "") -> Certificates:
        directory = tmp_path_factory.mktemp("certificates")
        ours = Authority(directory / "ours")
        good = ours.issue_client("CN=laptop,O=Example", names=["dns:laptop.example.com"], file_name="good")
        other = ours.issue_client(
            "CN=printer,O=Example", names=["dns:printer.example.net"], file_name="other"
        )
        revoked = ours.issue_client("CN=lost,O=Example", names=["dns:lost.example.com"], file_name="revoked")
        crl = ours.revocation_list(revoked.certificate)
        site = make_lasting_front(
            guarded,
            tls=f'client_ca = "{ours.certificate}"\nclient_crl = "{crl}"',
            of_realm=f"client_certificates = {json.dumps(patterns)}" if patterns else "",
            sections=sections
            + "\n".join(
                f'\n[[listen]]\naddress = "127.0.0.1:0"\nclient_certificates = "{kind}"'
                for kind in ("optional", "required")
            ),
        )
        return Certificates(
            site=site,
            good=good,
            other=other,
            revoked=revoked,
            strange=Authority(directory / "strange").issue_client("CN=laptop,O=Example", file_name="strange"),
        )

    return make


@pytest.fixture(scope="module")
def open_realm(make_certificates: CertificatesMaker) -> Certificates:
    """The realm needs no certificate; the listener may need one."""
    return make_certificates()


@pytest.fixture(scope="module")
def closed_realm(make_certificates: CertificatesMaker) -> Certificates:
    """The realm admits some certificates only."""
    return make_certificates("dns:*.example.com")


@pytest.mark.parametrize(
    ("listener", "shown"),
    [
        ("none", []),
        ("none", ["good"]),
        ("optional", []),
        ("optional", ["good"]),
        ("optional", ["other"]),
        ("required", ["good"]),
        ("required", ["other"]),
    ],
)
def test_listener_admits_certificates_of_its_authority(
    open_realm: Certificates, listener: str, shown: list[str]
) -> None:
    before = open_realm.site.mark()
    done = open_realm.curl(listener, *shown).expect_ok()
    assert done.output == "200"
    (line,) = open_realm.site.all_exchanges(before)
    subjects = {"good": "CN=laptop,O=Example", "other": "CN=printer,O=Example"}
    expected = [subjects[name] for name in shown] if listener != "none" else []
    assert [line[key] for key in ("certificate",) if key in line] == expected


@pytest.mark.parametrize(
    ("listener", "shown"),
    [
        ("required", []),
        ("required", ["revoked"]),
        ("required", ["strange"]),
        ("optional", ["revoked"]),
        ("optional", ["strange"]),
    ],
)
def test_handshake_fails_for_other_certificates(
    open_realm: Certificates, listener: str, shown: list[str]
) -> None:
    before = open_realm.site.mark()
    assert not open_realm.curl(listener, *shown).is_ok
    open_realm.site.daemon.wait_for_line(lambda line: "tls_handshake_failed" in line, after=before)
    assert open_realm.site.all_exchanges(before) == []


def test_kinit_is_served_where_a_certificate_is_optional(open_realm: Certificates) -> None:
    optional, required = open_realm.site.daemon.ports[2:]
    site = open_realm.site
    site.clients(f"https://localhost:{optional}/KdcProxy").kinit("alice", PASSWORD).expect_ok()
    refused = site.clients(f"https://localhost:{required}/KdcProxy").kinit("alice", PASSWORD)
    assert "Cannot contact any KDC" in refused.output


@pytest.mark.parametrize(
    ("listener", "shown", "detail"),
    [
        ("none", [], "no certificate"),
        ("optional", [], "no certificate"),
        (
            "optional",
            ["other"],
            "no pattern of the realm matches subject:CN=printer,O=Example dns:printer.example.net",
        ),
        (
            "required",
            ["other"],
            "no pattern of the realm matches subject:CN=printer,O=Example dns:printer.example.net",
        ),
    ],
)
def test_realm_refuses_other_certificates(
    closed_realm: Certificates, listener: str, shown: list[str], detail: str
) -> None:
    before = closed_realm.site.mark()
    witness = Witness(closed_realm.site.realm)
    done = closed_realm.curl(listener, *shown).expect_ok()
    assert done.output == "403"
    (line,) = closed_realm.site.all_exchanges(before)
    assert (line["outcome"], line["rule"], line["detail"]) == ("refused", "client_certificate", detail)
    assert witness.seen() == []


@pytest.mark.parametrize("shown", [[], ["other"]], ids=["no certificate", "another's"])
def test_missing_certificate_of_the_realm_is_logged_in_monitor_mode(
    make_certificates: CertificatesMaker, shown: list[str]
) -> None:
    realm = make_certificates("dns:*.example.com", sections='[policy]\nclient_certificate = "monitor"')
    assert realm.curl("optional", *shown).expect_ok().output == "200"
    assert realm.curl("optional", "good").expect_ok().output == "200"
    lines = realm.site.all_exchanges()
    assert [(line["outcome"], line.get("monitored")) for line in lines] == [
        ("answered", "client_certificate"),
        ("answered", None),
    ]


@pytest.mark.parametrize("listener", ["optional", "required"])
def test_realm_admits_its_certificates(closed_realm: Certificates, listener: str) -> None:
    assert closed_realm.curl(listener, "good").expect_ok().output == "200"


# Tokens

TOKEN = "correct-horse-battery-staple"
NEXT_TOKEN = "0123456789abcdef0123456789abcdef"
WRONG_TOKEN = "correct-horse-battery-stapler"


@pytest.fixture(scope="module", params=["http", "krb_error"])
def secret(
    guarded: MitRealm,
    make_lasting_front: FrontMaker,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Site:
    """A kkdcpd that needs a token, with the most detailed log."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(f"# the old one and the new one\n{TOKEN}\n{NEXT_TOKEN}\n")
    return make_lasting_front(
        guarded,
        of_realm=f'tokens_file = "{tokens}"',
        sections=f'[guard]\nrefusal = "{request.param}"\n[log]\nlevel = "debug"',
    )


@pytest.mark.parametrize("token", [TOKEN, NEXT_TOKEN])
def test_kinit_and_kpasswd_are_served_with_a_token_in_the_url(secret: Site, token: str) -> None:
    client = secret.clients(f"{secret.url}/{token}")
    client.kinit("alice", PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()
    client.kpasswd("carol", PASSWORD, "battery staple").expect_ok()
    client.kpasswd("carol", "battery staple", PASSWORD).expect_ok()


@pytest.mark.parametrize("end", ["", "/", f"/{WRONG_TOKEN}", f"/{TOKEN[:-1]}", f"/{TOKEN.upper()}"])
def test_requests_without_the_token_are_refused(secret: Site, end: str) -> None:
    before = secret.mark()
    witness = Witness(secret.realm)
    refused = secret.clients(f"{secret.url}{end}").kinit("alice", PASSWORD)
    assert not refused.is_ok
    assert any(text in refused.output for text in ("Cannot contact any KDC", "KDC policy rejects request"))
    lines = secret.all_exchanges(before)
    assert {(line["outcome"], line["rule"]) for line in lines} == {("refused", "token")}
    assert {line["detail"] for line in lines} == {"no token" if end in {"", "/"} else "unknown token"}
    assert witness.seen() == []


@pytest.mark.parametrize("end", ["", f"/{WRONG_TOKEN}"], ids=["no token", "another"])
def test_missing_token_is_logged_in_monitor_mode(
    guarded: MitRealm, make_front: FrontMaker, tmp_path: Path, end: str
) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(TOKEN)
    site = make_front(guarded, of_realm=f'tokens_file = "{tokens}"', sections='[policy]\ntoken = "monitor"')
    site.clients(f"{site.url}{end}").kinit("alice", PASSWORD).expect_ok()
    lines = site.all_exchanges()
    assert {(line["outcome"], line.get("monitored")) for line in lines} == {("answered", "token")}
    site.clients(f"{site.url}/{TOKEN}").kinit("alice", PASSWORD).expect_ok()
    assert not any("monitored" in line for line in site.all_exchanges()[len(lines) :])


HEAD = f"Host: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
LEAKS = {
    "good": post(BODY, path=f"/KdcProxy/{TOKEN}"),
    "in capitals": post(BODY, path=f"/KDCPROXY/{TOKEN}/"),
    "wrong folder": post(BODY, path=f"/KdcProxxy/{TOKEN}"),
    "no folder": post(BODY, path=f"/{TOKEN}"),
    "no folder, and more": post(BODY, path=f"/{TOKEN}/KdcProxy"),
    "twice": post(BODY, path=f"/KdcProxy/{TOKEN}/{TOKEN}"),
    "deeper": post(BODY, path=f"/a/KdcProxy/{TOKEN}"),
    "escaped": post(BODY, path=f"/%4bdcProxyy/{TOKEN}"),
    "slashes": post(BODY, path=f"//KdcProxy//{TOKEN}"),
    "query": post(BODY, path=f"/KdcProxy?token={TOKEN}"),
    "query at a wrong path": post(BODY, path=f"/x?{TOKEN}"),
    "whole URL": post(BODY, path=f"https://localhost/KdcProxy/{TOKEN}"),
    "GET": post(b"", path=f"/KdcProxy/{TOKEN}", method="GET"),
    "GET of a wrong path": post(b"", path=f"/{TOKEN}", method="GET"),
    "token as method": post(BODY, method=TOKEN.upper()),
    "body that is none": post(b"\x30\x00", path=f"/KdcProxy/{TOKEN}"),
    "another realm": post(messages.envelope(REQUEST, "OTHER.TEST"), path=f"/KdcProxy/{TOKEN}"),
    "wrong version": f"POST /KdcProxy/{TOKEN} HTTP/9.9\r\n".encode() + HEAD + BODY,
    "no version": f"POST /KdcProxy/{TOKEN}\r\n".encode() + HEAD + BODY,
    "space": f"POST /KdcProxy/{TOKEN} x HTTP/1.1\r\n".encode() + HEAD + BODY,
    "control character": f"POST /KdcProxy/{TOKEN}\x01 HTTP/1.1\r\n".encode() + HEAD + BODY,
    "not UTF-8": f"POST /KdcProxy/{TOKEN}".encode() + b"\xff\xfe HTTP/1.1\r\n" + HEAD + BODY,
    "bad header": f"POST /KdcProxy/{TOKEN} HTTP/1.1\r\nno header\r\n".encode() + HEAD,
    "bad length": f"POST /KdcProxy/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n".encode(),
    "bad host": f"POST /KdcProxy/{TOKEN} HTTP/1.1\r\nHost: ]\r\nContent-Length: 0\r\n\r\n".encode(),
    "bad chunk": (
        f"POST /KdcProxy/{TOKEN} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode()
    ),
    "head too large": f"POST /KdcProxy/{TOKEN} HTTP/1.1\r\nX: ".encode() + b"x" * 9000,
    "line too long": f"POST /KdcProxy/{TOKEN}{'/x' * 3000} HTTP/1.1\r\n".encode() + HEAD,
}


@pytest.mark.parametrize("name", LEAKS)
def test_token_is_in_no_log_line_and_no_response(secret: Site, name: str) -> None:
    before = secret.mark()
    with secret.connect() as client:
        client.send_until_closed(LEAKS[name])
        response = client.response(method="GET" if name.startswith("GET") else "POST")
    secret.daemon.wait_for_line(lambda line: response.request_id in line, after=before)
    visible = [*secret.daemon.lines[before:], *response.headers.values(), response.body.decode("latin-1")]
    assert not [line for line in visible if TOKEN[:8].lower() in line.lower()]


# Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Settings that refuse the request after `burst` requests, also of another client."""

    rule: str
    settings: str
    status: int
    outcome: str
    hits_others: bool

    @property
    def sections(self) -> str:
        return f"[guard.rates]\n{self.settings}\n"


BURST = 6
LIMITS = (
    Limit(
        rule="client_rate",
        settings=f"client_rate = 0.1\nclient_burst = {BURST}",
        status=429,
        outcome="rate_limited",
        hits_others=False,
    ),
    Limit(
        rule="realm_rate",
        settings=f"realm_rate = 0.1\nrealm_burst = {BURST}",
        status=503,
        outcome="overloaded",
        hits_others=True,
    ),
    Limit(
        rule="total_rate",
        settings=f"total_rate = 0.1\ntotal_burst = {BURST}",
        status=503,
        outcome="overloaded",
        hits_others=True,
    ),
)
SLOTS = (
    Limit(
        rule="client_concurrency",
        settings="client_concurrency = 1",
        status=429,
        outcome="rate_limited",
        hits_others=False,
    ),
    Limit(
        rule="total_concurrency",
        settings="total_concurrency = 1",
        status=503,
        outcome="overloaded",
        hits_others=True,
    ),
)


def is_refusal(response: Response, limit: Limit) -> bool:
    """Check that the response is a refusal with the time of the next try."""
    if response.status == 200:
        return False
    assert response.status == limit.status
    assert 1 <= int(response.headers["retry-after"]) <= 10
    return True


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.rule)
def test_client_over_its_rate_gets_the_time_of_the_next_try(
    guarded: MitRealm, make_front: FrontMaker, make_forwarder: ForwarderMaker, limit: Limit
) -> None:
    site = make_front(guarded, sections=limit.sections)
    witness = Witness(guarded)
    forwarder = make_forwarder(site)
    with site.connect() as first, site.connect() as second:
        # Two concurrent connections get no higher rate than one connection.
        for client, _ in zip(itertools.cycle((first, second)), range(BURST), strict=False):
            assert client.ask(post(BODY)).status == 200
        assert is_refusal(first.ask(post(BODY)), limit)
        assert is_refusal(second.ask(post(BODY)), limit)
    assert is_refusal(site.ask(REQUEST), limit)
    others = site.ask(REQUEST, port=forwarder.port_of(ELSEWHERE))
    assert is_refusal(others, limit) == limit.hits_others
    lines = site.wait_for_exchanges(BURST + 4)
    refused = [line for line in lines if line["outcome"] == limit.outcome]
    assert {line["rule"] for line in refused} == {limit.rule}
    assert len(refused) == 3 + limit.hits_others
    assert len(witness.seen()) == len(lines) - len(refused)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.rule)
def test_client_over_its_rate_is_served_in_monitor_mode(
    guarded: MitRealm, make_front: FrontMaker, limit: Limit
) -> None:
    site = make_front(guarded, sections=f'{limit.sections}mode = "monitor"')
    with site.connect() as client:
        assert [client.ask(post(BODY)).status for _ in range(BURST + 2)] == [200] * (BURST + 2)
    lines = site.wait_for_exchanges(BURST + 2)
    assert [line.get("monitored") for line in lines] == [None] * BURST + [limit.rule] * 2
    assert {line["outcome"] for line in lines} == {"answered"}


def test_kinit_over_its_rate_uses_its_next_proxy(
    guarded: MitRealm, make_front: FrontMaker, tmp_path: Path
) -> None:
    busy = make_front(guarded, sections="[guard.rates]\nclient_rate = 0.1\nclient_burst = 1")
    free = make_front(guarded)
    # Each certificate has its own authority.
    anchors = tmp_path / "both.pem"
    anchors.write_text("".join(site.authority.certificate.read_text() for site in (busy, free)))
    servers = RealmServers.behind(busy.url, free.url)
    client = KerberosClient(tmp_path / "client", {REALM: servers}, http_anchors=anchors)
    client.kinit("alice", PASSWORD).expect_ok()
    assert [line["outcome"] for line in busy.wait_for_exchanges(2)] == ["answered", "rate_limited"]
    assert [line["outcome"] for line in free.all_exchanges()] == ["answered"]


SLOW = "SLOW.TEST"
SLOW_REQUEST = messages.envelope(messages.as_req(realm=SLOW), SLOW)


@dataclass(frozen=True, slots=True)
class SlowKdc:
    """A KDC of the realm SLOW, which answers when its event is set."""

    kdc: FakeKdcThread
    may_answer: asyncio.Event

    @property
    def section(self) -> str:
        """The realm's section of the configuration."""
        return f'[realms."{SLOW}"]\nkdc = ["tcp://127.0.0.1:{self.kdc.port}"]\n'


@pytest.fixture
def slow_kdc() -> Iterator[SlowKdc]:
    may_answer = asyncio.Event()
    with FakeKdcThread(tcp=reply(messages.krb_error(25), when=may_answer)) as kdc:
        yield SlowKdc(kdc, may_answer)


@contextlib.contextmanager
def request_in_flight(site: Site, slow_kdc: SlowKdc) -> Iterator[None]:
    """Keep a request from HERE in flight."""
    with site.connect() as slow:
        slow.send(post(SLOW_REQUEST))
        slow_kdc.kdc.wait_for_messages()
        yield
        slow_kdc.kdc.set(slow_kdc.may_answer)
        assert slow.response().status == 200


@pytest.mark.parametrize("limit", SLOTS, ids=lambda limit: limit.rule)
def test_request_over_the_limit_in_flight_is_refused_with_a_time_to_wait(
    guarded: MitRealm,
    make_front: FrontMaker,
    make_forwarder: ForwarderMaker,
    slow_kdc: SlowKdc,
    limit: Limit,
) -> None:
    site = make_front(guarded, sections=slow_kdc.section + limit.sections)
    forwarder = make_forwarder(site)
    with request_in_flight(site, slow_kdc):
        assert is_refusal(site.ask(REQUEST), limit)
        others = site.ask(REQUEST, port=forwarder.port_of(ELSEWHERE))
        assert is_refusal(others, limit) == limit.hits_others
    assert site.ask(REQUEST).status == 200
    rules = {line.get("rule") for line in site.all_exchanges() if line["outcome"] != "answered"}
    assert rules == {limit.rule}


@pytest.mark.parametrize("limit", SLOTS, ids=lambda limit: limit.rule)
def test_request_beyond_the_limit_in_flight_is_served_in_monitor_mode(
    guarded: MitRealm, make_front: FrontMaker, slow_kdc: SlowKdc, limit: Limit
) -> None:
    sections = f'{slow_kdc.section}{limit.sections}mode = "monitor"'
    site = make_front(guarded, sections=sections)
    with request_in_flight(site, slow_kdc):
        assert site.ask(REQUEST).status == 200
    assert [line.get("monitored") for line in site.wait_for_exchanges(2)] == [limit.rule, None]


def test_only_a_trusted_proxy_can_name_the_client(
    guarded: MitRealm, make_front: FrontMaker, make_forwarder: ForwarderMaker
) -> None:
    site = make_front(
        guarded,
        sections=f"""
            [connections]
            trusted_proxies = ["{HERE}"]
            forwarded = "x-forwarded-for"
            {LIMITS[0].sections}
        """,
    )
    stranger = make_forwarder(site).port_of(ELSEWHERE)
    with site.connect() as proxy, site.connect(stranger) as liar:
        for number in range(BURST):
            for client in (proxy, liar):
                assert client.ask(post(BODY, f"X-Forwarded-For: 192.0.2.{number}")).status == 200
        # Through the proxy each request is from another client. The forged headers are from one client.
        assert proxy.ask(post(BODY, "X-Forwarded-For: 192.0.2.99")).status == 200
        assert liar.ask(post(BODY, "X-Forwarded-For: 192.0.2.99")).status == 429
    lines = site.wait_for_exchanges(2 * BURST + 2)
    assert {line.get("proxy") for line in lines if line["client"].startswith("192.0.2.")} == {HERE}
    assert {line.get("proxy") for line in lines if line["client"] == ELSEWHERE} == {None}
