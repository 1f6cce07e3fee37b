import logging

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.upstream.kdc_proxy_log import log_kdc_proxy_failure
from kkdcpd.values import FailureReason


@pytest.mark.parametrize("transport", [Transport.HTTPS, Transport.WSS])
def test_line_names_the_proxy_the_reason_and_the_cure(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "kkdcpd")
    endpoint = KdcEndpoint(name="proxy.example.com", address="192.0.2.1", port=443, transport=transport)
    log_kdc_proxy_failure(endpoint, FailureReason.PROXY_RATE_LIMITED, status=429)
    (record,) = caplog.records
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["kdc"], fields["status"]) == (str(endpoint), 429)
    assert fields["reason"] == "proxy_rate_limited"
    assert "raise the limits" in fields["advice"]
    assert "problem" not in fields
