"""When sockets to KDCs can be read or written: one epoll of our own for all, which the event loop watches.

An event loop is made for what lives long. uvloop registers a socket in six system calls, tries it and removes
it again among them; each request has a socket of its own, for which one call does: closing it is the end.
"""

import asyncio
import select
import socket
from collections.abc import Callable

__all__ = ["READABLE", "WRITABLE", "Readiness"]

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT

MAX_EVENTS = 64
"""Taken at a time, so that others have their turn."""


class Readiness:
    """Calls back, once, when a socket is ready or has an error. Make it in a running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        # What is to be called, and after which round it was asked for.
        self._calls: dict[int, tuple[Callable[[], None], int]] = {}
        self._round = 0
        self._loop.add_reader(self._epoll.fileno(), self._dispatch)

    def call_once(self, sock: socket.socket, events: int, call: Callable[[], None]) -> None:
        """Have `call` called when one of `events` is true of the socket, instead of what was asked before."""
        descriptor = sock.fileno()
        if descriptor in self._calls:
            self._epoll.modify(descriptor, events | select.EPOLLONESHOT)
        else:
            self._epoll.register(descriptor, events | select.EPOLLONESHOT)
        self._calls[descriptor] = call, self._round

    def close_socket(self, sock: socket.socket) -> None:
        """Close it; nothing is called any more. With its last descriptor it leaves the epoll (epoll(7))."""
        self._calls.pop(sock.fileno(), None)
        sock.close()

    def _dispatch(self) -> None:
        self._round += 1
        for descriptor, _events in self._epoll.poll(0, MAX_EVENTS):
            asked = self._calls.get(descriptor)
            # What was called in this round may have closed this one, and opened another by its number.
            if asked and asked[1] < self._round:
                try:
                    asked[0]()
                except Exception as error:  # noqa: BLE001 - as the event loop does: the others come next
                    message = "bug in what was called when a socket was ready"
                    self._loop.call_exception_handler({"message": message, "exception": error})
