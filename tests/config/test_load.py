"""Broken files, and the files that a configuration names. Bad values are in the tests of their sections."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from kkdcpd.config import (
    AdminConfig,
    Config,
    ListenAddress,
    ProcessConfig,
    load_config,
    read_admin,
    read_config,
    read_process,
)
from kkdcpd.errors import ConfigError
from lab.authority import Authority
from tests.config.broken import KDC_REMEDY, PLAIN, REALM, SOURCE, problems_of

from .conftest import NOT_AFTER, Issuer

NOW = datetime(2026, 2, 1, tzinfo=UTC)

SYNTAX_REMEDY = 'write key = value, with texts in double quotes; sections look like [http] or [realms."NAME"]'
NUMBER_REMEDY = "no setting takes such a number: compare with config.toml.example"
NESTING_REMEDY = "close the brackets, and write no more dots than config.toml.example has"

BROKEN = {
    "a misspelt section": (
        REALM + "[upstreams]\nconnect_timeout = 1",
        "upstreams: there is no such setting; did you mean upstream?",
    ),
    "text without quotes": (
        REALM + "[log]\nlevel = info",
        (
            "/etc/kkdcpd/config.toml, line 4: is not TOML: "
            "Expected newline or end of document after a statement; "
            'write texts in double quotes, as in level = "info"'
        ),
    ),
    "a path without quotes": (
        REALM + "[tls]\nkey = /etc/key.pem\n",
        (
            "/etc/kkdcpd/config.toml, line 4: is not TOML: Invalid value; "
            'write texts in double quotes, as in level = "info"'
        ),
    ),
    "a setting twice": (
        REALM + 'kdc = ["kdc2.example.com"]',
        "/etc/kkdcpd/config.toml, line 3: is not TOML: Cannot overwrite a value; write each key only once",
    ),
    "a list as a value and as sections": (
        "[tls]\nadditional = []\n[[tls.additional]]\n" + REALM,
        (
            "/etc/kkdcpd/config.toml, line 3: is not TOML: "
            "Cannot mutate immutable namespace ('tls', 'additional'); "
            "write it either as one value or as [[sections]], not as both"
        ),
    ),
    "a section twice": (
        REALM + REALM,
        (
            "/etc/kkdcpd/config.toml, line 3: is not TOML: Cannot declare ('realms', 'EXAMPLE.COM') twice; "
            "write each [section] only once: put its settings below the header that is there"
        ),
    ),
    "another format": (
        "[realms]\nEXAMPLE.COM {\n",
        "/etc/kkdcpd/config.toml, line 2: is not TOML: Expected '=' after a key in a key/value pair; "
        + SYNTAX_REMEDY,
    ),
    "a list that doesn't end": (
        '[realms.TEST]\nkdc = ["kdc1"',
        "/etc/kkdcpd/config.toml, line 2: is not TOML: Unclosed array; " + SYNTAX_REMEDY,
    ),
    "brackets without end": (
        REALM + "[log]\nlevel = " + "[" * 5000,
        "/etc/kkdcpd/config.toml: nests lists or tables too deeply; " + NESTING_REMEDY,
    ),
    "a number without end": (
        REALM + "[guard]\ntable_entries = " + "1" * 5000,
        "/etc/kkdcpd/config.toml: has a number of thousands of digits; " + NUMBER_REMEDY,
    ),
    "dots without end": (
        "[realms" + ".x" * 5000 + "]",
        "/etc/kkdcpd/config.toml: nests lists or tables too deeply; " + NESTING_REMEDY,
    ),
    "a bad value in both policies": (
        REALM + '[policy]\nservices = 0\n[realms."EXAMPLE.COM".policy]\nservices = 0',
        (
            'realms."EXAMPLE.COM".policy.services: 0 is too small; '
            "write a whole number of services from 1 to 1000000\n"
            "policy.services: 0 is too small; write a whole number of services from 1 to 1000000"
        ),
    ),
    "client certificates that no listener asks for": (
        REALM + "client_certificates = ['dns:*']\n[tls]\nclient_ca = 'ca.pem'\nclient_crl = 'crl.pem'",
        "\n".join(
            f"{key}: is never used, as no listener asks for client certificates; "
            'write client_certificates = "optional" or "required" under [[listen]], or remove it'
            for key in ("tls.client_ca", "tls.client_crl", 'realms."EXAMPLE.COM".client_certificates')
        ),
    ),
    "several things at once": (
        '[http]\nbody_timeout = 0\npath = ["/"]\n[realms."EXAMPLE.COM"]\nkdc = ["kdc:0"]\n[log]\nformat = 1',
        (
            'realms."EXAMPLE.COM".kdc[0]: "kdc:0" has a port that is no number from 1 to 65535; '
            f"{KDC_REMEDY}\n"
            'log.format: 1 is a whole number; write "text" or "json"\n'
            "http.path: there is no such setting; did you mean paths?\n"
            "http.body_timeout: 0 is too small; write a number of seconds from 0.1 to 120"
        ),
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_configuration_tells_what_to_write_instead(text: str, lines: str) -> None:
    assert problems_of(text) == lines


def test_whole_seconds_are_seconds_too() -> None:
    config = read_config(REALM + "[upstream]\nreach_timeout = 6", source=SOURCE)
    assert isinstance(config.upstream.reach_timeout, float)


def test_certificates_are_not_needed_without_tls() -> None:
    assert read_config(REALM + PLAIN + "[tls]\ncertificate = 'none'", source=SOURCE).tls is None


def _load(tmp_path: Path, text: str, *, now: datetime = NOW) -> tuple[Config, str]:
    path = tmp_path / "config.toml"
    path.write_text(text)
    loaded = load_config(path, now=now)
    return loaded.config, "\n".join(map(str, loaded.warnings))


def _refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, now=NOW)
    return str(caught.value)


SOUND = REALM + 'kpasswd = ["kdc1.example.com"]\n'


def test_control_socket_is_where_the_file_says_for_each_command(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'{PLAIN}[process]\ncontrol = "control.sock"\n{REALM}')
    process, problems = read_process(path)
    assert problems == ()
    assert process.control == tmp_path / "control.sock"
    assert process == read_config(path.read_text(), source=path).process


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[process]\ncontrol = "/run/x.sock"\nworker = 2\n', "process.worker: there is no such setting"),
        ("[process\n", "line 1: is not TOML"),
        ("process = 3\n", "process: 3 is"),
    ],
)
def test_section_that_cannot_be_read_has_its_defaults(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    process, (found,) = read_process(path)
    assert process == ProcessConfig()
    assert problem in str(found)


def test_section_is_read_whatever_is_wrong_with_others(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[admin]\naddress = "127.0.0.1:9"\n[realms]\n')
    assert read_admin(path) == (AdminConfig(address=ListenAddress(host="127.0.0.1", port=9)), ())


def test_paths_are_relative_to_the_configuration_file(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    text = SOUND + "[tls]\ncertificate = 'certificate.pem'\nkey = 'key.pem'"
    config, warnings = _load(tmp_path, text)
    assert config.tls is not None
    assert (config.tls.certificate, config.tls.key) == (tmp_path / "certificate.pem", tmp_path / "key.pem")
    assert warnings == ""


def test_realm_without_kpasswd_is_a_warning(tmp_path: Path) -> None:
    _config, warnings = _load(
        tmp_path, PLAIN + SOUND + '[realms."AD.TEST"]\nkdc = ["dc1.ad.test", "dc2.ad.test"]'
    )
    assert warnings == (
        'realms."AD.TEST".kpasswd: is missing, so password changes are refused for this realm; '
        'add the servers that change passwords, often the KDCs: kpasswd = ["dc1.ad.test"]'
    )


ADDITIONAL = (
    "[tls]\ncertificate = 'certificate.pem'\nkey = 'key.pem'\n"
    "[[tls.additional]]\ncertificate = 'other-certificate.pem'\nkey = 'other-key.pem'\n"
)


def test_server_names_are_the_certificates_own_by_default(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    issuer.issue("kdc.example.net", "*.example.org", file="other-")
    config, _warnings = _load(tmp_path, SOUND + ADDITIONAL)
    assert config.tls is not None
    assert config.tls.additional[0].server_names == ("kdc.example.net", "*.example.org")


def test_configured_server_names_win(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    issuer.issue("kdc.example.net", file="other-")
    config, _warnings = _load(tmp_path, SOUND + ADDITIONAL + 'server_names = ["KDC.example.org"]')
    assert config.tls is not None
    assert config.tls.additional[0].server_names == ("kdc.example.org",)


def test_additional_certificate_without_any_server_name_is_told(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    issuer.issue("192.0.2.1", file="other-")
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, SOUND + ADDITIONAL)
    assert str(caught.value) == (
        "tls.additional[0].server_names: is missing, and the certificate bears no DNS name that clients can "
        "ask for; "
        'write the names it is for, such as ["kdc.example.com"]'
    )


def test_every_bad_file_of_every_pair_is_told(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com", file="other-")
    (tmp_path / "other-key.pem").unlink()
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, SOUND + ADDITIONAL)
    assert [problem.key for problem in caught.value.problems] == [
        "tls.certificate",
        "tls.key",
        "tls.additional[0].key",
    ]


def test_warnings_of_every_pair_are_told(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    _certificate, key = issuer.issue("kdc.example.net", file="other-")
    key.chmod(0o644)
    _config, warnings = _load(tmp_path, SOUND + ADDITIONAL, now=NOT_AFTER)
    assert [line.split(":")[0] for line in warnings.splitlines()] == [
        "tls.certificate",
        "tls.additional[0].certificate",
        "tls.additional[0].key",
    ]


ASKING = """
    [[listen]]
    client_certificates = "optional"
    [tls]
    certificate = 'root/server.pem'
    key = 'root/server.key'
    client_ca = 'root/ca.pem'
    client_crl = 'root/crl.pem'
    """


def test_client_ca_and_its_lists_are_inspected(tmp_path: Path) -> None:
    root = Authority(tmp_path / "root")
    root.issue("kdc.example.com")
    crl = root.revocation_list()
    config, warnings = _load(tmp_path, SOUND + ASKING, now=datetime.now(UTC))
    assert config.tls
    assert (config.tls.client_ca, config.tls.client_crl) == (root.certificate, crl)
    assert warnings == ""
    crl.unlink()
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, SOUND + ASKING, now=datetime.now(UTC))
    assert [problem.key for problem in caught.value.problems] == ["tls.client_crl"]


TOKENS = PLAIN + SOUND + "tokens_file = 'tokens'\n"


def test_tokens_are_read_as_digests(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("0123456789abcdef")
    path.chmod(0o644)
    config, warnings = _load(tmp_path, TOKENS + '[realms."AD.TEST"]\n')
    assert [realm.tokens for realm in config.realms] == [(sha256(b"0123456789abcdef").digest(),), ()]
    assert config.realms[0].tokens_file == path
    assert warnings.startswith('realms."EXAMPLE.COM".tokens_file: ')
    assert "0123" not in repr(config)


def test_file_without_tokens_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokens").touch()
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, TOKENS)
    assert [problem.key for problem in caught.value.problems] == ['realms."EXAMPLE.COM".tokens_file']


def test_missing_configuration_is_told(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "config.toml") == (
        f"{tmp_path}/config.toml: there is no such file; "
        "copy config.toml.example there and fill it in, or name another file with --config"
    )


def test_unreadable_configuration_is_told(tmp_path: Path) -> None:
    assert _refusal(tmp_path) == (f"{tmp_path}: can't be read: Is a directory; name a file in it")


def test_configuration_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# one\n# B\xfccher\n")
    assert _refusal(path) == f"{path}, line 2: is not UTF-8; save the file in UTF-8"


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (PLAIN + SOUND).encode())
    assert load_config(path, now=NOW).config.realms[0].name == "EXAMPLE.COM"


KRB5_CONF = """
includedir {directory}/krb5.conf.d
[realms]
 EXAMPLE.COM = {{
  kdc = kdc1.example.com
  kdc = kdc2.example.com:1088
  admin_server = kdc1.example.com:749
 }}
