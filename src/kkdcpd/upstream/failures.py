"""What the operating system says of a socket, as the reason why an attempt failed."""

from kkdcpd.values import FailureReason

__all__ = ["failure_of"]


def failure_of(error: OSError) -> FailureReason:
    """Translate an OSError of connect, send or receive."""
    if isinstance(error, ConnectionRefusedError):
        return FailureReason.REFUSED
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return FailureReason.RESET
    return FailureReason.UNREACHABLE
