"""Hypothesis strategies for valid messages of every kind and for damaged messages."""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from kkdcpd.values import MessageKind
from tests.support import der_tree, messages
from tests.support.captured import CAPTURED, captured
from tests.support.der_tree import Node

__all__ = ["address_spellings", "broken", "damaged", "proxy_messages", "replies", "requests"]

NULL = b"\x05\x00"


def _text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


texts = st.one_of(
    st.sampled_from(["EXAMPLE.COM", "example.com", "BÜCHER.EXAMPLE", "a/b@c\\", ""]),
    st.text(max_size=20).map(lambda text: _text_of(text.encode("utf-8", "replace"))),
    st.binary(max_size=8).map(_text_of),
    st.integers(100, 300).map(lambda length: "x" * length),
)
realms = texts.filter(bool)
int32s = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([-(2**31), -129, -128, -1, 0, 127, 128, 255, 256, 2**31 - 1]),
)
uint32s = int32s | st.integers(2**31, 2**32 - 1) | st.sampled_from([2**31, 2**32 - 1])
"""UInt32s, and Int32s, which some implementations write instead."""

data = st.one_of(st.binary(max_size=16), st.integers(100, 300).map(bytes))
names = st.tuples(int32s, st.lists(texts, max_size=3))
times = st.builds("{:04}0131235959Z".format, st.integers(0, 9999))
flags = st.binary(max_size=5)
padata = st.lists(st.tuples(int32s.filter(lambda number: number != 1), data), max_size=4)
bodies = st.fixed_dictionaries(
    {"realm": realms},
    optional={
        "cname": st.none() | names,
        "sname": st.none() | names,
        "options": flags,
        "start": times,
        "till": times,
        "renew": times,
        "nonce": uint32s,
        "etypes": st.lists(int32s, max_size=10),
        "addresses": st.lists(st.tuples(int32s, data), min_size=1, max_size=3),
        "authorization": data,
        "tickets": st.lists(names, min_size=1, max_size=2),
    },
)

as_reqs = st.builds(lambda padata, body: messages.as_req(padata=padata, **body), padata, bodies)
tgs_reqs = st.builds(
    lambda padata, body, sname: messages.tgs_req(padata=padata, ticket=messages.ap_req(sname=sname), **body),
    padata,
    bodies,
    names,
)
kpasswd_reqs = st.builds(
    messages.kpasswd_req, version=st.sampled_from([1, 0xFF80]), realm=realms, sname=names
)
requests = st.one_of(as_reqs, tgs_reqs, kpasswd_reqs)
"""Payloads of requests that kkdcpd forwards."""

errors = {
    "code": st.integers(-(2**31), 2**31 - 1),
    "realm": realms,
    "crealm": st.none() | realms,
    "cname": st.none() | names,
    "sname": names,
    "text": st.none() | texts,
    "data": st.none() | data,
}
krb_errors = st.builds(messages.krb_error, **errors)
tickets = {
    "realm": realms,
    "cname": names,
    "sname": names,
    "srealm": realms,
    "padata": st.lists(st.tuples(int32s, data), max_size=3),
}
replies = st.one_of(
    st.tuples(st.just(MessageKind.AS_REQ), st.one_of(st.builds(messages.as_rep, **tickets), krb_errors)),
    st.tuples(st.just(MessageKind.TGS_REQ), st.one_of(st.builds(messages.tgs_rep, **tickets), krb_errors)),
    st.tuples(
        st.just(MessageKind.KPASSWD_REQ),
        st.one_of(
            st.builds(messages.kpasswd_rep, version=st.sampled_from([1, 0xFF80])),
            st.builds(messages.kpasswd_error, **errors, version=st.sampled_from([1, 0xFF80])),
            krb_errors,
        ),
    ),
)
"""Pairs of a request's kind and the payload of a reply."""

proxy_messages = st.builds(
    messages.envelope,
    requests,
    st.none() | texts,
    hint=st.none() | uint32s,
    has_prefix=st.booleans(),
    realm_type=st.sampled_from(["general", "utf8", "ia5"]),
)
"""HTTP bodies of clients."""