"""
IMPORTING = PLAIN + "[locate]\nkrb5_conf = 'krb5.conf'\n"


def _write_krb5_conf(directory: Path, *, included: str = "") -> None:
    (directory / "krb5.conf.d").mkdir()
    (directory / "krb5.conf.d" / "site").write_text(included)
    (directory / "krb5.conf").write_text(KRB5_CONF.format(directory=directory))


@pytest.mark.parametrize(
    ("settings", "discovery"),
    [
        ('kdc = ["kdc1"]', "none"),
        ("", "dns"),
        ('kpasswd = ["kdc1"]', "dns"),
        ('discovery = "active_directory"', "active_directory"),
        ('kdc = ["kdc1"]\ndiscovery = "dns"', "dns"),
    ],
)
def test_discovery_is_settled(settings: str, discovery: str) -> None:
    config = read_config(f'[realms."EXAMPLE.COM"]\n{settings}', source=SOURCE)
    assert config.realms[0].discovery == discovery


def test_wildcard_is_a_realm_without_lists() -> None:
    (realm,) = read_config('[realms."*.EXAMPLE.COM"]', source=SOURCE).realms
    assert (realm.name, realm.is_wildcard, realm.domain) == ("*.EXAMPLE.COM", True, "EXAMPLE.COM")
    assert realm.discovery == "dns"


def test_realm_that_is_looked_up_needs_no_kpasswd(tmp_path: Path) -> None:
    _config, warnings = _load(tmp_path, PLAIN + '[realms."EXAMPLE.COM"]\n[realms."*.EXAMPLE.COM"]')
    assert warnings == ""


def test_krb5_conf_gives_lists_to_configured_realms(tmp_path: Path) -> None:
    _write_krb5_conf(tmp_path, included="[realms]\nAD.TEST = {\nkdc = dc1.ad.test\n}")
    config, warnings = _load(
        tmp_path,
        IMPORTING + '[realms."EXAMPLE.COM"]\n[realms."EXAMPLE.NET"]\n[realms."EXAMPLE.ORG"]\nkdc = ["k"]',
    )
    hosts = {
        realm.name: (realm.source, realm.discovery, [f"{kdc.host}:{kdc.port}" for kdc in realm.kdc])
        for realm in config.realms
    }
    assert hosts == {
        "EXAMPLE.COM": ("krb5.conf", "none", ["kdc1.example.com:88", "kdc2.example.com:1088"]),
        "EXAMPLE.NET": ("configuration", "dns", []),
        "EXAMPLE.ORG": ("configuration", "none", ["k:88"]),
    }
    assert [(each.host, each.port) for each in config.realms[0].kpasswd] == [("kdc1.example.com", 464)]
    assert [line.split(":")[0] for line in warnings.splitlines()] == ['realms."EXAMPLE.ORG".kpasswd']


def test_krb5_conf_without_kpasswd_server_is_told_where_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").write_text("[realms]\nEXAMPLE.COM = {\nkdc = kdc1\nkdc = https://proxy\n}")
    _config, warnings = _load(tmp_path, IMPORTING + '[realms."EXAMPLE.COM"]')
    assert warnings == (
        'realms."EXAMPLE.COM": has no kpasswd_server in krb5.conf, so password changes are refused for this '
        "realm; add the servers that change passwords there: kpasswd_server = kdc1\n"
        f'{tmp_path}/krb5.conf, line 4: kdc = "https://proxy" names a proxy, perhaps us: it is left out; '
        "name the KDCs in our own configuration, where these are not all"
    )


def test_realms_that_krb5_conf_leaves_without_kdc_are_told(tmp_path: Path) -> None:
    _write_krb5_conf(tmp_path, included="[libdefaults]\ndns_lookup_kdc = false")
    (tmp_path / "config.toml").write_text(
        IMPORTING
        + '[realms."EXAMPLE.COM"]\n[realms."A.TEST"]\n[realms."B.TEST"]\ndiscovery = "none"\n'
        + '[realms."*.C.TEST"]\n[realms."D.TEST"]\ndiscovery = "dns"\n[realms."our realm"]\ndiscovery = "dns"'
    )
    remedy = 'name the KDCs, as in kdc = ["kdc1.example.com"], or write discovery = "dns"'
    assert _refusal(tmp_path / "config.toml").splitlines() == [
        (
            f'realms."A.TEST".kdc: is missing, and {tmp_path}/krb5.conf says dns_lookup_kdc = false: '
            f"there is no KDC to ask; {remedy}"
        ),
        (
            f'realms."B.TEST".kdc: is missing, and discovery is none, and {tmp_path}/krb5.conf names none: '
            f"there is no KDC to ask; {remedy}"
        ),
        (
            f'realms."*.C.TEST".discovery: is missing, and {tmp_path}/krb5.conf says dns_lookup_kdc = false: '
            'no realm can be found; write discovery = "dns" or "active_directory"'
        ),
        (
            "realms.\"our realm\": is no domain's name, so its KDCs can't be found in DNS; "
            'name them: kdc = ["kdc1.example.com"]'
        ),
    ]


def test_krb5_conf_that_can_not_be_used_is_told_beside_what_else_is_wrong(tmp_path: Path) -> None:
    text = "[locate]\nkrb5_conf = 'krb5.conf'\n[tls]\ncertificate = 'none.pem'\nkey = 'none.pem'\n"
    (tmp_path / "config.toml").write_text(text + '[realms."EXAMPLE.COM"]')
    assert _refusal(tmp_path / "config.toml").splitlines()[0] == (
        f"locate.krb5_conf: there is no {tmp_path}/krb5.conf; put it there, or correct the path"
    )
    assert len(_refusal(tmp_path / "config.toml").splitlines()) == 3


def test_directory_for_krb5_conf_is_told(tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").mkdir()
    (tmp_path / "config.toml").write_text(IMPORTING + '[realms."EXAMPLE.COM"]')
    assert _refusal(tmp_path / "config.toml") == (
        f"locate.krb5_conf: {tmp_path}/krb5.conf is no regular file; name a file"
    )


def test_included_file_that_is_missing_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").write_text(f"\nincludedir {tmp_path}/none")
    (tmp_path / "config.toml").write_text(IMPORTING + '[realms."EXAMPLE.COM"]')
    assert _refusal(tmp_path / "config.toml") == (
        f"{tmp_path}/krb5.conf, line 2: there is no {tmp_path}/none; put it there, or correct the path"
    )
