"""The messages that may be sent again, and the failures that permit it."""

import pytest

from kkdcpd.endpoints import Transport
from kkdcpd.protocol.resending import is_repeatable, may_be_delivered
from kkdcpd.values import FailureReason
from tests.support import messages
from tests.support.upstream import request_of


@pytest.mark.parametrize("padata", [[], [149], [149, 150], [128], [150, 149, 167, 128]])
def test_as_req_without_any_proof_is_repeatable(padata: list[int]) -> None:
    assert is_repeatable(request_of(messages.as_req(padata=[(number, b"") for number in padata])))


@pytest.mark.parametrize("padata", [2, 16, 133, 136, 138, 141, 151, 4711, -1])
def test_as_req_with_anything_else_is_sent_once(padata: int) -> None:
    assert not is_repeatable(request_of(messages.as_req(padata=[(149, b""), (padata, b"")])))


def test_ticket_may_be_shown_twice_and_a_password_change_may_not() -> None:
    assert is_repeatable(request_of(messages.tgs_req()))
    assert not is_repeatable(request_of(messages.kpasswd_req()))


@pytest.mark.parametrize("reason", FailureReason)
def test_message_over_tcp_may_be_delivered_after_every_failure(reason: FailureReason) -> None:
    assert may_be_delivered(Transport.TCP, reason)


def test_datagram_to_a_closed_port_and_datagram_that_was_not_sent_are_not_delivered() -> None:
    assert {reason for reason in FailureReason if not may_be_delivered(Transport.UDP, reason)} == {
        FailureReason.REFUSED,
        FailureReason.MESSAGE_TOO_BIG,
        FailureReason.LOCAL_ERROR,
        FailureReason.PORT_LIMIT,
    }
