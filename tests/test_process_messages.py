"""Messages between processes, encoded and decoded."""

from dataclasses import replace

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.process_messages import (
    MAX_PROBLEMS,
    Alive,
    HealthNotice,
    LoadDropped,
    Message,
    ProbeTarget,
    ReloadResult,
    Retire,
    ServiceStatus,
    decode,
    encode,
)
from kkdcpd.values import FailureReason, KdcState

ENDPOINT = KdcEndpoint(name="dc1.example.com", address="2001:db8::1", port=88, transport=Transport.UDP)
NOTICES = [
    HealthNotice(
        target=ProbeTarget(endpoint=ENDPOINT, realm="EXAMPLE.COM"),
        state=KdcState.DOWN,
        reason=FailureReason.REFUSED,
        probe_in=1.5,
    ),
    HealthNotice(target=ProbeTarget(endpoint=ENDPOINT, realm=None), state=KdcState.HEALTHY),
]

STATUS = ServiceStatus(
    generation=3, workers_ready=1, workers_wanted=2, started_at=1.5, is_draining=True, last_reload=None
)
STATUSES = [
    STATUS,
    replace(STATUS, last_reload=ReloadResult(at=2.5, is_ok=False, problems=("one", "«two»"))),
]


@pytest.mark.parametrize("message", [Alive(), LoadDropped(), Retire(), *NOTICES, *STATUSES], ids=str)
def test_decoded_message_equals_the_encoded_one(message: Message) -> None:
    assert decode(encode(message)) == message


def test_endpoint_keeps_its_url_path_and_branch() -> None:
    endpoint = replace(ENDPOINT, path="/KdcProxy", branch="evil.example.com")
    notice = replace(NOTICES[0], target=ProbeTarget(endpoint=endpoint, realm="X"))
    decoded = decode(encode(notice))
    assert isinstance(decoded, HealthNotice)
    assert (decoded.target.endpoint.path, decoded.target.endpoint.branch) == ("/KdcProxy", "evil.example.com")


def test_problems_of_a_reload_are_bounded() -> None:
    failed = ReloadResult(at=2.5, is_ok=False, problems=("problem",) * (MAX_PROBLEMS + 1))
    decoded = decode(encode(replace(STATUS, last_reload=failed)))
    assert isinstance(decoded, ServiceStatus)
    assert decoded.last_reload
    assert len(decoded.last_reload.problems) == MAX_PROBLEMS
