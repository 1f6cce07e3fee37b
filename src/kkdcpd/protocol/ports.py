"""Port numbers as text: whoever writes a DNS record may make them as long as he likes."""

import re

__all__ = ["MAX_PORT", "parse_port"]

MAX_PORT = 65535

# Python takes digits of all scripts for digits, and refuses to read a number of more than 4300.
_DIGITS = re.compile(r"[0-9]{1,5}")


def parse_port(text: str) -> int | None:
    """Return the number, from 0 to 65535; None if it is none."""
    if not _DIGITS.fullmatch(text) or int(text) > MAX_PORT:
        return None
    return int(text)
