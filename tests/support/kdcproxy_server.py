"""Runs the real kdcproxy over TLS: `python -m tests.support.kdcproxy_server CERTIFICATE KEY`.

The environment variable KDCPROXY_CONFIG names its configuration. The first line of output is the port.
"""

import socketserver
import ssl
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from kdcproxy import application


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread, with HTTP/1.0 as wsgiref does."""

    daemon_threads = True


def main() -> None:
    """Serve until the end of the process."""
    certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = _Server(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(application)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write(f"ready {server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
