"""`kkdcpd reload`: have a running kkdcpd read its configuration again, and hear what came of it."""

from pathlib import Path

from kkdcpd.errors import KkdcpdError
from kkdcpd.supervisor.control import ReloadOutcome, ask_for_reload

__all__ = ["NobodyThereError", "reload"]

ANSWER_SECONDS = 60.0
"""A generation has 30 seconds to get ready, and ours may have to wait for another one."""


class NobodyThereError(KkdcpdError):
    """No kkdcpd answers on the control socket."""

    def __init__(self, path: Path | None, reason: str) -> None:
        asked = f"no kkdcpd answers on {path}" if path else "no kkdcpd can be asked"
        super().__init__(
            f"{asked}: {reason}; start it, or correct process.control, or send SIGHUP to its first process"
        )


def reload(control: Path | None) -> ReloadOutcome:
    """Ask the kkdcpd whose control socket this is for a reload.

    Raises:
        NobodyThereError: it can't be asked, or doesn't answer.
    """
    if control is None:
        raise NobodyThereError(None, "process.control is empty")
    try:
        return ask_for_reload(control, timeout=ANSWER_SECONDS)
    except OSError as error:
        raise NobodyThereError(control, error.strerror or str(error)) from error
