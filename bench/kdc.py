"""Runs KDCs that answer at once with little CPU time: `python -m bench.kdc SECONDS COUNT PORT`.

The program prints its ports: a free port for each KDC, or PORT if it is not 0. Each KDC has a thread for UDP
and one for TCP with blocking calls, about 15 µs for a datagram. It answers datagrams SECONDS later.
"""

import contextlib
import socket
import sys
import threading
import time
from collections import deque

from bench.bodies import reply_to
from lab.ports import free_port

__all__ = ["main"]

PREFIX_BYTES = 4
BUFFER_BYTES = 65535
BACKLOG = 1024
SOCKET_BUFFER_BYTES = 8 * 1024 * 1024

Waiting = deque[tuple[float, bytes, tuple[str, int]]]


def _serve_udp(sock: socket.socket, seconds: float) -> None:
    while not seconds:
        payload, peer = sock.recvfrom(BUFFER_BYTES)
        sock.sendto(reply_to(payload), peer)
    waiting: Waiting = deque()
    while True:
        sock.settimeout(max(waiting[0][0] - time.monotonic(), 0.0001) if waiting else None)
        try:
            payload, peer = sock.recvfrom(BUFFER_BYTES)
            waiting.append((time.monotonic() + seconds, reply_to(payload), peer))
        except TimeoutError:
            pass
        while waiting and waiting[0][0] <= time.monotonic():
            _due, reply, peer = waiting.popleft()
            sock.sendto(reply, peer)


def _serve_tcp(listener: socket.socket) -> None:
    while True:
        connection, _peer = listener.accept()
        # Clients may close before the reply.
        with connection, contextlib.suppress(OSError):
            _answer(connection)


def _answer(connection: socket.socket) -> None:
    message = connection.recv(BUFFER_BYTES)
    if message:
        reply = reply_to(message[PREFIX_BYTES:])
        connection.sendall(len(reply).to_bytes(PREFIX_BYTES, "big") + reply)
        # The client closes first, as with a real KDC.
        connection.recv(1)


def _start(seconds: float, port: int) -> int:
    """Start one KDC and return its port, a free port if none is given."""
    port = port or free_port(["127.0.0.1"])
    tcp = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    udp.bind(tcp.getsockname())
    threading.Thread(target=_serve_tcp, args=(tcp,)).start()
    threading.Thread(target=_serve_udp, args=(udp, seconds)).start()
    return port


def main(seconds: float, count: int, port: int) -> None:
    """Serve until killed."""
    ports = [_start(seconds, port) for _ in range(count)]
    print("kdcs at ports", *ports, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
