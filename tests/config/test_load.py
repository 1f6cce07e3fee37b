"""Configurations with problems in several sections, and sections that are read alone."""

from pathlib import Path

import pytest

from kkdcpd.config import (
    AdminConfig,
    ListenAddress,
    ProcessConfig,
    read_admin,
    read_config,
    read_process,
)
from tests.config.broken import (
    KDC_REMEDY,
    PLAIN,
    REALM,
    SOURCE,
    problems_of,
)

BROKEN = {
    "a misspelt section": (
        REALM + "[upstreams]\nconnect_timeout = 1",
        "upstreams: there is no such setting; did you mean upstream?",
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
def test_broken_configuration_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines


def test_whole_number_of_seconds_is_a_float() -> None:
    config = read_config(REALM + "[upstream]\nreach_timeout = 6", source=SOURCE)
    assert isinstance(config.upstream.reach_timeout, float)


def test_certificates_are_not_needed_without_tls() -> None:
    assert read_config(REALM + PLAIN + "[tls]\ncertificate = 'none'", source=SOURCE).tls is None


def test_control_socket_is_the_same_for_each_command(tmp_path: Path) -> None:
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
def test_section_with_problems_has_its_defaults(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    process, (found,) = read_process(path)
    assert process == ProcessConfig()
    assert problem in str(found)


def test_section_is_read_beside_broken_sections(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[admin]\naddress = "127.0.0.1:9"\n[realms]\n')
    assert read_admin(path) == (AdminConfig(address=ListenAddress(host="127.0.0.1", port=9)), ())


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
