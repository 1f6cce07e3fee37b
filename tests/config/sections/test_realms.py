import pytest

from tests.config.broken import KDC_REMEDY, REALM, problems_of

BROKEN = {
    "a file without a realm": (
        "",
        'realms: is missing; add a realm: a section [realms."EXAMPLE.COM"] with kdc = ["kdc1.example.com"]',
    ),
    "no realm in the realms": (
        "[realms]",
        'realms: is empty; add a realm: a section [realms."EXAMPLE.COM"] with kdc = ["kdc1.example.com"]',
    ),
    "a realm with neither KDCs nor discovery": (
        '[realms."EXAMPLE.COM"]\ndiscovery = "none"\nkpasswd = ["kdc1.example.com"]',
        (
            'realms."EXAMPLE.COM".kdc: is missing, and discovery is none: there is no KDC to ask; '
            'name the KDCs, as in kdc = ["kdc1.example.com"], or write discovery = "dns"'
        ),
    ),
    "an empty list of KDCs": (
        '[realms."EXAMPLE.COM"]\nkdc = []',
        (
            'realms."EXAMPLE.COM".kdc: is empty; '
            'write a list of hosts, such as kdc = ["kdc1.example.com"], or leave it out'
        ),
    ),
    "one KDC that is no list": (
        '[realms."EXAMPLE.COM"]\nkdc = "kdc1.example.com"',
        (
            'realms."EXAMPLE.COM".kdc: "kdc1.example.com" is text; '
            'write a list of hosts, such as kdc = ["kdc1.example.com"], or leave it out'
        ),
    ),
    "a realm without its quotes": (
        '[realms.AD.EXAMPLE.COM]\nkdc = ["kdc1.example.com"]',
        (
            "realms.AD.EXAMPLE.COM: its dots make tables within tables, as the name is not in quotes; "
            'write [realms."AD.EXAMPLE.COM"]'
        ),
    ),
    "a realm twice in different case": (
        REALM + '[realms."example.com."]\nkdc = ["kdc2.example.com"]',
        (
            'realms."example.com.": "example.com." is the same name as realms."EXAMPLE.COM", '
            "as case and a last dot don't count; remove one of them"
        ),
    ),
    "an alias that is another realm": (
        REALM + '[realms."AD.TEST"]\nkdc = ["dc1.ad.test"]\naliases = ["AD", "Example.Com"]',
        (
            'realms."AD.TEST".aliases[1]: "Example.Com" is the same name as realms."EXAMPLE.COM", '
            "as case and a last dot don't count; remove one of them"
        ),
    ),
    "a realm with a control character": (
        '[realms."EXAMPLE\\tCOM"]\nkdc = ["kdc1.example.com"]',
        (
            'realms."EXAMPLE\\tCOM": "EXAMPLE\\tCOM" has a control character in it; '
            'write a name such as "EXAMPLE.COM"'
        ),
    ),
    "a KDC with an unknown scheme": (
        '[realms.TEST]\nkdc = ["http://kdc1/KdcProxy"]',
        (
            'realms.TEST.kdc[0]: "http://kdc1/KdcProxy" begins with http://, which is no transport; '
            "write tcp://, udp://, https://, wss:// or neither"
        ),
    ),
    "two KDCs in one text": (
        '[realms.TEST]\nkdc = ["kdc1.example.com kdc2.example.com"]',
        'realms.TEST.kdc[0]: "kdc1.example.com kdc2.example.com" has no valid host name; ' + KDC_REMEDY,
    ),
    "a KDC with a port that is none": (
        '[realms.TEST]\nkdc = ["kdc1", "kdc2:70000"]',
        'realms.TEST.kdc[1]: "kdc2:70000" has a port that is no number from 1 to 65535; ' + KDC_REMEDY,
    ),
    "more KDCs than a list may name": (
        f"[realms.TEST]\nkdc = {[f'kdc{number}' for number in range(257)]}",
        "realms.TEST.kdc: has 257 entries; leave at most 256",
    ),
    "an IPv6 address without brackets": (
        '[realms.TEST]\nkdc = ["2001:db8::1::88"]',
        (
            'realms.TEST.kdc[0]: "2001:db8::1::88" has an IPv6 address that is not in brackets; '
            "write it as in [2001:db8::1]:88"
        ),
    ),
    "a KDC twice": (
        '[realms.TEST]\nkdc = ["kdc1.example.com", "tcp://KDC1.example.com:88"]',
        "realms.TEST.kdc[1]: names the same endpoint as realms.TEST.kdc[0]; remove one of them",
    ),
    "a primary KDC that is no list": (
        '[realms.TEST]\nprimary_kdc = "kdc1"',
        (
            'realms.TEST.primary_kdc: "kdc1" is text; '
            'write a list of hosts, such as primary_kdc = ["kdc1.example.com"], or leave it out'
        ),
    ),
    "a star for every realm": (
        '[realms."*"]',
        'realms."*": "*" has a * that is not its first label; write "*.EXAMPLE.COM" or a name without *',
    ),
    "a star within a name": (
        '[realms."EXAMPLE.*"]',
        (
            'realms."EXAMPLE.*": "EXAMPLE.*" has a * that is not its first label; '
            'write "*.EXAMPLE.COM" or a name without *'
        ),
    ),
    "a wildcard for a top-level domain": (
        '[realms."*.COM"]',
        (
            'realms."*.COM": "*.COM" would serve realms of any owner; '
            'write two labels at least, as in "*.EXAMPLE.COM"'
        ),
    ),
    "a wildcard with lists": (
        '[realms."*.EXAMPLE.COM"]\nkdc = ["kdc1"]\naliases = ["EXAMPLE"]',
        (
            'realms."*.EXAMPLE.COM".kdc: stands under a wildcard, and can\'t hold for every realm; '
            "remove it, or add a section for the realm it belongs to\n"
            'realms."*.EXAMPLE.COM".aliases: stands under a wildcard, and can\'t hold for every realm; '
            "remove it, or add a section for the realm it belongs to"
        ),
    ),
    "a wildcard without discovery": (
        '[realms."*.EXAMPLE.COM"]\ndiscovery = "none"',
        (
            'realms."*.EXAMPLE.COM".discovery: is none, but a wildcard\'s realms have no other way '
            'to be found; write "dns" or "active_directory"'
        ),
    ),
    "a wildcard twice": (
        '[realms."*.EXAMPLE.COM"]\n[realms."*.example.com."]',
        (
            'realms."*.example.com.": "*.example.com." is the same name as realms."*.EXAMPLE.COM", '
            "as case and a last dot don't count; remove one of them"
        ),
    ),
    "an alias with a star": (
        REALM + 'aliases = ["*.EXAMPLE.NET"]',
        (
            'realms."EXAMPLE.COM".aliases[0]: "*.EXAMPLE.NET" has a * in it; '
            'write a name such as "EXAMPLE.COM"'
        ),
    ),
    "a realm that can't be in DNS": (
        '[realms."our realm"]',
        (
            "realms.\"our realm\": is no domain's name, so its KDCs can't be found in DNS; "
            'name them: kdc = ["kdc1.example.com"]'
        ),
    ),
    "an unknown way of discovery": (
        REALM + 'discovery = "ad"',
        (
            'realms."EXAMPLE.COM".discovery: "ad" is not one of its values; '
            'write "auto", "none", "dns", "active_directory" or "proxies"'
        ),
    ),
    "a site that is never used": (
        REALM + 'site = "Berlin"',
        (
            'realms."EXAMPLE.COM".site: "Berlin" is never used, as discovery is "auto"; '
            'write discovery = "active_directory", or remove the site'
        ),
    ),
    "a site that is none": (
        REALM + 'discovery = "active_directory"\nsite = "Berlin.DE"',
        (
            'realms."EXAMPLE.COM".site: "Berlin.DE" is no site\'s name; '
            'write a name such as "Default-First-Site-Name"'
        ),
    ),
    "kpasswd with an address that is none": (
        '[realms.TEST]\nkdc = ["kdc1"]\nkpasswd = ["10.0.0.256"]',
        (
            'realms.TEST.kpasswd[0]: "10.0.0.256" has no valid IP address; '
            'write a host such as "kdc1.example.com", "kdc1.example.com:464", '
            '"tcp://kdc1.example.com" or "[2001:db8::1]"'
        ),
    ),
    "a misspelt setting that is required": (
        '[realms."EXAMPLE.COM"]\nkcd = ["kdc1.example.com"]',
        'realms."EXAMPLE.COM".kcd: there is no such setting; did you mean kdc?',
    ),
    "a pattern of certificates without its kind": (
        REALM + "client_certificates = ['*.example.com']",
        (
            'realms."EXAMPLE.COM".client_certificates[0]: "*.example.com" does not begin with the kind of '
            'name; write a pattern such as "subject:CN=*,O=Example", "dns:*.example.com", '
            '"email:*@example.com", "upn:*@EXAMPLE.COM" or "uri:spiffe://example.com/*"'
        ),
    ),
    "a subject as openssl writes it": (
        REALM + "client_certificates = ['subject:O = Example, CN = *']",
        (
            'realms."EXAMPLE.COM".client_certificates[0]: "subject:O = Example, CN = *" is not written as '
            "RFC 4514 has it; write what `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb -in FILE` "
            'prints, such as "subject:CN=*,O=Example"'
        ),
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines
