"""`kkdcpd reload`: requests a reload from a running kkdcpd, and waits for the result."""

import errno
from pathlib import Path

from kkdcpd.errors import KkdcpdError
from kkdcpd.supervisor.control import ReloadOutcome, request_reload

__all__ = ["UnreachableError", "reload"]

ANSWER_SECONDS = 60.0
"""A generation has 30 seconds to become ready, and may have to wait for the generation before it."""

_CONNECTION_CLOSED = (
    "it stopped, or got too many reload requests at once: its log has the result of the reload"
)
_REMEDIES = {
    errno.ENOENT: "start kkdcpd, or correct process.control if it uses another socket",
    errno.ECONNREFUSED: (
        "a kkdcpd that has ended left the socket behind: start kkdcpd, or correct process.control if it uses"
        " another socket"
    ),
    errno.EACCES: "run this as root or as the user that kkdcpd runs as: sudo kkdcpd reload",
    errno.EPERM: "run this as root or as the user that kkdcpd runs as: sudo kkdcpd reload",
    errno.ENOTSOCK: "this file is no socket: correct process.control",
    errno.EAGAIN: "kkdcpd is busy: its log has the result of the reload",
    errno.ECONNRESET: _CONNECTION_CLOSED,
    errno.EPIPE: _CONNECTION_CLOSED,
}
_ANY_REMEDY = "check that kkdcpd runs, and read its log; or send SIGHUP to its parent process"


class UnreachableError(KkdcpdError):
    """No kkdcpd answers on the control socket."""


def reload(control: Path | None) -> ReloadOutcome:
    """Request a reload through the control socket.

    Raises:
        UnreachableError: no kkdcpd accepts the request, or it sends no answer.
    """
    if control is None:
        raise UnreachableError(
            "process.control is empty, so kkdcpd has no control socket; set it, or send SIGHUP to the parent"
            " process"
        )
    try:
        return request_reload(control, timeout=ANSWER_SECONDS)
    except TimeoutError as error:
        reason, remedy = f"no answer within {ANSWER_SECONDS:g} s", _REMEDIES[errno.EAGAIN]
        raise _unreachable(control, reason, remedy) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise _unreachable(control, reason, _REMEDIES.get(error.errno or 0, _ANY_REMEDY)) from error


def _unreachable(control: Path, reason: str, remedy: str) -> UnreachableError:
    return UnreachableError(f"no kkdcpd answers on {control}: {reason}; {remedy}")
