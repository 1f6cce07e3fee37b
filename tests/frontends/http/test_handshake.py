"""The client's facts after a TLS handshake. Real handshakes are in test_acceptor and test_tls_advice."""

from dataclasses import replace

import pytest

from kkdcpd.frontends.http.handshake import has_expired
from kkdcpd.values import ClientCertificate, ClientConnection

CLIENT = ClientConnection(address="192.0.2.1", port=1, network="192.0.2.1")


@pytest.mark.parametrize(("expires", "expected"), [(0.0, True), (4e9, False)])
def test_certificate_expires(expires: float, expected: bool) -> None:
    certificate = ClientCertificate(subject="CN=client", names=(), expires=expires)
    assert has_expired(replace(CLIENT, certificate=certificate)) is expected


def test_client_without_a_certificate_has_none_that_expires() -> None:
    assert not has_expired(CLIENT)
