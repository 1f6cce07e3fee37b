"""Parses valid messages into trees, to replace one element and keep the lengths around it right.

The tree contains nested messages as well: the kerb-message with its length or RFC 3244's header, and the
AP-REQ in PA-TGS-REQ. This module uses no code of the reader under test.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Node", "break_at", "parse"]

OCTET_STRING = 0x04
AP_REQ = 0x6E
CONSTRUCTED = 0x20


@dataclass(eq=False)
class Node:
    """An element with its children, which follow the length of a nested message, or with opaque contents."""

    tag: int
    contents: bytes
    path: str
    children: list["Node"] = field(default_factory=list)
    is_prefixed: bool = False
    is_kpasswd: bool = False

    def walk(self) -> Iterator["Node"]:
        """Yield this node and all nodes below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def is_constructed(self) -> bool:
        """Whether the tag is constructed. A primitive OCTET STRING may contain elements too."""
        return bool(self.tag & CONSTRUCTED)


def parse(data: bytes) -> Node:
    """Parse a valid KDC-PROXY-MESSAGE; its kerb-message begins with its length."""
    (root,) = _elements(data, "")
    assert break_at(root) == data
    return root


def break_at(node: Node, target: Node | None = None, replacement: bytes = b"") -> bytes:
    """Encode the tree with `replacement` for the whole element `target`."""
    if node is target:
        return replacement
    return element(node.tag, contents_of(node, target, replacement))


def contents_of(node: Node, target: Node | None = None, replacement: bytes = b"") -> bytes:
    """Encode the contents of the element."""
    if not node.children:
        return node.contents
    parts = [break_at(child, target, replacement) for child in node.children]
    data = b"".join(parts)
    if node.is_kpasswd:
        version = node.contents[6:8]
        data = (len(data) + 6).to_bytes(2, "big") + version + len(parts[0]).to_bytes(2, "big") + data
    return len(data).to_bytes(4, "big") + data if node.is_prefixed else data


def element(tag: int, contents: bytes) -> bytes:
    """Return an element in DER."""
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    data = length.to_bytes(2 if length > 0xFF else 1, "big")
    return bytes((tag, 0x80 | len(data))) + data + contents


def _elements(data: bytes, path: str) -> list[Node]:
    nodes: list[Node] = []
    while data:
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
        node = Node(tag, data[start : start + length], f"{path}/{tag:02x}.{len(nodes)}")
        _add_children(node)
        nodes.append(node)
        data = data[start + length :]
    return nodes


def _add_children(node: Node) -> None:
    data = node.contents
    if node.is_constructed:
        node.children = _elements(data, node.path)
    if node.tag != OCTET_STRING:
        return
    if len(data) > 10 and data[:4] == (len(data) - 4).to_bytes(4, "big"):
        node.is_prefixed = True
        node.is_kpasswd = data[4:6] == data[2:4]
        node.children = _elements(data[10 if node.is_kpasswd else 4 :], node.path)
    elif len(data) > 6 and data[0] == AP_REQ:
        node.children = _elements(data, node.path)
