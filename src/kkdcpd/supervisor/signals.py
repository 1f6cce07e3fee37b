"""Receives the signals of the parent process in its loop, where no other work is half done."""

import selectors
import signal
import socket
from collections.abc import Callable

__all__ = ["SignalReceiver"]

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class SignalReceiver:
    """Catches signals from now on. The selector calls `handle` with the numbers that have arrived."""

    def __init__(self, selector: selectors.BaseSelector, handle: Callable[[set[int]], None]) -> None:
        self._handle = handle
        self._receiving, self._sending = socket.socketpair()
        self._receiving.settimeout(0.0)
        self._sending.settimeout(0.0)
        # Python writes the number of each caught signal to this descriptor (signal.set_wakeup_fd).
        signal.set_wakeup_fd(self._sending.fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, lambda *_: None)
        selector.register(self._receiving, selectors.EVENT_READ, self._receive)

    def close(self) -> None:
        """Close the descriptors in this process."""
        self._receiving.close()
        self._sending.close()

    def _receive(self) -> None:
        self._handle(set(self._receiving.recv(4096)))
