"""The web proxy in the environment, and its exceptions."""

import base64

import pytest

from kkdcpd.errors import SettingError
from kkdcpd.upstream.https.web_proxy import WebProxies, WebProxy, read_environment

PROXY = WebProxy(host="web.test", port=8080)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://web.test:8080", PROXY),
        ("http://web.test:8080/", PROXY),
        ("web.test:8080", PROXY),
        ("http://web.test", WebProxy(host="web.test", port=3128)),
        ("http://[::1]:8080", WebProxy(host="::1", port=8080)),
    ],
)
def test_url_of_a_web_proxy_is_read(url: str, expected: WebProxy) -> None:
    assert read_environment({"https_proxy": url}) == WebProxies(proxy=expected)


def test_lower_case_precedes_upper_case() -> None:
    environment = {
        "https_proxy": "http://web.test:8080",
        "HTTPS_PROXY": "http://other.test:1",
        "NO_PROXY": "A, b",
    }
    assert read_environment(environment) == WebProxies(proxy=PROXY, exceptions=("a", "b"))


def test_no_variable_means_no_web_proxy() -> None:
    assert read_environment({"https_proxy": "", "http_proxy": "http://web.test"}) == WebProxies()


def test_user_and_password_become_basic_authentication_and_are_never_shown() -> None:
    proxies = read_environment({"https_proxy": "http://user%40x:p%3Ass%2F@web.test:8080"})
    assert proxies.proxy
    assert proxies.proxy.authorization == "Basic " + base64.b64encode(b"user@x:p:ss/").decode()
    assert "Basic" not in repr(proxies)


@pytest.mark.parametrize(
    "url", ["https://web.test", "socks5://web.test", "http://", "http://web.test:x", "http://[::1"]
)
def test_other_urls_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_environment({"https_proxy": url.replace("//", "//user:secret@")})
    assert "secret" not in f"{caught.value.problem} {caught.value.remedy}"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("exception", "is_direct"),
    [
        ("*", True),
        ("proxy.example.com", True),
        ("PROXY.example.com", True),
        (".example.com", True),
        ("*.example.com", True),
        ("example.com", True),
        ("ample.com", False),
        ("proxy.example.com:443", True),
        ("proxy.example.com:8443", False),
        ("192.0.2.0/24", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::/32", False),
        ("[::1]:443", False),
    ],
)
def test_no_proxy_names_the_exceptions(exception: str, is_direct: bool) -> None:
    environment = {"https_proxy": "http://web.test:8080", "no_proxy": f"other.test,{exception}"}
    found = read_environment(environment).proxy_for("proxy.example.com.", "192.0.2.7", 443)
    assert (found is None) is is_direct


def test_ipv6_addresses_and_zones_are_compared() -> None:
    proxies = WebProxies(proxy=PROXY, exceptions=("[2001:db8::1]:443", "fe80::/10"))
    assert proxies.proxy_for("2001:db8::1", "2001:db8::1", 443) is None
    assert proxies.proxy_for("x", "fe80::1%eth0", 443) is None
    assert proxies.proxy_for("2001:db8::1", "2001:db8::1", 8443) == PROXY
