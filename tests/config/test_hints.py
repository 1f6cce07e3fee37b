"""Warnings about valid settings."""

from pathlib import Path

from tests.config.broken import (
    IMPORTING,
    PLAIN,
    SOUND,
    load,
)


def test_realm_without_kpasswd_is_a_warning(tmp_path: Path) -> None:
    _config, warnings = load(
        tmp_path, PLAIN + SOUND + '[realms."AD.TEST"]\nkdc = ["dc1.ad.test", "dc2.ad.test"]'
    )
    assert warnings == (
        'realms."AD.TEST".kpasswd: is missing, so password changes are refused for this realm; '
        'add the servers that change passwords, often the KDCs: kpasswd = ["dc1.ad.test"]'
    )


def test_realm_that_is_looked_up_needs_no_kpasswd(tmp_path: Path) -> None:
    _config, warnings = load(tmp_path, PLAIN + '[realms."EXAMPLE.COM"]\n[realms."*.EXAMPLE.COM"]')
    assert warnings == ""


def test_warning_names_the_file_that_lacks_password_servers(tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").write_text("[realms]\nEXAMPLE.COM = {\nkdc = kdc1\nkdc = https://proxy\n}")
    _config, warnings = load(tmp_path, IMPORTING + '[realms."EXAMPLE.COM"]')
    assert warnings == (
        'realms."EXAMPLE.COM": has no kpasswd_server in krb5.conf, so password changes are refused for this '
        "realm; add the servers that change passwords there: kpasswd_server = kdc1\n"
        f'{tmp_path}/krb5.conf, line 4: kdc = "https://proxy" names a proxy, perhaps kkdcpd itself: '
        "it is left out; "
        "name the KDCs in the configuration of kkdcpd, if krb5.conf has no others"
    )


def test_address_on_a_missing_interface_is_a_warning(tmp_path: Path) -> None:
    text = f'{PLAIN}[locate]\nnameservers = ["fe80::1%none0", "fe80::1%lo"]\n{SOUND}'
    _config, warnings = load(tmp_path, text)
    assert warnings == (
        "locate.nameservers: fe80::1%none0 is on the network interface none0, which this host does not have; "
        "correct the zone after the %, or bring the interface up"
    )
