r"""gunicorn's collection: `tests/requests/{valid,invalid}/NAME.http`, each with a NAME.py that says what is expected.

The .http files write \r\n, \n, \0, \t and \xHH for what they mean, and line ends of their own mean nothing. The .py files
assign a literal (or several, and a list of their names) to `request`, or the name of an exception; with settings by
`cfg.set(name, value)`. They are read as syntax and not run.

Pure, but for the reading of files.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from strangers.case import Case, Heard, with_hosts

_ESCAPES: Final = MappingProxyType({b"\\r": b"\r", b"\\n": b"\n", b"\\0": b"\0", b"\\t": b"\t"})

_CUT: Final = {"NoMoreData", "ChunkMissingTerminator", "InvalidProxyLine"}
"""Exceptions for input that ends too early, and for a preface that is none: there is nobody to answer yet."""


def read(folder: Path) -> list[Case]:
    """All cases of a source distribution that lies unpacked in `folder`."""
    found = []
    for kind in ("valid", "invalid"):
        for path in sorted((folder / "tests" / "requests" / kind).glob("*.http")):
            expected, settings = read_expected(path.with_suffix(".py").read_text())
            raw = unescape(path.read_bytes())
            options = _options(expected, settings)
            name = f"{kind}/{path.stem}"
            if isinstance(expected, str):
                found.append(Case(name, raw, None, options, is_cut=expected in _CUT))
            else:
                found.append(Case(name, raw, tuple(expected), options))
    return [with_hosts(case) for case in found]


def unescape(text: bytes) -> bytes:
    r"""What a .http file stands for.

    >>> unescape(b"GET / HTTP/1.1\\r\\n\nA: \\xff\\t\\r\\n\n")
    b'GET / HTTP/1.1\r\nA: \xff\t\r\n'
    """
    text = text.replace(b"\n", b"")
    return re.sub(
        rb"\\x([0-9a-fA-F]{2})|\\[rn0t]",
        lambda found: bytes([int(found[1], 16)]) if found[1] else _ESCAPES[found[0]],
        text,
    )


def read_expected(source: str) -> tuple[list[Heard] | str, Mapping[str, Any]]:
    """What a .py file expects: requests, or the name of an exception; and the settings that it makes."""
    values: dict[str, ast.expr] = {}
    settings: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                values[name] = value
            case ast.Expr(ast.Call(func=ast.Attribute(attr="set"), args=[ast.Constant(name), value])):
                settings[str(name)] = ast.literal_eval(value)
            case _:
                pass
    match values["request"]:
        case ast.Name(name) if name not in values:
            return name, settings
        case ast.List(elements):
            each = [values[part.id] if isinstance(part, ast.Name) else part for part in elements]
            return [_heard(part, values) for part in each], settings
        case literal:
            return [_heard(literal, values)], settings


def _heard(literal: ast.expr, values: Mapping[str, ast.expr]) -> Heard:
    said = _value(literal, values)
    path, query = split_target(said["uri"])
    headers = tuple((name.lower(), value) for name, value in said["headers"])
    return Heard(said["method"], path, query, "{}.{}".format(*said["version"]), headers, said["body"] or b"")


def _value(node: ast.expr, values: Mapping[str, ast.expr]) -> Any:
    """A literal in which `uri("…")` is its text, names are those of the file, and text may be replaced and encoded."""
    match node:
        case ast.Call(ast.Name("uri"), [text]):
            return _value(text, values)
        case ast.Call(ast.Attribute(text, "replace" | "encode" | "decode" as name), arguments):
            return getattr(_value(text, values), name)(*(_value(each, values) for each in arguments))
        case ast.Name(name):
            return _value(values[name], values)
        case ast.Dict(keys, elements):
            pairs = zip(keys, elements, strict=True)
            return {_value(key, values): _value(each, values) for key, each in pairs if key is not None}
        case ast.List(elements) | ast.Tuple(elements):
            return [_value(each, values) for each in elements]
        case _:
            return ast.literal_eval(node)


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request's target, whichever of its forms (RFC 9112 §3.2)."""
    if target.startswith("/"):
        path, _, query = target.partition("?")
        return path, query
    if "://" in target:
        parts = urlsplit(target)
        return parts.path or "/", parts.query
    return target, ""


def _options(expected: list[Heard] | str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Our own options for their settings, where we have the same.

    Their bound of a field is one of the whole head here: so it says something of what must be refused alone.
    """
    given: dict[str, Any] = {}
    if settings.get("proxy_protocol"):
        given["proxy_protocol"] = True
    if expected == "LimitRequestLine":
        given["target_bytes"] = settings.get("limit_request_line") or 4094
    if expected == "LimitRequestHeaders":
        if "limit_request_fields" in settings:
            given["header_count"] = settings["limit_request_fields"]
        given["head_bytes"] = settings.get("limit_request_field_size") or 8190
    return given
