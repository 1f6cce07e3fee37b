"""`kkdcpd dns-records`. tests/interop/test_discovery.py publishes its output for real clients."""

import json

import dns.zone
import pytest

from kkdcpd.cli import ExitCode, main
from kkdcpd.commands.dns_records import MAX_SERVERS

URL = "https://proxy.example.com/KdcProxy"
WSS = "wss://tunnel.example.com:8443/KdcTunnel"


def _output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["dns-records", *arguments]) == ExitCode.OK
    return capsys.readouterr().out


def _notes(output: str) -> str:
    """Return the comments before the records as one line."""
    head = output.partition("\n\n")[0]
    return " ".join(line.lstrip("; ") for line in head.splitlines())


def _data(output: str, name: str) -> list[str]:
    """Read the records of a name as a DNS server does."""
    zone = dns.zone.from_text(
        f"@ 3600 IN SOA ns hostmaster 1 1 1 1 1\n@ 3600 IN NS ns\n{output}\n",
        origin="example.com.",
        relativize=False,
    )
    node = zone.get_node(f"{name}.example.com.")
    return [str(rdata) for rdataset in node or () for rdata in rdataset]


def test_records_of_a_proxy_name_its_url_for_both_services_and_its_host_in_srv_records(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = _output(capsys, "EXAMPLE.COM", URL, WSS)
    for name in ("_kerberos", "_kpasswd"):
        assert _data(output, name) == [
            f'10 0 "krb5srv:m:kkdcp:{URL}"',
            f'20 0 "krb5srv:m:kkdcp:{WSS}"',
        ]
    for label in ("_kkdcp", "_https"):
        assert _data(output, f"_kerberos.{label}") == ["10 0 443 proxy.example.com."]
    assert _data(output, "_kerberos._wss") == ["20 0 8443 tunnel.example.com."]


def test_servers_for_inside_clients_come_first_and_over_both_transports(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = _output(
        capsys, "EXAMPLE.COM", URL, "--kdc", "kdc1", "--kdc", "[::1]:1088", "--password-server", "kdc1"
    )
    assert _data(output, "_kerberos") == [
        '10 0 "krb5srv:m:udp:kdc1:88"',
        '10 0 "krb5srv:m:tcp:kdc1:88"',
        '20 0 "krb5srv:m:udp:[::1]:1088"',
        '20 0 "krb5srv:m:tcp:[::1]:1088"',
        f'100 0 "krb5srv:m:kkdcp:{URL}"',
    ]
    assert _data(output, "_kpasswd")[:2] == ['10 0 "krb5srv:m:udp:kdc1:464"', '10 0 "krb5srv:m:tcp:kdc1:464"']


def test_notes_explain_the_traps_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    without_kdc = _notes(_output(capsys, "EXAMPLE.COM", URL))
    assert "A client that finds a URI record looks for no SRV record" in without_kdc
    with_kdc = _notes(_output(capsys, "EXAMPLE.COM", URL, "--kdc", "kdc1"))
    assert "Without udp, MIT's clients try the proxies before the KDC" in with_kdc
    assert "a client that gets a reply too big for UDP finds no server" in with_kdc
    assert "Clients inside change passwords through the proxies" in with_kdc
    for notes in (without_kdc, with_kdc):
        assert "no proxy that a record of _kerberos-adm names" in notes
        assert "Apple's clients always use the path /kkdcp" in notes
        assert "Kerberos.NET" not in notes
    assert "Kerberos.NET uses the path /KdcProxy" in _notes(
        _output(capsys, "EXAMPLE.COM", "https://proxy.example.com/other")
    )
    assert "MIT's clients then use the path /" in _notes(_output(capsys, "EXAMPLE.COM", "https://p"))
    assert "without a dot" in _notes(_output(capsys, "EXAMPLE", URL))


def test_srv_record_names_no_ip_address_and_each_host_once(capsys: pytest.CaptureFixture[str]) -> None:
    output = _output(capsys, "EXAMPLE.COM", "https://192.0.2.1/KdcProxy", URL, f"{URL}/other")
    assert _data(output, "_kerberos._https") == ["20 0 443 proxy.example.com."]
    assert "An SRV record cannot name an IP address" in _notes(output)
    assert len(_data(output, "_kerberos")) == 3


def test_json_has_the_same_records(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("EXAMPLE.COM", URL, WSS, "--kdc", "kdc1", "--ttl", "60")
    zone = [line for line in _output(capsys, *arguments).splitlines() if line and not line.startswith(";")]
    found = json.loads(_output(capsys, *arguments, "--json"))
    assert found["realm"] == "EXAMPLE.COM"
    assert [
        f"{each['name']} {each['ttl']} IN {each['type']} {each['data']}" for each in found["records"]
    ] == zone
    assert " 60 IN URI " in zone[0]
    assert any("split horizon" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("a b", URL), "a b is no domain name"),
        (("EXAMPLE.COM", "http://proxy.example.com/"), "does not begin with https:// or wss://"),
        (("EXAMPLE.COM", "https://proxy.example.com/ "), "the path has a character that no URL has"),
        (("EXAMPLE.COM", 'https://proxy.example.com/"'), "the path has a character that no URL has"),
        (("EXAMPLE.COM", URL, "--kdc", "a b"), "a b: the host is invalid"),
        (("EXAMPLE.COM", URL, "--kdc", URL), f"{URL}: the host is invalid"),
        (("EXAMPLE.COM", URL, "--kdc", "kdc1:0"), "kdc1:0: has a port that is no number"),
        (("EXAMPLE.COM", *[URL] * (MAX_SERVERS + 1)), "at most 9 servers"),
        (("EXAMPLE.COM", URL, "--ttl", "-1"), "--ttl: -1 is no number of seconds from 0 to 2147483647"),
        (("EXAMPLE.COM",), "the following arguments are required: URL"),
    ],
)
def test_invalid_argument_is_a_usage_error_that_names_it(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dns-records", *arguments])
    assert ended.value.code == ExitCode.USAGE
    assert problem in capsys.readouterr().err
