"""One case of a collection: raw bytes, and what should become of them. What did become of them, and how the two differ.

Pure: no sockets here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote_to_bytes

Headers = tuple[tuple[str, str], ...]
"""Names in lower case with dashes, values as latin-1, in the order they came."""


@dataclass(frozen=True)
class Heard:
    """A request, as an application hears of it; or as a collection says that it should: None is what it does not say."""

    method: str | None = None
    path: str | None = None
    """As it came: %xx is not decoded, and an absolute-form's scheme and host are taken off."""
    query: str | None = None
    version: str | None = None
    headers: Headers | None = None
    body: bytes | None = None
    is_whole: bool = True
    """The body came to its end."""
    is_decoded: bool = False
    """`path` is WSGI's: %xx decoded, bytes as latin-1; headers of one name are one, joined by commas."""


@dataclass(frozen=True)
class Case:
    """`heard`: the requests that applications must hear; None if it must be refused."""

    name: str
    raw: bytes
    heard: tuple[Heard, ...] | None
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `Server` has to be told for it."""
    is_cut: bool = False
    """It ends too early: to close without a word is an answer, too, and a request that must be heard need not be whole."""


@dataclass(frozen=True)
class Outcome:
    """What a server made of a case: what its application heard, and all the bytes that it answered."""

    heard: tuple[Heard, ...]
    answered: bytes

    @property
    def last_status(self) -> int:
        """Of the last answer; 0 if there was none."""
        found = re.findall(rb"^HTTP/1\.1 (\d{3}) ", self.answered, re.MULTILINE)
        return int(found[-1]) if found else 0

    @property
    def is_refused(self) -> bool:
        """The last answer is the server's own refusal, and says that it closes."""
        last = self.answered[self.answered.rfind(b"HTTP/1.1 ") :].lower()
        is_ours = b"\r\nx-heard:" not in last and self.last_status >= 400
        return is_ours and b"\r\nconnection: close\r\n" in last


def difference(case: Case, outcome: Outcome) -> str:
    """How what became of a case differs from what should have, in a few words; empty if it does not."""
    whole = [each for each in outcome.heard if each.is_whole]
    if case.heard is None:
        if whole:
            return f"taken: the application heard {len(whole)}"
        if outcome.is_refused or (case.is_cut and not outcome.answered):
            return ""
        return "closed without a word" if not outcome.answered else "refused, but not closed"
    if case.is_cut and not outcome.is_refused:
        return ""
    if len(whole) < len(case.heard):
        status = f" with {outcome.last_status}" if outcome.is_refused else ", or not finished"
        return f"refused{status}" + (f" after {len(whole)} of {len(case.heard)}" if whole else "")
    if len(whole) > len(case.heard):
        return f"the application heard {len(whole)}, not {len(case.heard)}"
    found = [_unlike(wanted, got) for wanted, got in zip(case.heard, whole, strict=True)]
    return "; ".join(each for each in found if each)


def _unlike(wanted: Heard, got: Heard) -> str:
    path = wanted.path
    if path is not None and got.is_decoded:
        path = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    pairs = {
        "method": (wanted.method, got.method),
        "path": (path, got.path),
        "query": (wanted.query, got.query),
        "version": (wanted.version, got.version),
        "body": (wanted.body, got.body),
    }
    found = [
        f"{name} {came!r}, not {should!r}"
        for name, (should, came) in pairs.items()
        if should is not None and should != came
    ]
    return ", ".join(found + _unlike_headers(wanted.headers, got))


def _unlike_headers(wanted: Headers | None, got: Heard) -> list[str]:
    if wanted is None:
        return []
    view = joined if got.is_decoded else by_name
    should, came = view(wanted), view(got.headers or ())
    if got.is_decoded and should.pop("transfer-encoding", ""):
        # WSGI is told the length of a body, however it came: RFC 3875 §4.1.2, §4.2.
        came.pop("content-length", "")
    found = [f"header {name} missing" for name in sorted(should.keys() - came.keys())]
    found += [f"header {name} made up" for name in sorted(came.keys() - should.keys())]
    both = sorted(should.keys() & came.keys())
    return found + [
        f"header {name} {came[name]!r}, not {should[name]!r}" for name in both if came[name] != should[name]
    ]


def by_name(headers: Headers) -> dict[str, str]:
    """Values by name, those of one name in their order, each on a line of its own."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def joined(headers: Headers) -> dict[str, str]:
    """As WSGI has them: one value a name, joined by commas without blanks."""
    return {name: re.sub(r"\s*[\n,]\s*", ",", value) for name, value in by_name(headers).items()}


def together(found: Mapping[tuple[str, str], str]) -> str:
    """Differences by interface and way of telling, as one text; empty if there are none.

    >>> together({("asgi", "whole"): "a", ("asgi", "byte by byte"): "a", ("wsgi", "whole"): ""})
    'asgi: a'
    """
    kinds = dict.fromkeys(found.values())
    if len(kinds) == 1:
        return next(iter(kinds))
    return "; ".join(f"{_ways(found, kind)}: {kind}" for kind in kinds if kind)


def _ways(found: Mapping[tuple[str, str], str], kind: str) -> str:
    ways: dict[str, list[str]] = {}
    for (interface, way), each in found.items():
        if each == kind:
            ways.setdefault(interface, []).append(way)
    alike = [interface for interface, _ in found]
    return " and ".join(
        interface if len(told) == alike.count(interface) else f"{interface} ({', '.join(told)})"
        for interface, told in ways.items()
    )


def pieces(raw: bytes) -> dict[str, Sequence[bytes]]:
    """The ways a case is sent."""
    return {"whole": (raw,), "byte by byte": [raw[at : at + 1] for at in range(len(raw))]}


_HEAD = re.compile(rb"\S+ (?P<target>\S+) HTTP/1\.(?P<minor>[01])\r\n(?P<fields>(?:[^\r\n].*\r\n)*)\r\n")


def with_hosts(case: Case) -> Case:
    """The case with the Host that HTTP/1.1 asks for (RFC 9112 §3.2) in each of its requests that has none.

    Parsers do not ask for it, a server must: without this, many cases would not be about what they are about.
    """
    raw, heard, at = case.raw, list(case.heard or ()), 0
    for number in range(max(1, len(heard))):
        found = _HEAD.search(raw, at)
        if not found or (not heard and raw[: found.start()].strip(b"\r\n")):
            break
        at = found.end() + _body_bytes(found["fields"], raw[found.end() :])
        if found["minor"] == b"0" or re.search(rb"(?mi)^host[ \t]*:", found["fields"]):
            continue
        absolute = re.match(r"[a-z]+://(?:[^/?#]*@)?([^/?#]+)", found["target"].decode("latin-1"))
        authority = absolute[1] if absolute else "a.example"
        line = f"Host: {authority}\r\n".encode("latin-1")
        raw, at = raw[: found.start("fields")] + line + raw[found.start("fields") :], at + len(line)
        headers = heard[number].headers if heard else None
        if headers is not None:
            heard[number] = replace(heard[number], headers=(("host", authority), *headers))
    return replace(case, raw=raw, heard=None if case.heard is None else tuple(heard))


def _body_bytes(fields: bytes, rest: bytes) -> int:
    """How long the body is that begins `rest`, as far as that can be told."""
    if re.search(rb"(?mi)^transfer-encoding:.*chunked", fields):
        last = re.search(rb"(?m)^0+[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n", rest)
        return last.end() if last else 0
    length = re.search(rb"(?mi)^content-length:[ \t]*(\d+)[ \t]*\r$", fields)
    return int(length[1]) if length else 0
