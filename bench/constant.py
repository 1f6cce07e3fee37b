"""Serves a constant with kkdcpd's HTTP server: `python -m bench.constant PORT CERTIFICATE KEY BYTES`.

It reads the body of each request and answers with the same number of bytes.
"""

import sys

from bench.bare import serve


def main(port: str, certificate: str, key: str, size: str) -> None:
    """Serve until killed."""
    body = bytes(int(size))

    async def answer(_request: bytes) -> bytes:
        return body

    serve(answer, int(port), certificate, key)


if __name__ == "__main__":
    main(*sys.argv[1:])
