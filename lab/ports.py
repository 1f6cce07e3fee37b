"""Free ports on loopback, for programs that can't be told to take any and say which."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack

__all__ = ["free_port"]

_TRIES = 50


def free_port(addresses: Sequence[str]) -> int:
    """Return a high port that is free for TCP and UDP at each of `addresses`.

    Somebody else may take it before the caller's program does: a program that can't bind needs another one.
    """
    for _ in range(_TRIES):
        with ExitStack() as stack:
            port = 0
            try:
                for address in addresses:
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        family = socket.AF_INET6 if ":" in address else socket.AF_INET
                        probe = stack.enter_context(socket.socket(family, kind))
                        probe.bind((address, port))
                        port = probe.getsockname()[1]
            except OSError:
                if port == 0:  # not a clash: the very address can't be had
                    raise
                continue
            return port
    raise OSError(f"no port is free for TCP and UDP at all of {', '.join(addresses)}")
