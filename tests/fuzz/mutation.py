"""Mutations that keep the lengths around a change correct, so that a parser reads past the first length.

The mutations understand tags of one byte, definite lengths, and the frames of kerb-messages and kpasswd
messages. They use no code of the parsers under test.
"""

from collections.abc import Callable
from random import Random

__all__ = ["change_bytes", "change_element", "repeat_slice"]

Change = Callable[[bytes], bytes]

_CONSTRUCTED = 0x20
_STRINGS = (0x03, 0x04)  # strings that may contain a message
_DEEPEST = 16
_TAGS = bytes.fromhex("0203040a0c161718 1b3031606162636465666a6b6c6d6e6f757e a0a1a2a3a4a5a6a7a8a9aaabac")
_CONTENTS = (
    b"",
    b"\x00",
    b"\x7f",
    b"\xff",
    b"\x00\xff",
    b"\x80\x00",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\xff\xff\xff\xff",
    b"krbtgt",
    b"EXAMPLE.COM",
    b"\x00\x40\x00\x00\x00",
    b"20370919071450Z",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\x0d\x0a",
)

_Part = tuple[int, bytes]


def change_element(data: bytes, random: Random, change: Change) -> bytes:
    """Change one element somewhere in `data`; `change` is applied to contents without elements."""
    return _change_within(data, random, change, 0)


def change_bytes(data: bytes, random: Random) -> bytes:
    """Change one or several bytes anywhere."""
    message = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        position = random.randrange(len(message) + 1)
        match random.randrange(5):
            case 0:
                message[position : position + 1] = random.randbytes(1)
            case 1:
                message[position:position] = random.choice(_CONTENTS)
            case 2:
                del message[position : position + random.randrange(1, 9)]
            case 3:
                message[position : position + 1] = bytes(
                    (byte ^ 1 << random.randrange(8)) for byte in message[position : position + 1]
                )
            case 4:
                del message[position:]
    return bytes(message)


def repeat_slice(data: bytes, random: Random, at_most: int) -> bytes:
    """Repeat a slice of `data` as often as the length allows."""
    start = random.randrange(len(data) + 1)
    part = data[start : start + random.choice((1, 2, 3, 4, 8, 16, 64, 256))]
    room = max(0, at_most - len(data))
    times = room // len(part) if part else 0
    return data[:start] + part * random.randrange(times + 1) + data[start:] if times else data


def _change_within(data: bytes, random: Random, change: Change, depth: int) -> bytes:
    header = _frame_of(data)
    parts = _split(data[len(header) :]) if depth < _DEEPEST else None
    if not parts:
        return change(data)
    index = random.randrange(len(parts))
    tag, contents = parts[index]
    if random.randrange(4) and _may_hold_others(tag):
        parts[index] = tag, _change_within(contents, random, change, depth + 1)
    else:
        _change_part(parts, index, random, change)
    return _framed(header, b"".join(_element(*part) for part in parts), data)


def _change_part(parts: list[_Part], index: int, random: Random, change: Change) -> None:
    tag, contents = parts[index]
    match random.randrange(8):
        case 0:
            del parts[index]
        case 1:
            parts[index:index] = [parts[index]] * random.choice((1, 1, 2, 7, 255, 256, 257))
        case 2:
            other = random.randrange(len(parts))
            parts[index], parts[other] = parts[other], parts[index]
        case 3:
            parts[index] = random.choice(_TAGS), contents
        case 4:
            parts[index] = tag, random.choice(_CONTENTS)
        case 5:
            parts.insert(index, (random.choice(_TAGS), random.choice(_CONTENTS)))
        case _:
            parts[index] = tag, change(contents)


def _may_hold_others(tag: int) -> bool:
    return bool(tag & _CONSTRUCTED) or tag in _STRINGS


def _split(data: bytes) -> list[_Part] | None:
    """Return the elements of `data`, or None if it does not consist of elements."""
    parts: list[_Part] = []
    position = 0
    while position < len(data):
        start = position + 2
        if start > len(data):
            return None
        length = data[position + 1]
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[position + 2 : start], "big")
        if start + length > len(data):
            return None
        parts.append((data[position], data[start : start + length]))
        position = start + length
    return parts


def _frame_of(data: bytes) -> bytes:
    """Return the frame before a message: its length in 4 bytes, kpasswd's header, both or neither."""
    start = 4 if len(data) > 4 and data[:4] == (len(data) - 4).to_bytes(4, "big") else 0
    length = len(data) - start
    if length > 6 and data[start : start + 2] == (length & 0xFFFF).to_bytes(2, "big"):
        return data[: start + 6]
    return data[:start]


def _framed(header: bytes, message: bytes, before: bytes) -> bytes:
    if not header:
        return message
    prefix, kpasswd = (header[:4], header[4:]) if len(header) in {4, 10} else (b"", header)
    if kpasswd:
        # The first element is the AP-REQ; its length may have changed.
        was = int.from_bytes(kpasswd[4:6], "big")
        first = was and _first_length(message, was + len(message) - len(before) + len(header))
        data = ((len(message) + 6) & 0xFFFF, int.from_bytes(kpasswd[2:4], "big"), first & 0xFFFF)
        message = b"".join(number.to_bytes(2, "big") for number in data) + message
    return (len(message).to_bytes(4, "big") if prefix else b"") + message


def _first_length(message: bytes, otherwise: int) -> int:
    parts = _split(message)
    return len(_element(*parts[0])) if parts else max(0, otherwise)


def _element(tag: int, contents: bytes) -> bytes:
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    data = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(data))) + data + contents
