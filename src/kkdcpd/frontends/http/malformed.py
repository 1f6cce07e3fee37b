"""Names the rule of HTTP that a malformed request breaks, without a word of the request.

aiohttp's errors quote the request: perhaps a message, a proof of a password, or a token. So an error is
recognised by its class and by the fixed sentence at its beginning. Every other error has a general name.
"""

__all__ = ["name_rule", "name_start"]

_BY_REASON = {
    # The reasons of llhttp. A quotation follows each of them.
    "Invalid method encountered": "request line: unknown method",
    "Invalid method for HTTP/x.x request": "request line: method of another protocol",
    "Invalid method for RTSP/x.x request": "request line: method of another protocol",
    "Expected SOURCE method for ICE/x.x request": "request line: method of another protocol",
    "Expected space after method": "request line: no space after the method",
    "Expected HTTP/, RTSP/ or ICE/": "request line: no HTTP version",
    "Invalid HTTP version": "request line: unknown HTTP version",
    "Invalid major version": "request line: unknown HTTP version",
    "Invalid minor version": "request line: unknown HTTP version",
    "Expected dot": "request line: unknown HTTP version",
    "Expected CRLF after version": "request line: no CRLF after the version",
    "Expected HTTP/2 Connection Preface": "request line: HTTP/2 without negotiation",
    "Pause on PRI/Upgrade": "request line: HTTP/2 without negotiation",
    "Expected LF after CR": "a line ends without LF",
    "Unexpected space after start line": "request line: space before the first header",
    "Unexpected start char in url": "target: neither a path nor a URL",
    "Unexpected char in url schema": "target: bad scheme",
    "Unexpected char in url server": "target: bad host or port",
    "Double @ in url": "target: bad host or port",
    "Invalid characters in url": "target: bad character",
    "Invalid char in url path": "target: bad character in the path",
    "Invalid char in url query": "target: bad character in the query",
    "Invalid char in url fragment start": "target: bad character in the fragment",
    "Invalid header token": "header: bad character in a name",
    "Invalid header field char": "header: bad character in a name",
    "Invalid header value char": "header: bad character in a value",
    "Missing expected CR after header value": "header: a line ends without CR",
    "Missing expected LF after header value": "header: a line ends without LF",
    "Unexpected whitespace after header value": "header: a folded line",
    "Expected LF after headers": "header: the last line ends without LF",
    "Invalid character in Content-Length": "Content-Length: not a number",
    "Empty Content-Length": "Content-Length: empty",
    "Content-Length overflow": "Content-Length: too large a number",
    "Duplicate Content-Length": "Content-Length: more than one",
    "Content-Length can't be present with Transfer-Encoding": "Content-Length beside Transfer-Encoding",
    "Transfer-Encoding can't be present with Content-Length": "Content-Length beside Transfer-Encoding",
    "Invalid `Transfer-Encoding` header value": "Transfer-Encoding: not chunked",
    "Request has invalid `Transfer-Encoding`": "Transfer-Encoding: not chunked",
    "Invalid character in chunk size": "chunk size: not a hexadecimal number",
    "Chunk size overflow": "chunk size: too large a number",
    "Missing expected CR after chunk size": "chunk size: the line ends without CR",
    "Expected LF after chunk size": "chunk size: the line ends without LF",
    "Missing expected CR after chunk data": "chunk data: longer than the chunk size",
    "Expected LF after chunk data": "chunk data: longer than the chunk size",
    "Invalid character in chunk extensions": "chunk extension: bad character",
    "Invalid character in chunk extensions name": "chunk extension: bad character in a name",
    "Invalid character in chunk extensions value": "chunk extension: bad character in a value",
    "Invalid character in chunk extensions quote value": "chunk extension: bad character in a quoted value",
    "Invalid character in chunk extensions quoted value": "chunk extension: bad character in a quoted value",
    "Invalid quoted-pair in chunk extensions quoted value": "chunk extension: bad quoted pair",
    "Missing expected CR after chunk extension name": "chunk extension: the line ends without CR",
    "Missing expected CR after chunk extension value": "chunk extension: the line ends without CR",
    "Data after `Connection: close`": "data after the last request of the connection",
    # The reasons of aiohttp.
    "Received HTTPS traffic on an HTTP port": "TLS instead of HTTP",
    "Missing 'Host' header in request.": "Host: missing in HTTP/1.1",
    "Too many headers received": "header: too many lines",
}
_DUPLICATE = "Duplicate '"
_SINGLE = {
    name.lower(): name
    for name in (
        "Content-Length",
        "Content-Location",
        "Content-Range",
        "Content-Type",
        "ETag",
        "Host",
        "Max-Forwards",
        "Server",
        "Transfer-Encoding",
        "User-Agent",
    )
}
"""Headers that a request has at most once, as aiohttp's errors name them."""

_BY_CLASS = {
    "LineTooLong": "request line or header: a line is too long",
    "InvalidURLError": "target: bad host or port",
    "BadHttpMethod": "request line: unknown method",
    "BadStatusLine": "request line: malformed",
    "InvalidHeader": "header: bad character in a value",
    "ContentLengthError": "Content-Length: more than there is",
    "TransferEncodingError": "Transfer-Encoding: malformed",
}


def name_rule(error: BaseException | None) -> str:
    """Return the rule that an error of the parser is about."""
    text = getattr(error, "message", "")
    reason = text.removeprefix("Bad status line:\n  ").partition(":\n\n")[0]
    known = _BY_REASON.get(reason)
    if known:
        return known
    if reason.startswith(_DUPLICATE):
        name = _SINGLE.get(reason.removeprefix(_DUPLICATE).partition("'")[0].lower(), "header")
        return f"{name}: more than one"
    return _BY_CLASS.get(type(error).__name__, "malformed")


def name_start(data: bytes) -> str | None:
    """Return the protocol that the first bytes of a connection look like, None if they may be HTTP."""
    if data.startswith(b"\x16\x03"):
        return "TLS instead of HTTP"
    if data.startswith(b"SSH-"):
        return "SSH instead of HTTP"
    if data[:1] in _KERBEROS:
        return "a Kerberos message without HTTP"
    if data[4:5] in _KERBEROS and not data.startswith(b"\x00\x00\x00\x00") and data[0] == 0:
        return "a Kerberos message of TCP without HTTP"
    return "a KDC-PROXY-MESSAGE without HTTP" if data[:2] in {b"\x30\x81", b"\x30\x82"} else None


_KERBEROS = (b"\x6a", b"\x6c")
"""The tags of AS-REQ and TGS-REQ. In ASCII they are j and l, and no method begins with these letters."""
