"""http-parser's collection, `test.c`: node's parser before llhttp. httptools' source distribution carries it.

Three kinds of it are read: the table `requests` of whole requests with what must be heard, `test_simple` and
`test_simple_type` with the error that must be found, and the lists of good and bad methods.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from strangers.c_text import Token, tokens
from strangers.case import Case, Heard, with_hosts

_PATH: Final = "vendor/http-parser/test.c"


def read(folder: Path) -> list[Case]:
    """All cases about requests of httptools' source distribution, unpacked in `folder`."""
    stream = list(tokens((folder / _PATH).read_text(encoding="utf-8")))
    return [with_hosts(case) for case in (*_table(stream), *_simple(stream), *_methods(stream))]


def _table(stream: Sequence[Token]) -> Iterator[Case]:
    """`const struct message requests[] = { {.name= "…" ,.raw= "…" … } … };`."""
    start = _find(stream, ["requests", "[", "]", "=", "{"]) + 5
    depth, number, entry = 0, 0, []
    for part in stream[start:]:
        if part == "{":
            depth += 1
        elif part == "}":
            depth -= 1
            if depth < 0:
                return
        entry.append(part)
        if depth == 0 and part == "}":
            number += 1
            yield _message(number, entry)
            entry = []


def _message(number: int, entry: Sequence[Token]) -> Case:
    said = {
        key: entry[at + 3 :]
        for at, key in enumerate(entry[1:], 1)
        if entry[at - 1] == "." and isinstance(key, str) and entry[at + 1] == "="
    }
    said = {key: entry[_find(entry, [".", key, "="]) + 3 :] for key in said}
    raw = _bytes(said["raw"][0])
    method = str(said["method"][0]).removeprefix("HTTP_").replace("MSEARCH", "M-SEARCH")
    count = int(str(said["num_headers"][0])) if "num_headers" in said else 0
    literals = [_text(part) for part in said.get("headers", ()) if isinstance(part, bytes)][: 2 * count]
    headers = tuple((name.lower(), value) for name, value in zip(literals[::2], literals[1::2], strict=True))
    heard = Heard(
        method,
        # An absolute-form without a path has the path "/": RFC 9110 §4.2.3.
        (_text(said["request_path"][0]) or "/") if "request_path" in said else None,
        _text(said["query_string"][0]) if "query_string" in said else None,
        ".".join(str(said[part][0]) for part in ("http_major", "http_minor")),
        headers,
        _bytes(said["body"][0]) if "body" in said and isinstance(said["body"][0], bytes) else None,
    )
    return Case(f"message {number}: {_text(said['name'][0])}", raw, (heard,))


def _simple(stream: Sequence[Token]) -> Iterator[Case]:
    """`test_simple("…", HPE_…)`; what is named there instead of written is looked up."""
    named = {
        stream[at]: stream[at + 2]
        for at in range(1, len(stream) - 2)
        if stream[at - 1] == "*" and stream[at + 1] == "=" and isinstance(stream[at + 2], bytes)
    }
    number = 0
    for at, part in enumerate(stream):
        if part not in ("test_simple", "test_simple_type") or stream[at + 1] != "(":
            continue
        raw, error = named.get(stream[at + 2], stream[at + 2]), str(stream[at + 4])
        if not isinstance(raw, bytes) or not error.startswith("HPE_") or stream[at + 6] == "HTTP_RESPONSE":
            continue
        number += 1
        is_cut = (
            not raw.partition(b"\r\n\r\n")[1]
            or b"Content-Length: 6" in raw  # of a body of five bytes
            or b"42 " in raw  # bytes of body, none of which follows
            or b"42\r\n" in raw
        )
        heard = (Heard(),) if error == "HPE_OK" else None
        yield Case(f"simple {number}: {error}", raw, heard, is_cut=is_cut)


def _methods(stream: Sequence[Token]) -> Iterator[Case]:
    for name, is_good in (("all_methods", True), ("bad_methods", False)):
        at = _find(stream, [name, "[", "]", "=", "{"]) + 5
        for part in stream[at : stream.index("}", at)]:
            if isinstance(part, bytes):
                raw = part + b" / HTTP/1.1\r\n\r\n"
                heard = (Heard(method=_text(part), path="/", version="1.1"),) if is_good else None
                yield Case(f"{name}: {_text(part)}", raw, heard)


def _find(stream: Sequence[Token], wanted: Sequence[Token]) -> int:
    for at in range(len(stream)):
        if list(stream[at : at + len(wanted)]) == list(wanted):
            return at
    raise LookupError(f"{' '.join(map(str, wanted))} is not in it")


def _bytes(part: Token) -> bytes:
    assert isinstance(part, bytes), part
    return part


def _text(part: Token) -> str:
    return _bytes(part).decode("latin-1")
