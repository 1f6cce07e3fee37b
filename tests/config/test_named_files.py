"""The files that a configuration names."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from kkdcpd.errors import ConfigError
from lab.authority import Authority
from tests.config.broken import (
    IMPORTING,
    PLAIN,
    SOUND,
    load,
    refusal_of,
    write_krb5_conf,
)

from .conftest import NOT_AFTER, Issuer


def test_paths_are_relative_to_the_configuration_file(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    text = SOUND + "[tls]\ncertificate = 'certificate.pem'\nkey = 'key.pem'"
    config, warnings = load(tmp_path, text)
    assert config.tls is not None
    assert (config.tls.certificate, config.tls.key) == (tmp_path / "certificate.pem", tmp_path / "key.pem")
    assert warnings == ""


ADDITIONAL = (
    "[tls]\ncertificate = 'certificate.pem'\nkey = 'key.pem'\n"
    "[[tls.additional]]\ncertificate = 'other-certificate.pem'\nkey = 'other-key.pem'\n"
)


def test_server_names_are_the_certificates_own_by_default(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    issuer.issue("kdc.example.net", "*.example.org", file="other-")
    config, _warnings = load(tmp_path, SOUND + ADDITIONAL)
    assert config.tls is not None
    assert config.tls.additional[0].server_names == ("kdc.example.net", "*.example.org")


def test_configured_server_names_win(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    issuer.issue("kdc.example.net", file="other-")
    config, _warnings = load(tmp_path, SOUND + ADDITIONAL + 'server_names = ["KDC.example.org"]')
    assert config.tls is not None
    assert config.tls.additional[0].server_names == ("kdc.example.org",)


def test_additional_certificate_without_a_server_name_is_refused(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    issuer.issue("192.0.2.1", file="other-")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, SOUND + ADDITIONAL)
    assert str(caught.value) == (
        "tls.additional[0].server_names: is missing, and the certificate has no DNS name that clients can "
        "ask for; "
        'write the names it is for, such as ["kdc.example.com"]'
    )


def test_each_bad_file_of_each_pair_is_a_problem(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com", file="other-")
    (tmp_path / "other-key.pem").unlink()
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, SOUND + ADDITIONAL)
    assert [problem.key for problem in caught.value.problems] == [
        "tls.certificate",
        "tls.key",
        "tls.additional[0].key",
    ]


def test_warnings_of_each_pair_are_collected(issuer: Issuer, tmp_path: Path) -> None:
    issuer.issue("kdc.example.com")
    _certificate, key = issuer.issue("kdc.example.net", file="other-")
    key.chmod(0o644)
    _config, warnings = load(tmp_path, SOUND + ADDITIONAL, now=NOT_AFTER)
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
    config, warnings = load(tmp_path, SOUND + ASKING, now=datetime.now(UTC))
    assert config.tls
    assert (config.tls.client_ca, config.tls.client_crl) == (root.certificate, crl)
    assert warnings == ""
    crl.unlink()
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, SOUND + ASKING, now=datetime.now(UTC))
    assert [problem.key for problem in caught.value.problems] == ["tls.client_crl"]


TOKENS = PLAIN + SOUND + "tokens_file = 'tokens'\n"


def test_tokens_are_read_as_digests(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("0123456789abcdef")
    path.chmod(0o644)
    config, warnings = load(tmp_path, TOKENS + '[realms."AD.TEST"]\n')
    assert [realm.tokens for realm in config.realms] == [(sha256(b"0123456789abcdef").digest(),), ()]
    assert config.realms[0].tokens_file == path
    assert warnings.startswith('realms."EXAMPLE.COM".tokens_file: ')
    assert "0123" not in repr(config)


def test_file_without_tokens_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "tokens").touch()
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, TOKENS)
    assert [problem.key for problem in caught.value.problems] == ['realms."EXAMPLE.COM".tokens_file']


def test_krb5_conf_gives_lists_to_configured_realms(tmp_path: Path) -> None:
    write_krb5_conf(tmp_path, included="[realms]\nAD.TEST = {\nkdc = dc1.ad.test\n}")
    config, warnings = load(
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


def test_realms_without_kdc_in_krb5_conf_are_problems(tmp_path: Path) -> None:
    write_krb5_conf(tmp_path, included="[libdefaults]\ndns_lookup_kdc = false")
    (tmp_path / "config.toml").write_text(
        IMPORTING
        + '[realms."EXAMPLE.COM"]\n[realms."A.TEST"]\n[realms."B.TEST"]\ndiscovery = "none"\n'
        + '[realms."*.C.TEST"]\n[realms."D.TEST"]\ndiscovery = "dns"\n[realms."our realm"]\ndiscovery = "dns"'
    )
    remedy = 'name the KDCs, as in kdc = ["kdc1.example.com"], or write discovery = "dns"'
    assert refusal_of(tmp_path / "config.toml").splitlines() == [
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


def test_bad_krb5_conf_does_not_hide_other_problems(tmp_path: Path) -> None:
    text = "[locate]\nkrb5_conf = 'krb5.conf'\n[tls]\ncertificate = 'none.pem'\nkey = 'none.pem'\n"
    (tmp_path / "config.toml").write_text(text + '[realms."EXAMPLE.COM"]')
    assert refusal_of(tmp_path / "config.toml").splitlines()[0] == (
        f"locate.krb5_conf: there is no {tmp_path}/krb5.conf; put it there, or correct the path"
    )
    assert len(refusal_of(tmp_path / "config.toml").splitlines()) == 3


def test_directory_for_krb5_conf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").mkdir()
    (tmp_path / "config.toml").write_text(IMPORTING + '[realms."EXAMPLE.COM"]')
    assert refusal_of(tmp_path / "config.toml") == (
        f"locate.krb5_conf: {tmp_path}/krb5.conf is no regular file; name a file"
    )


def test_missing_included_file_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").write_text(f"\nincludedir {tmp_path}/none")
    (tmp_path / "config.toml").write_text(IMPORTING + '[realms."EXAMPLE.COM"]')
    assert refusal_of(tmp_path / "config.toml") == (
        f"{tmp_path}/krb5.conf, line 2: there is no {tmp_path}/none; put it there, or correct the path"
    )
