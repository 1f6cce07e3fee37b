"""Messages between the processes of one service, and the form in which they are sent.

The parent process sends to its children, and each child sends to the parent. What a worker process finds out
about an endpoint, the parent passes on to the other worker processes.
"""

import dataclasses
import json

from kkdcpd.endpoints import KdcEndpoint, unpack_endpoint
from kkdcpd.frozen import frozen
from kkdcpd.values import FailureReason, KdcState

__all__ = [
    "Alive",
    "HealthNotice",
    "LoadDropped",
    "Message",
    "ProbeTarget",
    "ReloadResult",
    "Retire",
    "ServiceStatus",
    "decode",
    "encode",
]

MAX_PROBLEMS = 32
"""Problems of a failed reload in one message. The log and `kkdcpd reload` show all of them."""


@frozen
class Alive:
    """The event loop of a child process runs. The first such message means that the process serves."""


@frozen
class LoadDropped:
    """A worker process had many connections, few are left, and Python keeps the memory that they took."""


@frozen
class Retire:
    """The successor of a worker process serves: accept no more connections, and finish the open ones."""


@frozen
class ProbeTarget:
    """An endpoint to probe: with an AS-REQ for `realm`, or by connecting if `realm` is None (kpasswd)."""

    endpoint: KdcEndpoint
    realm: str | None


@frozen
class HealthNotice:
    """The health of an endpoint, and the seconds until the process that noticed it sends its next probe."""

    target: ProbeTarget
    state: KdcState
    reason: FailureReason | None = None
    probe_in: float = 0.0


@frozen
class ReloadResult:
    """The result of a reload. `at` is in seconds since 1970; `problems` say why nothing has changed."""

    at: float
    is_ok: bool
    problems: tuple[str, ...] = ()


@frozen
class ServiceStatus:
    """The state of the service, as the parent process knows it. `started_at` is in seconds since 1970.

    `generation` is 1 after the start, and grows by 1 with each successful reload.
    """

    generation: int
    workers_ready: int
    workers_wanted: int
    started_at: float
    is_draining: bool = False
    last_reload: ReloadResult | None = None


Message = Alive | LoadDropped | HealthNotice | Retire | ServiceStatus

_WITHOUT_FIELDS: dict[str, Message] = {"alive": Alive(), "load dropped": LoadDropped(), "retire": Retire()}


def encode(message: Message) -> bytes:
    """Return the message in the form that `decode` reads."""
    match message:
        case HealthNotice():
            fields = _health_fields(message)
        case ServiceStatus():
            fields = _status_fields(message)
        case _:
            fields = [next(word for word, known in _WITHOUT_FIELDS.items() if known == message)]
    return json.dumps(fields).encode()


def decode(data: bytes) -> Message:
    """Return the message that `encode` made the bytes of."""
    match json.loads(data):
        case ["health", endpoint, branch, realm, state, reason, probe_in]:
            return HealthNotice(
                target=ProbeTarget(endpoint=unpack_endpoint(endpoint, branch=branch), realm=realm),
                state=KdcState(state),
                reason=FailureReason(reason) if reason else None,
                probe_in=probe_in,
            )
        case ["status", fields, last]:
            reload = ReloadResult(at=last[0], is_ok=last[1], problems=tuple(last[2])) if last else None
            return ServiceStatus(**fields | {"last_reload": reload})
        case [word]:
            return _WITHOUT_FIELDS[word]
        case other:
            raise AssertionError(f"unknown message {other!r}")


def _health_fields(notice: HealthNotice) -> list[object]:
    endpoint = notice.target.endpoint
    reason = notice.reason.value if notice.reason else None
    return [
        *("health", endpoint.pack(), endpoint.branch, notice.target.realm),
        *(notice.state.value, reason, notice.probe_in),
    ]


def _status_fields(status: ServiceStatus) -> list[object]:
    fields = dataclasses.asdict(dataclasses.replace(status, last_reload=None))
    last = status.last_reload
    return ["status", fields, last and [last.at, last.is_ok, last.problems[:MAX_PROBLEMS]]]
