import pytest

from kkdcpd.config import read_config
from tests.config.broken import REALM, SOURCE, TRUSTED, UNIX, problems_of

BROKEN = {
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
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines


@pytest.mark.parametrize(
    "settings",
    [
        UNIX + "proxy_protocol = true",
        UNIX + '[connections]\nforwarded = "forwarded"',
        "[[listen]]\nproxy_protocol = true\n" + TRUSTED,
        TRUSTED + 'forwarded = "x-forwarded-for"',
    ],
)
def test_trusted_proxies_connect_by_network_or_unix_socket(settings: str) -> None:
    read_config(REALM + settings, source=SOURCE)
