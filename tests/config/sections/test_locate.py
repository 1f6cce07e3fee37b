import pytest

from tests.config.broken import REALM, problems_of

BROKEN = {
    "a nameserver by name": (
        REALM + '[locate]\nnameservers = ["ns1.example.com"]',
        (
            'locate.nameservers[0]: "ns1.example.com" does not begin with an IP address; '
            'write an IP address such as "192.0.2.53", "192.0.2.53:5353" or "[2001:db8::53]:53"'
        ),
    ),
    "a nameserver twice": (
        REALM + '[locate]\nnameservers = ["192.0.2.53", "192.0.2.53:53"]',
        "locate.nameservers[1]: is the same as locate.nameservers[0]; remove one of them",
    ),
    "a network with a host's address": (
        REALM + '[locate]\nallowed_networks = ["192.0.2.1/24"]',
        (
            'locate.allowed_networks[0]: "192.0.2.1/24" is an address within a network; '
            'write "192.0.2.0/24" for all of the network'
        ),
    ),
    "a network that is none": (
        REALM + '[locate]\nallowed_networks = ["example.com", "10.0.0.0/33"]',
        (
            'locate.allowed_networks[0]: "example.com" is no IP network; '
            'write a network such as "192.0.2.0/24" or "2001:db8::/32"\n'
            'locate.allowed_networks[1]: "10.0.0.0/33" is no IP network; '
            'write a network such as "192.0.2.0/24" or "2001:db8::/32"'
        ),
    ),
    "a domain of proxies that is an address": (
        REALM + '[locate]\nproxy_domains = ["192.0.2.1"]',
        (
            'locate.proxy_domains[0]: "192.0.2.1" is an address, which no domain contains; '
            'write a domain such as "example.com"'
        ),
    ),
    "no port of proxies": (
        REALM + "[locate]\nproxy_ports = []",
        "locate.proxy_ports: is empty; write a list of ports, such as [443]",
    ),
    "no port to ask": (
        REALM + "[locate]\nallowed_ports = []",
        "locate.allowed_ports: is empty; write a list of ports, such as [88, 464]",
    ),
    "a port that is none": (
        REALM + "[locate]\nallowed_ports = [88, 0]",
        "locate.allowed_ports[1]: 0 is too small; write a whole number from 1 to 65535",
    ),
    "times to live out of order": (
        REALM + "[locate]\nminimum_ttl = 60\nmaximum_ttl = 30",
        (
            "locate.minimum_ttl: 60 seconds is longer than maximum_ttl, which is 30; "
            "write 30 or less, or raise maximum_ttl"
        ),
    ),
    "a look-up that outlasts the request": (
        REALM + "[locate]\ndns_timeout = 5.5",
        (
            "locate.dns_timeout: 5.5 seconds is longer than upstream.reach_timeout, which is 5; "
            "write 5 or less, or raise upstream.reach_timeout"
        ),
    ),
    "a path of krb5.conf that is none": (
        REALM + "[locate]\nkrb5_conf = true",
        'locate.krb5_conf: true is a boolean; write a path such as "/etc/krb5.conf"',
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines
