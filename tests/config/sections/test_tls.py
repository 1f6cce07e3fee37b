import pytest

from tests.config.broken import REALM, problems_of

BROKEN = {
    "an old version of TLS": (
        REALM + '[tls]\nminimum_version = "1.0"',
        'tls.minimum_version: "1.0" is not one of its values; write "1.2" or "1.3"',
    ),
    "a version of TLS as a number": (
        REALM + "[tls]\nminimum_version = 1.3",
        'tls.minimum_version: 1.3 is a fractional number; write "1.2" or "1.3"',
    ),
    "another certificate without its key": (
        REALM + '[[tls.additional]]\ncertificate = "other.pem"',
        'tls.additional[0].key: is missing; write a path such as "/etc/kkdcpd/tls/key.pem"',
    ),
    "a server name twice": (
        REALM
        + '[[tls.additional]]\ncertificate = "a"\nkey = "a"\nserver_names = ["a.example"]\n'
        + '[[tls.additional]]\ncertificate = "b"\nkey = "b"\nserver_names = ["b.example", "A.example"]',
        (
            'tls.additional[1].server_names: "a.example" is a server name of tls.additional[0] already; '
            "remove it from one of them"
        ),
    ),
    "client certificates of no authority": (
        REALM + '[[listen]]\nclient_certificates = "required"',
        (
            "tls.client_ca: is missing, so that no client's certificate could be trusted; "
            "name the PEM file of the authority that clients have their certificates from"
        ),
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines
