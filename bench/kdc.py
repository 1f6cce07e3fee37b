"""A KDC that answers at once and takes little time for it, over UDP and TCP: `python -m bench.kdc [SECONDS]`.

It says on which port. One thread for each transport and plain blocking calls: some 15 µs for a datagram. With
SECONDS, datagrams are answered so much later.
"""

import socket
import sys
import threading
import time
from collections import deque

from bench.bodies import reply_to

__all__ = ["main"]

PREFIX_OCTETS = 4
BUFFER_BYTES = 65535
BACKLOG = 1024
SOCKET_BUFFER_BYTES = 8 * 1024 * 1024

Waiting = deque[tuple[float, bytes, tuple[str, int]]]


def _serve_udp(sock: socket.socket) -> None:
    while True:
        payload, peer = sock.recvfrom(BUFFER_BYTES)
        sock.sendto(reply_to(payload), peer)


def _serve_udp_late(sock: socket.socket, seconds: float) -> None:
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
        with connection:
            message = connection.recv(BUFFER_BYTES)
            if not message:
                continue
            reply = reply_to(message[PREFIX_OCTETS:])
            connection.sendall(len(reply).to_bytes(PREFIX_OCTETS, "big") + reply)
            # Who has asked closes first, as with a KDC.
            connection.recv(1)


def main(seconds: float = 0.0) -> None:
    """Serve until killed."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(BACKLOG)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        udp.bind(tcp.getsockname())
        print(f"kdc at port {tcp.getsockname()[1]}", flush=True)
        threading.Thread(target=_serve_tcp, args=(tcp,), daemon=True).start()
        if seconds:
            _serve_udp_late(udp, seconds)
        else:
            _serve_udp(udp)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
