"""resolv.conf is read as glibc reads it: kkdcpd ignores the same lines, with a warning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config import Nameserver
from kkdcpd.config.resolv_conf import read_resolv_conf

SOURCE = "/etc/resolv.conf"
GOOD = "nameserver 192.0.2.53\n"


def _hosts(text: str) -> list[str]:
    return [nameserver.host for nameserver in read_resolv_conf(text, SOURCE).nameservers]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", ["127.0.0.1"]),
        ("\n# nameserver 192.0.2.1\n;nameserver 192.0.2.1\n", ["127.0.0.1"]),
        ("nameserver 192.0.2.53\nnameserver 2001:db8::53\n", ["192.0.2.53", "2001:db8::53"]),
        ("nameserver\t192.0.2.53 # office\n", ["192.0.2.53"]),
        ("nameserver 192.0.2.53\r\n", ["192.0.2.53"]),
        ("nameserver 127.1\n", ["127.0.0.1"]),
        ("nameserver fe80::1%eth0\n", ["fe80::1%eth0"]),
        ("nameserver fe80::1\n", ["fe80::1"]),
        ("nameserver 2001:db8::1%eth0\n", ["2001:db8::1"]),
        (" nameserver 192.0.2.53\n", ["127.0.0.1"]),
        ("nameservers 192.0.2.53\n", ["127.0.0.1"]),
        (GOOD * 2, ["192.0.2.53"]),
    ],
)
def test_servers_have_the_order_of_the_file_and_the_local_server_is_the_default(
    text: str, hosts: list[str]
) -> None:
    assert _hosts(text) == hosts
    assert read_resolv_conf(text, SOURCE).warnings == ()


@pytest.mark.parametrize(
    "line",
    [
        "domain a..b",
        "search a..b ..",
        "options edns0 timeout:1 attempts:x rotate ndots:99999999999999999999",
        "sortlist 1.2.3.4/",
        "lookup file bind",
        "\0\0\0",
        "\x85\u2028nameserver",
    ],
)
def test_other_lines_mean_nothing_here(line: str) -> None:
    resolver = read_resolv_conf(f"{line}\n{GOOD}", SOURCE)
    assert resolver.nameservers == (Nameserver(host="192.0.2.53"),)
    assert resolver.warnings == ()


@pytest.mark.parametrize(
    "written",
    [
        "dns.example.com",
        "notanip",
        "127.0.0.1#5353",
        "127.0.0.1:53",
        "[::1]:53",
        "192.0.2.1,",
        "192.0.2.1,192.0.2.2",
        "256.1.1.1",
        "fe80::1%an-interface-of-too-long-a-name",
        "::1\0",
        "\ud800",
        "é",
        "x" * 10_000,
    ],
)
def test_server_that_is_no_address_is_ignored_and_named(written: str) -> None:
    resolver = read_resolv_conf(f"{GOOD}nameserver {written}\n", SOURCE)
    (warning,) = resolver.warnings
    assert warning.key == "/etc/resolv.conf line 2"
    assert "ignored" in warning.problem
    assert str(warning).isprintable()
    assert len(str(warning)) < 300
    assert resolver.nameservers == (Nameserver(host="192.0.2.53"),)


def test_glibc_asks_three_servers() -> None:
    text = "".join(f"nameserver 192.0.2.{number}\n" for number in range(1, 6))
    resolver = read_resolv_conf(text, SOURCE)
    assert [each.host for each in resolver.nameservers] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert [warning.key.rpartition(" ")[2] for warning in resolver.warnings] == ["4", "5"]


@given(st.text() | st.text("nameserv \t\n.:%1f0").map(lambda text: f"nameserver {text}"))
def test_no_text_is_an_error(text: str) -> None:
    assert read_resolv_conf(text, SOURCE).nameservers
