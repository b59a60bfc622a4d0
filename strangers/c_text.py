r"""String literals of C, Go-free: what stands between quotes, neighbours joined, escapes meant.

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
        word = found["word"] or found["sign"]
        if word is None:
            continue
        if held is not None:
            yield held
            held = None
        yield word
    if held is not None:
        yield held


def unescape(text: str) -> bytes:
    r"""The bytes of what stands between the quotes of a literal.

    >>> unescape("a\\tb\\01\\xff")
    b'a\tb\x01\xff'
    """

    def meant(found: re.Match[str]) -> str:
        if found["hex"]:
            return chr(int(found["hex"], 16) & 0xFF)
        if found["octal"]:
            return chr(int(found["octal"], 8) & 0xFF)
        return _SIGNS.get(found["sign"], found["sign"])

    return b"".join(
        part if isinstance(part, bytes) else part.encode() for part in _parts(text, meant)
    )


def _parts(text: str, meant: object) -> Iterator[bytes]:
    """Escapes are single bytes, whatever the source's encoding makes of what stands between them."""
    assert callable(meant)
    at = 0
    for found in _ESCAPE.finditer(text):
        yield text[at : found.start()].encode()
        yield meant(found).encode("latin-1")
        at = found.end()
    yield text[at:].encode()
