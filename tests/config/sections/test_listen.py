import pytest

from kkdcpd.config import read_config
from tests.config.broken import LISTEN_REMEDY, PLAIN, REALM, SOURCE, problems_of

BROKEN = {
    "text for a boolean": (
        REALM + '[[listen]]\ntls = "off"',
        'listen[0].tls: "off" is text; write true or false',
    ),
    "plain HTTP to all hosts": (
        REALM + '[[listen]]\naddress = "*:80"\ntls = false',
        (
            "listen[0].tls: without TLS, each host on the way to *:80 can read and change messages; "
            "write tls = true, or listen on 127.0.0.1, [::1] or a unix socket, "
            "or accept it with plain_http_anywhere = true"
        ),
    ),
    "a name to listen on": (
        REALM + '[[listen]]\naddress = "kdc.example.com:443"',
        'listen[0].address: "kdc.example.com:443" does not begin with an IP address; ' + LISTEN_REMEDY,
    ),
    "a port alone to listen on": (
        REALM + "[[listen]]\naddress = 443",
        "listen[0].address: 443 is a whole number; " + LISTEN_REMEDY,
    ),
    "two listeners at one address": (
        REALM + '[[listen]]\n[[listen]]\naddress = "192.0.2.1:443"',
        (
            "listen[1].address: 192.0.2.1:443 is taken by listen[0] already (*:443); "
            "remove one of the two, or give it another port"
        ),
    ),
    "one listener as a table": (
        REALM + '[listen]\naddress = "*:443"',
        "listen: is a table; write each as a section [[listen]]",
    ),
    "a mode as a number": (
        REALM + '[[listen]]\naddress = "unix:/run/http.sock"\nunix_mode = 0o660',
        'listen[0].unix_mode: 432 is a whole number; write octal digits in quotes, such as "0660"',
    ),
    "client certificates without TLS": (
        REALM + PLAIN + 'client_certificates = "optional"\n[tls]\nclient_ca = "ca.pem"',
        (
            'listen[0].client_certificates: is "optional", but only TLS has certificates; '
            "write tls = true, or remove it"
        ),
    ),
    "a PROXY header from no proxy": (
        REALM + "[[listen]]\nproxy_protocol = true",
        (
            "listen[0].proxy_protocol: is true, but no proxy is trusted, so no client could connect; "
            'name your proxies in connections.trusted_proxies, as in ["192.0.2.1"]'
        ),
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines


@pytest.mark.parametrize(
    "listener",
    [
        'address = "*:80"\ntls = false\nplain_http_anywhere = true',
        'address = "[::1]:80"\ntls = false',
        'address = "unix:/run/http.sock"\ntls = false',
    ],
)
def test_plain_http_is_valid_locally_or_with_plain_http_anywhere(listener: str) -> None:
    config = read_config(f"{REALM}[[listen]]\n{listener}", source=SOURCE)
    assert [found.tls for found in config.listen] == [False]
