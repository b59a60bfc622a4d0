r"""String literals of C, and of Rust: what stands between quotes, neighbours joined, escapes meant.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

_TOKEN: Final = re.compile(
    r"""/\*.*?\*/ | //[^\n]* | "(?P<text>(?:[^"\\]|\\.)*)" | (?P<word>[A-Za-z_]\w*|\d+) | (?P<sign>[^\s])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(?:x(?P<hex>[0-9a-fA-F]+)|(?P<octal>[0-7]{1,3})|(?P<sign>.))", re.DOTALL)
_SIGNS: Final = MappingProxyType(
    {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\n": ""}
)

Token = bytes | str
"""A string literal as the bytes it stands for; everything else as it is written."""


def tokens(source: str) -> Iterator[Token]:
    r"""Tokens of C, without comments and lines of the preprocessor; neighbouring literals are one.

    >>> list(tokens('f("a\\r" "b", 4); /* no */'))
    ['f', '(', b'a\rb', ',', '4', ')', ';']
    """
    source = re.sub(r"(?m)^\s*#(?:[^\n]*\\\n)*[^\n]*$", "", source)
    held: bytes | None = None
    for found in _TOKEN.finditer(source):
        if found["text"] is not None:
            held = (held or b"") + unescape(found["text"])
            continue
        if found["word"] is None and found["sign"] is None:  # a comment
            continue
        if held is not None:
            yield held
            held = None
        yield found["word"] or found["sign"]
    if held is not None:
        yield held


def unescape(text: str) -> bytes:
    r"""The bytes of what stands between the quotes of a literal.

    >>> unescape("a\\tb\\01\\xff")
    b'a\tb\x01\xff'
    """
    found: list[bytes] = []
    at = 0
    for escape in _ESCAPE.finditer(text):
        # What stands between escapes is UTF-8; an escape is one byte, whatever that makes of its neighbours.
        found += [text[at : escape.start()].encode(), _meant(escape)]
        at = escape.end()
    return b"".join((*found, text[at:].encode()))


def _meant(escape: re.Match[str]) -> bytes:
    if escape["hex"]:
        return bytes([int(escape["hex"], 16) & 0xFF])
    if escape["octal"]:
        return bytes([int(escape["octal"], 8) & 0xFF])
    return _SIGNS.get(escape["sign"], escape["sign"]).encode()
