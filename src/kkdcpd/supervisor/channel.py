"""The channel between the parent process and one child process: messages over a pair of sockets.

Neither side ever blocks. If the receiver is too slow, messages are lost; later messages repeat what matters.
The one order that must not be lost, to end, is the end of the channel itself. Therefore a child process also
ends when its parent process has died.
"""

import socket
from collections.abc import Iterator
from typing import Self

from kkdcpd.process_messages import Message, decode, encode

__all__ = ["Channel"]

MAX_MESSAGE_BYTES = 65536
"""Messages contain names of DNS or Kerberos, which are far shorter."""


class Channel:
    """One end of the channel."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.settimeout(0.0)
        self.is_open = True

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Make both ends."""
        # Packets keep their order and their bounds, and the receiver notices the end (unix(7)).
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    def fileno(self) -> int:
        """Return the file descriptor, for a selector or an event loop."""
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """Send a message. Return whether the other side will receive it."""
        try:
            self._socket.send(encode(message))
        except OSError:
            return False
        return True

    def receive(self) -> Iterator[Message]:
        """Return the messages that have arrived. At the end of the channel `is_open` becomes false."""
        while self.is_open:
            try:
                data = self._socket.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                yield decode(data)
            else:
                self.is_open = False

    def end(self) -> None:
        """Order the other side to end. Its messages are still received."""
        if self.is_open:
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end in this process."""
        self.is_open = False
        self._socket.close()
