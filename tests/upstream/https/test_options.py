"""The options of the HTTPS way out."""

from kkdcpd.upstream.https.options import HttpsOptions


def test_defaults_trust_the_system_pin_nothing_and_read_the_environment() -> None:
    options = HttpsOptions()
    assert (options.ca_file, options.certificate, options.pins, options.web_proxies) == (None, None, {}, None)


def test_message_sent_once_needs_a_fresher_connection_than_the_others() -> None:
    assert HttpsOptions().fresh_seconds < HttpsOptions().idle_timeout