_RETAG = st.sampled_from([0x02, 0x04, 0x1B, 0x30, 0x61, 0xA0, 0xA1, 0xA2])

_BREAKS: Sequence[Callable[[Node, bytes, int], bytes]] = (
    lambda _, __, ___: b"",
    lambda _, whole, __: whole + whole,
    lambda _, whole, __: whole + NULL,
    lambda node, _, __: der_tree.element(node.tag, der_tree.contents_of(node) + NULL),
    lambda node, _, ___: der_tree.element(node.tag, der_tree.contents_of(node)[:-1]),
    lambda node, _, ___: der_tree.element(node.tag, b"\x00" + der_tree.contents_of(node)),
    lambda node, _, ___: der_tree.element(node.tag, b""),
    lambda node, _, number: der_tree.element(number & 0xFF, der_tree.contents_of(node)),
    lambda node, _, number: der_tree.element(node.tag, number.to_bytes(4, "big")),
    lambda _, whole, number: whole[:1] + bytes([number & 0xFF]) + whole[2:],
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Draw a body with one or two broken elements; the lengths of all other elements are right."""
    source = st.one_of(
        st.sampled_from(CAPTURED).map(captured),
        requests.map(messages.envelope),
    )
    body = draw(source)
    for _ in range(draw(st.integers(1, 2))):
        try:
            tree = der_tree.parse(body)
        except (AssertionError, ValueError, IndexError):
            break
        node = draw(st.sampled_from(list(tree.walk())))
        break_it = draw(st.sampled_from(_BREAKS))
        number = draw(_RETAG | st.integers(0, 2**32 - 1))
        body = der_tree.break_at(tree, node, break_it(node, der_tree.break_at(node), number))
    return body


@st.composite
def damaged(draw: st.DrawFn, sources: st.SearchStrategy[bytes]) -> bytes:
    """Draw data from `sources` and change, insert, delete or cut off some bytes."""
    message = bytearray(draw(sources))
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, max(0, len(message) - 1)))
        byte = draw(st.integers(0, 255))
        match draw(st.sampled_from(["flip", "nudge", "insert", "delete", "cut"])):
            case "flip":
                message[position : position + 1] = bytes([byte])
            case "nudge" if message:
                message[position] = (message[position] + (1 if byte & 1 else -1)) & 0xFF
            case "insert":
                message.insert(position, byte)
            case "delete":
                del message[position : position + 1]
            case "cut":
                del message[position:]
    return bytes(message)


@st.composite
def address_spellings(
    draw: st.DrawFn, address: IPv4Address | IPv6Address, *, has_zone: bool | None = None
) -> str:
    """Draw a text form of the address (RFC 4291 2.2, RFC 4007 11); IPv4 may be mapped into IPv6."""
    if isinstance(address, IPv4Address):
        if has_zone is not True and draw(st.booleans()):
            return str(address)
        address = IPv6Address((0xFFFF << 32) | int(address))
    packed = address.packed
    groups = [packed[at : at + 2].hex() for at in range(0, 16, 2)]
    written = [_group(group, draw) for group in groups]
    if draw(st.booleans()):
        written[6:] = [str(IPv4Address(packed[12:]))]
    text = _compressed(written, draw)
    if has_zone or (has_zone is None and draw(st.booleans())):
        text += "%" + draw(st.sampled_from(["eth0", "1", "en-5.7"]))
    return text


def _group(group: str, draw: st.DrawFn) -> str:
    shortest = group.lstrip("0") or "0"
    text = group[-draw(st.integers(len(shortest), 4)) :]
    return text.upper() if draw(st.booleans()) else text


def _compressed(groups: list[str], draw: st.DrawFn) -> str:
    """Write a run of zeros as `::`, or no run."""
    is_zero = [not group.strip("0") for group in groups]
    runs = [
        (first, last)
        for first in range(len(groups))
        for last in range(first + 1, len(groups) + 1)
        if all(is_zero[first:last])
    ]
    if not runs or draw(st.booleans()):
        return ":".join(groups)
    first, last = draw(st.sampled_from(runs))
    return f"{':'.join(groups[:first])}::{':'.join(groups[last:])}"
