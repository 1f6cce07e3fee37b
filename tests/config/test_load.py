"""What an administrator reads: THE table of broken configurations, and the files a configuration names."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from kkdcpd.config import (
    AdminConfig,
    Config,
    ListenAddress,
    PolicyConfig,
    PrincipalPattern,
    ProcessConfig,
    load_config,
    read_admin,
    read_config,
    read_process,
)
from kkdcpd.errors import ConfigError
from kkdcpd.values import Mode
from lab.authority import Authority

from .conftest import NOT_AFTER, Issuer

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SOURCE = Path("/etc/kkdcpd/config.toml")

REALM = '[realms."EXAMPLE.COM"]\nkdc = ["kdc1.example.com"]\n'
PLAIN = '[[listen]]\naddress = "127.0.0.1:80"\ntls = false\n'

LISTEN_REMEDY = (
    'write an IP address and a port such as "192.0.2.1:443" or "[2001:db8::1]:443", '
    'or "*:443" for all addresses, or "unix:/run/kkdcpd/http.sock"'
)
KDC_REMEDY = (
    'write a host such as "kdc1.example.com", "kdc1.example.com:88", '
    '"tcp://kdc1.example.com" or "[2001:db8::1]"'
)
SYNTAX_REMEDY = 'write key = value, with texts in double quotes; sections look like [http] or [realms."NAME"]'
NUMBER_REMEDY = "no setting takes such a number: compare with config.toml.example"
NESTING_REMEDY = "close the brackets, and write no more dots than config.toml.example has"

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
            'realms."*.COM": "*.COM" would serve the realms of strangers; '
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
            'write "auto", "none", "dns" or "active_directory"'
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
    "a stagger longer than a connect": (
        REALM + "[upstream]\nstagger = 2",
        (
            "upstream.stagger: 2 seconds is longer than connect_timeout, which is 1.5; "
            "write 1.5 or less, or raise connect_timeout"
        ),
    ),
    "hedges that come too late": (
        REALM + "[upstream]\nhedge_delay = 21",
        (
            "upstream.hedge_delay: 21 seconds is longer than reply_timeout, which is 20; "
            "write 20 or less, or raise reply_timeout"
        ),
    ),
    "hedges in per cent": (
        REALM + "[upstream]\nhedge_ratio = 10",
        "upstream.hedge_ratio: 10 is too large; write a number of hedges per request from 0 to 1",
    ),
    "two source addresses of one family": (
        REALM + '[upstream]\nsource_addresses = ["2001:db8::1", "192.0.2.1", "192.0.2.2"]',
        (
            "upstream.source_addresses[2]: is an IPv4 address as upstream.source_addresses[1] is; "
            "remove one of them"
        ),
    ),
    "a source address for all": (
        REALM + '[upstream]\nsource_addresses = ["0.0.0.0"]',
        (
            'upstream.source_addresses[0]: "0.0.0.0" is no address that one interface can have; '
            'write an IP address of this host, such as "192.0.2.1"'
        ),
    ),
    "a principal with its realm": (
        REALM + '[upstream]\nprobe_principal = "probe@EXAMPLE.COM"',
        (
            'upstream.probe_principal: "probe@EXAMPLE.COM" has an @ in it; '
            "leave out the realm: each realm's KDCs are asked for their own"
        ),
    ),
    "a principal that is none": (
        REALM + '[upstream]\nprobe_principal = "host/"',
        (
            'upstream.probe_principal: "host/" is no principal\'s name; '
            'write a name such as "krbtgt", "probe" or "host/kdc1"'
        ),
    ),
    "probes that never get rarer": (
        REALM + "[upstream]\nprobe_interval_maximum = 1",
        (
            "upstream.probe_interval: 2 seconds is longer than probe_interval_maximum, which is 1; "
            "write 1 or less, or raise probe_interval_maximum"
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
    "a misspelt setting": (
        REALM + "[http]\nmax_body_byte = 4096",
        "http.max_body_byte: there is no such setting; did you mean max_body_bytes?",
    ),
    "a misspelt section": (
        REALM + "[upstreams]\nconnect_timeout = 1",
        "upstreams: there is no such setting; did you mean upstream?",
    ),
    "a setting from somewhere else": (
        REALM + "[log]\nsyslog = true",
        (
            "log.syslog: there is no such setting; remove it, or use one of format, level, principals,"
            " principals_key_file, levels"
        ),
    ),
    "a misspelt setting that is required": (
        '[realms."EXAMPLE.COM"]\nkcd = ["kdc1.example.com"]',
        'realms."EXAMPLE.COM".kcd: there is no such setting; did you mean kdc?',
    ),
    "a number with a unit": (
        REALM + '[http]\nmax_body_bytes = "128k"',
        'http.max_body_bytes: "128k" is text; write a whole number of bytes from 1024 to 1048576',
    ),
    "a number that is too small": (
        REALM + "[http]\nmax_body_bytes = 1023",
        "http.max_body_bytes: 1023 is too small; write a whole number of bytes from 1024 to 1048576",
    ),
    "a boolean for a number": (
        REALM + "[upstream]\nreply_timeout = true",
        "upstream.reply_timeout: true is a boolean; write a number of seconds from 0.1 to 300",
    ),
    "milliseconds for seconds": (
        REALM + "[upstream]\nreply_timeout = 20000",
        "upstream.reply_timeout: 20000 is too large; write a number of seconds from 0.1 to 300",
    ),
    "timeouts out of order": (
        REALM + "[upstream]\nreach_timeout = 25.5",
        (
            "upstream.reach_timeout: 25.5 seconds is longer than reply_timeout, which is 20; "
            "write 20 or less, or raise reply_timeout"
        ),
    ),
    "a connect that takes too long": (
        REALM + "[upstream]\nconnect_timeout = 6",
        (
            "upstream.connect_timeout: 6 seconds is longer than reach_timeout, which is 5; "
            "write 5 or less, or raise reach_timeout"
        ),
    ),
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
    "a path without its slash": (
        REALM + '[http]\npaths = ["KdcProxy"]',
        'http.paths[0]: "KdcProxy" does not begin with /; write "/KdcProxy"',
    ),
    "a path with a query": (
        REALM + '[http]\npaths = ["/KdcProxy?x"]',
        (
            'http.paths[0]: "/KdcProxy?x" has characters that a plain path can\'t have; '
            'write a plain path such as "/KdcProxy"'
        ),
    ),
    "a path twice": (
        REALM + '[http]\npaths = ["/KdcProxy", "/kdcproxy"]',
        "http.paths[1]: is the same path as http.paths[0], as case doesn't count; remove one of them",
    ),
    "no path": (
        REALM + "[http]\npaths = []",
        'http.paths: is empty; write a list of paths, such as ["/KdcProxy"]',
    ),
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
    "an unknown word": (
        REALM + '[log]\nlevel = "verbose"',
        'log.level: "verbose" is not one of its values; write "debug", "info", "warning" or "error"',
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
    "a table that is no power of two": (
        REALM + "[guard]\ntable_entries = 100000",
        "guard.table_entries: 100000 is no power of two; write 131072",
    ),
    "blocks out of order": (
        REALM + "[guard.failures]\nblock = 600\nblock_maximum = 60",
        (
            "guard.failures.block: 600 seconds is longer than block_maximum, which is 60; "
            "write 60 or less, or raise block_maximum"
        ),
    ),
    "an unknown mode": (
        REALM + '[guard.rates]\nmode = "on"',
        'guard.rates.mode: "on" is not one of its values; write "off", "monitor" or "enforce"',
    ),
    "an unknown kind of message": (
        REALM + '[policy]\nmessage_kinds = ["as_req", "krb_error"]',
        (
            'policy.message_kinds[1]: "krb_error" is not one of its values; '
            'write "as_req", "tgs_req" or "kpasswd_req"'
        ),
    ),
    "no kind of message": (
        REALM + "[policy]\nmessage_kinds = []",
        'policy.message_kinds: is empty; write a list of kinds, such as ["as_req", "tgs_req"]',
    ),
    "a pattern with its realm": (
        REALM + '[policy]\ncname_deny = ["*/admin@EXAMPLE.COM"]',
        (
            'policy.cname_deny[0]: "*/admin@EXAMPLE.COM" has an @ in it; '
            "leave out the realm: it is the one that is asked for"
        ),
    ),
    "a misspelt setting of one realm's policy": (
        REALM + '[realms."EXAMPLE.COM".policy]\nrequire_armour = "enforce"',
        'realms."EXAMPLE.COM".policy.require_armour: there is no such setting; did you mean require_armor?',
    ),
    "a bad value in both policies": (
        REALM + '[policy]\nservices = 0\n[realms."EXAMPLE.COM".policy]\nservices = 0',
        (
            "policy.services: 0 is too small; write a whole number of services from 1 to 1000000\n"
            'realms."EXAMPLE.COM".policy.services: 0 is too small; '
            "write a whole number of services from 1 to 1000000"
        ),
    ),
    "client certificates without TLS": (
        REALM + PLAIN + 'client_certificates = "optional"\n[tls]\nclient_ca = "ca.pem"',
        (
            'listen[0].client_certificates: is "optional", but only TLS has certificates; '
            "write tls = true, or remove it"
        ),
    ),
    "client certificates of no authority": (
        REALM + '[[listen]]\nclient_certificates = "required"',
        (
            "tls.client_ca: is missing, so that no client's certificate could be trusted; "
            "name the PEM file of the authority that clients have their certificates from"
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
            'tells, such as "subject:CN=*,O=Example"'
        ),
    ),
    "a PROXY header from no proxy": (
        REALM + "[[listen]]\nproxy_protocol = true",
        (
            "listen[0].proxy_protocol: is true, but no proxy is trusted, so no client could connect; "
            'name your proxies in connections.trusted_proxies, as in ["192.0.2.1"]'
        ),
    ),
    "a header from no proxy": (
        REALM + '[connections]\nforwarded = "x-forwarded-for"',
        (
            'connections.forwarded: is "x-forwarded-for", but no proxy is trusted, '
            "so that it would never be read; "
            'name your proxies in connections.trusted_proxies, as in ["192.0.2.1"]'
        ),
    ),
    "a trusted proxy that is never heard": (
        REALM + '[connections]\ntrusted_proxies = ["192.0.2.1"]',
        (
            "connections.trusted_proxies: is never used, as neither a PROXY header nor an HTTP header is "
            "read; write forwarded there, or proxy_protocol = true under [[listen]], or remove it"
        ),
    ),
    "several things at once": (
        '[http]\nbody_timeout = 0\npath = ["/"]\n[realms."EXAMPLE.COM"]\nkdc = ["kdc:0"]\n[log]\nformat = 1',
        "http.path: there is no such setting; did you mean paths?\n"
        "http.body_timeout: 0 is too small; write a number of seconds from 0.1 to 120\n"
        'log.format: 1 is a whole number; write "text" or "json"\n'
        'realms."EXAMPLE.COM".kdc[0]: "kdc:0" has a port that is no number from 1 to 65535; ' + KDC_REMEDY,
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_configuration_tells_what_to_write_instead(text: str, lines: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(text, source=SOURCE)
    assert str(caught.value) == lines


@pytest.mark.parametrize(
    "listener",
    [
        'address = "*:80"\ntls = false\nplain_http_anywhere = true',
        'address = "[::1]:80"\ntls = false',
        'address = "unix:/run/http.sock"\ntls = false',
    ],
)
def test_plain_http_is_taken_where_it_is_meant(listener: str) -> None:
    config = read_config(f"{REALM}[[listen]]\n{listener}", source=SOURCE)
    assert [found.tls for found in config.listen] == [False]


UNIX = '[[listen]]\naddress = "unix:/run/http.sock"\ntls = false\n'
TRUSTED = '[connections]\ntrusted_proxies = ["192.0.2.1"]\n'


@pytest.mark.parametrize(
    "settings",
    [
        UNIX + "proxy_protocol = true",
        UNIX + '[connections]\nforwarded = "forwarded"',
        "[[listen]]\nproxy_protocol = true\n" + TRUSTED,
        TRUSTED + 'forwarded = "x-forwarded-for"',
    ],
)
def test_proxies_are_believed_by_network_or_on_a_unix_socket(settings: str) -> None:
    read_config(REALM + settings, source=SOURCE)


def test_policy_of_a_realm_is_its_own_words_over_those_for_all() -> None:
    text = """
        [policy]
        require_armor = "monitor"
        services = 10
        cname_deny = ["*/admin"]
        [realms."A.TEST".policy]
        require_armor = "enforce"
        cname_deny = []
        sname_allow = ["HOST/*"]
        [realms."B.TEST"]
        """
    config = read_config(text, source=SOURCE)
    common = PolicyConfig(require_armor=Mode.MONITOR, services=10, cname_deny=(PrincipalPattern("*/admin"),))
    own = replace(
        common, require_armor=Mode.ENFORCE, cname_deny=(), sname_allow=(PrincipalPattern("HOST/*"),)
    )
    assert config.policy == common
    assert [realm.policy for realm in config.realms] == [own, common]


def test_policy_of_a_realm_has_the_defaults_where_nothing_is_written() -> None:
    config = read_config('[realms."A.TEST".policy]\ns4u2self = "enforce"', source=SOURCE)
    assert config.realms[0].policy == PolicyConfig(s4u2self=Mode.ENFORCE)


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
