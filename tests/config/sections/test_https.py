import hashlib
from base64 import b64encode

import pytest

from kkdcpd.config import read_config
from tests.config.broken import PLAIN, REALM, SOURCE, problems_of

DIGEST = hashlib.sha256(b"key").digest()
PIN = f"sha256//{b64encode(DIGEST).decode()}"
PIN_REMEDY = 'write a host and the digest of its key, such as "proxy.example.com sha256//BASE64"'

BROKEN = {
    "a certificate without its key": (
        '[upstream.https]\ncertificate = "client.pem"',
        (
            "upstream.https.key: is missing, but upstream.https.certificate is set; "
            "name both files, or remove the other one"
        ),
    ),
    "a key without its certificate": (
        '[upstream.https]\nkey = "client.pem"',
        (
            "upstream.https.certificate: is missing, but upstream.https.key is set; "
            "name both files, or remove the other one"
        ),
    ),
    "a fresh connection that is not kept": (
        "[upstream.https]\nfresh_seconds = 20",
        (
            "upstream.https.fresh_seconds: 20 seconds is longer than idle_timeout, which is 15; "
            "write 15 or less, or raise idle_timeout"
        ),
    ),
    "a pin without a host": (
        f'[upstream.https]\npins = ["{PIN}"]',
        f'upstream.https.pins[0]: "{PIN}" is no host with the sha256 digest of a key; {PIN_REMEDY}',
    ),
    "a pin that is too short": (
        '[upstream.https]\npins = ["proxy.test sha256//AAAA"]',
        (
            'upstream.https.pins[0]: "proxy.test sha256//AAAA" has a digest of 3 bytes, and SHA-256 has 32; '
            + PIN_REMEDY
        ),
    ),
    "a pin that is no base64": (
        '[upstream.https]\npins = ["proxy.test sha256//A?"]',
        f'upstream.https.pins[0]: "proxy.test sha256//A?" has a digest that is no base64; {PIN_REMEDY}',
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(REALM + text) == lines


def test_host_may_have_two_pinned_keys() -> None:
    other = f"sha256//{b64encode(bytes(32)).decode()}"
    pins = f'["Proxy.test {PIN}", "proxy.test {other}"]'
    config = read_config(PLAIN + REALM + f"[upstream.https]\npins = {pins}", source=SOURCE)
    assert config.upstream.https.pinned_keys == {"proxy.test": frozenset({DIGEST, bytes(32)})}
