"""Reads a configuration file into a TOML document, and names the line of a fault."""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kkdcpd.config.disk import is_temporary, read_bytes, remedy_of
from kkdcpd.config.problems import refusal
from kkdcpd.errors import ConfigError

__all__ = ["parse_document", "read_text", "refuse_deep_nesting"]

_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_QUOTES_REMEDY = 'write texts in double quotes, as in level = "info"'
_SYNTAX_REMEDIES = {
    "Invalid value": _QUOTES_REMEDY,
    # `level = info` begins with TOML's infinity.
    "Expected newline or end of document after a statement": _QUOTES_REMEDY,
    "Cannot overwrite a value": "write each key only once",
    "Cannot mutate immutable namespace": "write it either as one value or as [[sections]], not as both",
    "Cannot declare": "write each [section] only once: put its settings below the header that is there",
}
_ANY_SYNTAX_REMEDY = (
    'write key = value, with texts in double quotes; sections look like [http] or [realms."NAME"]'
)


def read_text(path: Path) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    try:
        contents = read_bytes(path)
    except FileNotFoundError as error:
        remedy = "copy config.toml.example there and fill it in, or name another file with --config"
        # Not temporary: the host is not configured, and a restart does not change that.
        raise refusal(str(path), "there is no such file", remedy) from error
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
        raise refusal(str(path), reason, remedy_of(error, path), is_temporary=is_temporary(error)) from error
    try:
        return contents.decode("utf-8-sig")  # editors of Windows write a byte order mark before UTF-8
    except UnicodeDecodeError as error:
        line = contents.count(b"\n", 0, error.start) + 1
        raise refusal(f"{path}, line {line}", "is not UTF-8", "save the file in UTF-8") from error


def parse_document(text: str, source: Path) -> dict[str, Any]:
    """Return the document of a TOML text.

    Raises:
        ConfigError: the text is not TOML.
    """
    try:
        with refuse_deep_nesting(source):
            return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, source) from error
    except ValueError as error:
        # The only other error of tomllib: Python reads no number of more than 4300 digits.
        problem = "has a number of thousands of digits"
        remedy = "no setting takes such a number: compare with config.toml.example"
        raise refusal(str(source), problem, remedy) from error


@contextmanager
def refuse_deep_nesting(source: Path) -> Iterator[None]:
    """Turn a RecursionError into a ConfigError."""
    try:
        yield
    except RecursionError as error:
        remedy = "close the brackets, and write no more dots than config.toml.example has"
        raise refusal(str(source), "nests lists or tables too deeply", remedy) from error


def _syntax_error(message: str, text: str, source: Path) -> ConfigError:
    position = _POSITION.search(message)
    line = position["line"] if position else None
    remedies = (remedy for start, remedy in _SYNTAX_REMEDIES.items() if message.startswith(start))
    return refusal(
        f"{source}, line {line or len(text.splitlines())}",
        f"is not TOML: {_POSITION.sub('', message)}",
        next(remedies, _ANY_SYNTAX_REMEDY),
    )
