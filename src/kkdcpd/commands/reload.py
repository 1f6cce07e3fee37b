"""`kkdcpd reload`: have a running kkdcpd read its configuration again, and hear what came of it."""

import errno
from pathlib import Path

from kkdcpd.errors import KkdcpdError
from kkdcpd.supervisor.control import ReloadOutcome, request_reload

__all__ = ["UnreachableError", "reload"]

ANSWER_SECONDS = 60.0
"""A generation has 30 seconds to get ready, and ours may have to wait for another one."""

_HANGS_UP = "it stopped, or too many asked at once: its log tells what came of the reload"
_REMEDIES = {
    errno.ENOENT: "start kkdcpd, or correct process.control if it runs with another one",
    errno.ECONNREFUSED: (
        "a kkdcpd that has ended left the socket behind: start kkdcpd, or correct process.control if it runs"
        " with another one"
    ),
    errno.EACCES: "run this as root or as the user that kkdcpd runs as: sudo kkdcpd reload",
    errno.EPERM: "run this as root or as the user that kkdcpd runs as: sudo kkdcpd reload",
    errno.ENOTSOCK: "it is no socket: correct process.control",
    errno.EAGAIN: "kkdcpd is busy: its log tells what came of the reload",
    errno.ECONNRESET: _HANGS_UP,
    errno.EPIPE: _HANGS_UP,
}
_ANY_REMEDY = "look whether kkdcpd runs and what it logs, or send SIGHUP to its first process"


class UnreachableError(KkdcpdError):
    """No kkdcpd answers on the control socket."""


def reload(control: Path | None) -> ReloadOutcome:
    """Ask the kkdcpd whose control socket this is for a reload.

    Raises:
        UnreachableError: it can't be asked, or doesn't answer.
    """
    if control is None:
        raise UnreachableError(
            "no kkdcpd can be asked: process.control is empty; set it, or send SIGHUP to its first process"
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
