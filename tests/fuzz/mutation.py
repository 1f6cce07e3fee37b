"""Changes to octets that keep what is around them right, so that a mutation gets past the first length.

Any tags of one octet and any definite lengths are followed, through the frames of kerb-messages and kpasswd
messages too. No code of the readers under test is trusted.
"""

from collections.abc import Callable
from random import Random

__all__ = ["change_element", "change_octets", "repeat_slice"]

Change = Callable[[bytes], bytes]

_CONSTRUCTED = 0x20
_STRINGS = (0x03, 0x04)  # what may hold a message in turn
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


def change_element(octets: bytes, random: Random, change: Change) -> bytes:
    """Change one element somewhere in `octets`; `change` is what is done to contents that hold no others."""
    return _change_within(octets, random, change, 0)


def change_octets(octets: bytes, random: Random) -> bytes:
    """Change one or some octets anywhere."""
    message = bytearray(octets)
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
                    (octet ^ 1 << random.randrange(8)) for octet in message[position : position + 1]
                )
            case 4:
                del message[position:]
    return bytes(message)


def repeat_slice(octets: bytes, random: Random, at_most: int) -> bytes:
    """Repeat a slice of `octets` as often as it may be."""
    start = random.randrange(len(octets) + 1)
    part = octets[start : start + random.choice((1, 2, 3, 4, 8, 16, 64, 256))]
    room = max(0, at_most - len(octets))
    times = room // len(part) if part else 0
    return octets[:start] + part * random.randrange(times + 1) + octets[start:] if times else octets


def _change_within(octets: bytes, random: Random, change: Change, depth: int) -> bytes:
    header = _frame_of(octets)
    parts = _split(octets[len(header) :]) if depth < _DEEPEST else None
    if not parts:
        return change(octets)
    index = random.randrange(len(parts))
    tag, contents = parts[index]
    if random.randrange(4) and _may_hold_others(tag):
        parts[index] = tag, _change_within(contents, random, change, depth + 1)
    else:
        _change_part(parts, index, random, change)
    return _framed(header, b"".join(_element(*part) for part in parts), octets)


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


def _split(octets: bytes) -> list[_Part] | None:
    """Return the elements that `octets` consists of, None if it doesn't."""
    parts: list[_Part] = []
    position = 0
    while position < len(octets):
        start = position + 2
        if start > len(octets):
            return None
        length = octets[position + 1]
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(octets[position + 2 : start], "big")
        if start + length > len(octets):
            return None
        parts.append((octets[position], octets[start : start + length]))
        position = start + length
    return parts


def _frame_of(octets: bytes) -> bytes:
    """Return what stands before a message: its length in 4 octets, kpasswd's header, both or nothing."""
    start = 4 if len(octets) > 4 and octets[:4] == (len(octets) - 4).to_bytes(4, "big") else 0
    length = len(octets) - start
    if length > 6 and octets[start : start + 2] == (length & 0xFFFF).to_bytes(2, "big"):
        return octets[: start + 6]
    return octets[:start]


def _framed(header: bytes, message: bytes, before: bytes) -> bytes:
    if not header:
        return message
    prefix, kpasswd = (header[:4], header[4:]) if len(header) in {4, 10} else (b"", header)
    if kpasswd:
        # The AP-REQ may have got another length: it is the first element.
        was = int.from_bytes(kpasswd[4:6], "big")
        first = was and _first_length(message, was + len(message) - len(before) + len(header))
        octets = ((len(message) + 6) & 0xFFFF, int.from_bytes(kpasswd[2:4], "big"), first & 0xFFFF)
        message = b"".join(number.to_bytes(2, "big") for number in octets) + message
    return (len(message).to_bytes(4, "big") if prefix else b"") + message


def _first_length(message: bytes, otherwise: int) -> int:
    parts = _split(message)
    return len(_element(*parts[0])) if parts else max(0, otherwise)


def _element(tag: int, contents: bytes) -> bytes:
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + contents
