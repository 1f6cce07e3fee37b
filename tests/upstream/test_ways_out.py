"""Each transport has its way out."""

from dataclasses import replace
from typing import cast

from kkdcpd.config import UpstreamConfig
from kkdcpd.endpoints import Transport
from kkdcpd.upstream.https.attempt import HttpsAttempt
from kkdcpd.upstream.sockets import AttemptEvents
from kkdcpd.upstream.tcp import TcpAttempt
from kkdcpd.upstream.udp import UdpAttempt
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.upstream.wss import WssAttempt
from kkdcpd.values import Attempt
from tests.support.fake_kdc import FakeKdc
from tests.support.upstream import endpoint


async def test_every_transport_has_a_way_out() -> None:
    ways_out = WaysOut(replace(UpstreamConfig(), source_addresses=("127.0.0.9", "::1")))
    ways = {
        transport: type(
            ways_out.open(
                Attempt(number=1, endpoint=endpoint(FakeKdc(), transport)),
                cast("AttemptEvents", None),
                networks=("192.0.2.1",),
                may_repeat=True,
            )
        )
        for transport in Transport
    }
    assert ways == {
        Transport.TCP: TcpAttempt,
        Transport.UDP: UdpAttempt,
        Transport.HTTPS: HttpsAttempt,
        Transport.WSS: WssAttempt,
    }


async def test_only_udp_can_lack_a_port() -> None:
    ways_out = WaysOut(UpstreamConfig())
    assert all(ways_out.has_port(endpoint(FakeKdc(), transport), ("192.0.2.1",)) for transport in Transport)
