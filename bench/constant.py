"""What the HTTP server that we use costs by itself: `python -m bench.constant PORT CERTIFICATE KEY OCTETS`.

It reads the request's body and answers with so many bytes, always the same.
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
