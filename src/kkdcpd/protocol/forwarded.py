"""Finds the client behind reverse proxies in X-Forwarded-For or Forwarded (RFC 7239). Pure.

Each proxy adds an entry at the end: the address of its peer. So the entries are read from the right, and only
as long as they come from trusted proxies. A client may have written the entries before them.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from kkdcpd.protocol.ip_addresses import Address, Network, parse_address

__all__ = ["client_address"]

_MAX_ENTRIES = 32  # chains of proxies have two or three

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110 5.6.2
_QUOTED = r'"(?:[^"\\]|\\.)*"'  # RFC 9110 5.6.4
_PAIR = rf"({_TOKEN})=({_TOKEN}|{_QUOTED})"
_NAME_AND_VALUE = re.compile(_PAIR)
_ELEMENT = re.compile(rf"[ \t]*{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*[ \t]*")
_ESCAPED = re.compile(r"\\(.)")
# RFC 7239 6; the ports of X-Forwarded-For are Azure's.
_IPV4_OR_BRACKETS = re.compile(r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")


def client_address(
    values: Sequence[str],
    peer: str,
    trusted: Sequence[Network],
    *,
    header: Literal["x-forwarded-for", "forwarded"],
) -> str:
    """Return the address of the client behind `peer`: the last one in the header that is no trusted proxy.

    If the entry of a trusted proxy has no address (it is malformed, missing, `unknown` or a `_secret`), the
    proxy itself is the client. A peer that is no IP address is a UNIX socket, and trusted by its file mode.
    """
    address = _parse(peer)
    if address and not _is_within(address, trusted):
        return peer
    client = peer
    for address in _addresses(values, header):
        if address is None:
            break
        client = str(address)
        if not _is_within(address, trusted):
            break
    return client


def _parse(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _addresses(
    values: Sequence[str], header: Literal["x-forwarded-for", "forwarded"]
) -> Iterator[Address | None]:
    """Return the address in each entry, the last entry first; None for an entry without an address."""
    read = _read_forwarded if header == "forwarded" else _read_x_forwarded_for
    for line in reversed(values):
        for node in read(line):
            yield _node_address(node)


def _read_x_forwarded_for(line: str) -> Iterator[str]:
    return reversed(line.rsplit(",", _MAX_ENTRIES)[-_MAX_ENTRIES:])


def _read_forwarded(line: str) -> Iterator[str]:
    """Return the node of each element. Quotes may hold a comma, so an element is complete when it parses."""
    element = ""
    for part in reversed(line.rsplit(",", _MAX_ENTRIES)[-_MAX_ENTRIES:]):
        element = f"{part},{element}" if element else part
        if _ELEMENT.fullmatch(element):
            yield _node(element)
            element = ""
    if element:
        yield ""


def _node(element: str) -> str:
    nodes = [value for name, value in _NAME_AND_VALUE.findall(element) if name.lower() == "for"]
    if len(nodes) != 1:
        return ""
    (node,) = nodes
    return _ESCAPED.sub(r"\1", node[1:-1]) if node.startswith('"') else node


def _node_address(node: str) -> Address | None:
    bare = node.strip(" \t")
    if "%" in bare:
        return None  # a zone means nothing on another host
    found = _IPV4_OR_BRACKETS.fullmatch(bare)
    return _parse(found[1] or found[2]) if found else _parse(bare)
