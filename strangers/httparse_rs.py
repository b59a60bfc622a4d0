"""httparse's collection (hyper's parser): `req! { name, b"…", |req| { asserts } }` in `src/lib.rs` and `tests/uri.rs`.

Where no result stands between the bytes and the closure the request must be heard, and the asserts say how;
`Err(Error::…)` is a refusal, `Ok(Status::Partial)` one that has not ended.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from strangers.c_text import Token, tokens
from strangers.case import Case, Heard, with_hosts
from strangers.gunicorn_requests import split_target


def read(folder: Path) -> list[Case]:
    """All cases of the crate, unpacked somewhere under `folder`."""
    (crate,) = folder.glob("usr/share/cargo/registry/httparse-*")
    return [
        with_hosts(case)
        for path in ("src/lib.rs", "tests/uri.rs")
        for case in _cases(list(tokens((crate / path).read_text(encoding="utf-8"))))
    ]


def _cases(stream: Sequence[Token]) -> Iterator[Case]:
    starts = [at for at in range(len(stream) - 5) if list(stream[at : at + 3]) == ["req", "!", "{"]]
    for start, end in pairwise([*starts, len(stream)]):
        name = stream[start + 3]
        literal = next(
            (at for at in range(start, min(start + 8, end)) if isinstance(stream[at], bytes)), None
        )
        if literal is None:  # the macro itself
            continue
        raw = stream[literal]
        assert isinstance(raw, bytes)
        result = "".join(str(token) for token in stream[literal + 1 : literal + 12])
        rest = stream[literal + 1 : end]
        if result.startswith(",Err("):
            yield Case(str(name), raw, None)
            continue
        is_cut = result.startswith(",Ok(Status::Partial")
        yield Case(str(name), raw, (Heard() if is_cut else _heard(rest),), is_cut=is_cut)


def _heard(body: Sequence[Token]) -> Heard:
    """What the asserts of a closure say."""
    said: dict[str, str] = {}
    names: dict[int, str] = {}
    values: dict[int, str] = {}
    count: int | None = None
    for at in range(len(body) - 8):
        if list(body[at : at + 2]) != ["req", "."]:
            continue
        field, rest = str(body[at + 2]), body[at + 3 :]
        literal = next((part for part in rest[:10] if isinstance(part, bytes)), b"")
        if field in ("method", "path"):
            said[field] = literal.decode("latin-1")
        elif field == "version":
            said[field] = "1." + str(rest[5])
        elif field == "headers" and rest[0] == "[":
            into = names if rest[4] == "name" else values
            into[int(str(rest[1]))] = literal.decode("latin-1")
        elif field == "headers" and rest[1] == "len" and str(rest[5]).isdigit():
            count = int(str(rest[5]))
    path, query = split_target(said["path"]) if "path" in said else (None, None)
    is_told = count is not None and len(names) == len(values) == count
    headers = tuple((names[at].lower(), values[at]) for at in range(count or 0)) if is_told else None
    return Heard(said.get("method"), path, query, said.get("version"), headers)
