"""Finds free ports on loopback, for programs that cannot choose and report a free port themselves."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack

__all__ = ["free_port"]

_TRIES = 50


def free_port(addresses: Sequence[str]) -> int:
    """Return a high port that is free for TCP and UDP at each of `addresses`.

    Another program may take the port before the caller's program does. The caller then has to find another
    port.
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
                if port == 0:  # not a clash: the address is not available
                    raise
                continue
            return port
    raise OSError(f"no port is free for TCP and UDP at all of {', '.join(addresses)}")
