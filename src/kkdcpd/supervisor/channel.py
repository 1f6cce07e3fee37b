"""What the parent and a child of it tell each other: small messages over a pair of sockets.

No side ever waits for the other. What a child is too slow to read is lost, and the next message tells more;
the one word that must not be lost, to end, is the end of the channel itself. So a child ends too when its
parent is gone.
"""

import dataclasses
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from kkdcpd.endpoints import unpack_endpoint
from kkdcpd.upstream.health import HealthNotice, ProbeTarget
from kkdcpd.values import (
    FailureReason,
    KdcState,
    LoadDropped,
    ReloadResult,
    Retire,
    ServiceStatus,
)

__all__ = ["Alive", "Channel", "Message"]

MAX_MESSAGE_BYTES = 65536
"""Names in them are of DNS or Kerberos, both far shorter."""


MAX_PROBLEMS = 32
"""More of one file are told by `kkdcpd reload` and the log alone."""


@dataclass(frozen=True, slots=True)
class Alive:
    """A child's event loop runs. When it first says so, it serves."""


Message = Alive | LoadDropped | HealthNotice | Retire | ServiceStatus


class Channel:
    """One end. It never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.settimeout(0.0)
        self.is_open = True

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Make both ends."""
        # Datagrams that come in order, and whose end shows (unix(7)).
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    def fileno(self) -> int:
        """Return the descriptor, for whoever waits for messages."""
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """Send a message; say whether the other side will get it."""
        try:
            self._socket.send(_encode(message))
        except OSError:
            return False
        return True

    def receive(self) -> Iterator[Message]:
        """Return what has come. At the end of the channel `is_open` becomes false."""
        while self.is_open:
            try:
                data = self._socket.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                yield _decode(data)
            else:
                self.is_open = False

    def end(self) -> None:
        """Tell the other side to end. What it says meanwhile is still heard."""
        if self.is_open:
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end, in this process."""
        self.is_open = False
        self._socket.close()


def _encode(message: Message) -> bytes:
    match message:
        case Alive():
            fields: list[object] = ["alive"]
        case LoadDropped():
            fields = ["load dropped"]
        case Retire():
            fields = ["retire"]
        case HealthNotice(target=ProbeTarget(endpoint=endpoint, realm=realm)):
            reason = message.reason.value if message.reason else None
            fields = [
                "health",
                endpoint.pack(),
                endpoint.branch,
                realm,
                message.state.value,
                reason,
                message.probe_in,
            ]
        case ServiceStatus(last_reload=reload):
            told = dataclasses.asdict(dataclasses.replace(message, last_reload=None))
            last = reload and [reload.at, reload.is_ok, reload.problems[:MAX_PROBLEMS]]
            fields = ["status", told, last]
    return json.dumps(fields).encode()


def _decode(data: bytes) -> Message:
    match json.loads(data):
        case ["health", endpoint, branch, realm, state, reason, probe_in]:
            return HealthNotice(
                target=ProbeTarget(endpoint=unpack_endpoint(endpoint, branch=branch), realm=realm),
                state=KdcState(state),
                reason=FailureReason(reason) if reason else None,
                probe_in=probe_in,
            )
        case ["status", told, last]:
            reload = ReloadResult(at=last[0], is_ok=last[1], problems=tuple(last[2])) if last else None
            return ServiceStatus(**told | {"last_reload": reload})
        case ["load dropped"]:
            return LoadDropped()
        case ["retire"]:
            return Retire()
        case _:
            return Alive()
