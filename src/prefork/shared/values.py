"""From values to payloads and back: bytes as they are, integers as digits, other objects by a serialiser.

The first byte of a payload says what follows. So a value that was stored as bytes is never given to a serialiser, and
`increment` of every backend can add to an integer without knowing what wrote it.

**Security.** `pickle`, the default, runs whatever a payload says when it is read: whoever can write to the store can
run code in every process that reads it. Between the workers of one master that is no new right: the directory is open
to its user alone. A Redis that others can write to is another matter: use "json" or "msgspec" there. A payload of
pickle is refused by a cache that does not use pickle.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from prefork.errors import ConfigError, NotSerialisableError

RAW: Final = 0x62  # b"b"
INTEGER: Final = 0x69  # b"i"
MISSING: Final = object()
"""Stands for what is not there, where None is a value."""
_RAW_MARK: Final = b"b"
_INTEGER_MARK: Final = b"i"


@dataclass(frozen=True, slots=True)
class Serialiser:
    """A way to make bytes of objects. `mark` is one byte of its own, which payloads begin with: b"b" and b"i" are taken."""

    name: str
    mark: bytes
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


@lru_cache(maxsize=1)
def _pickle() -> Serialiser:
    return Serialiser("pickle", b"p", lambda value: pickle.dumps(value, 5), pickle.loads)


@lru_cache(maxsize=1)
def _json() -> Serialiser:
    def dumps(value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()

    return Serialiser("json", b"j", dumps, json.loads)


@lru_cache(maxsize=1)
def _msgspec() -> Serialiser:
    try:
        import msgspec.msgpack as packed  # noqa: PLC0415  (by choice only)
    except ImportError as error:
        raise ConfigError('serialiser "msgspec" needs the package: pip install msgspec') from error
    return Serialiser("msgspec", b"m", packed.encode, packed.decode)


_KNOWN: Final = {"pickle": _pickle, "json": _json, "msgspec": _msgspec}


def serialiser(choice: str | Serialiser) -> Serialiser:
    """The serialiser of that name ("pickle", "json", "msgspec"), or the one given. Raises ConfigError."""
    if isinstance(choice, Serialiser):
        if len(choice.mark) != 1 or choice.mark in {_RAW_MARK, _INTEGER_MARK}:
            raise ConfigError(
                f"serialiser {choice.name!r}: its mark must be one byte other than b'b' and b'i', "
                f"not {choice.mark!r}"
            )
        return choice
    if choice not in _KNOWN:
        raise ConfigError(f"serialiser must be one of {', '.join(_KNOWN)}, or a Serialiser, not {choice!r}")
    return _KNOWN[choice]()


def encode(value: object, using: Serialiser) -> bytes:
    """The payload of a value. Raises NotSerialisableError."""
    kind = type(value)
    if kind is bytes:
        return _RAW_MARK + value  # type: ignore[operator]
    if kind is int and -(2**63) <= value < 2**63:  # type: ignore[operator]
        return b"i%d" % value  # type: ignore[str-format]
    try:
        return using.mark + using.dumps(value)
    except Exception as error:  # a serialiser may raise anything, from the object's own methods too
        raise NotSerialisableError(
            f"{using.name} cannot serialise a {kind.__name__} ({error}): store plain data, or bytes of your own"
        ) from error


def decode(payload: bytes, using: Serialiser) -> Any:
    """The value of a payload. Raises NotSerialisableError."""
    mark = payload[0]
    if mark == RAW:
        return payload[1:]
    if mark == INTEGER:
        return int(payload[1:])
    if mark != using.mark[0]:
        raise NotSerialisableError(
            f"this value was written by another serialiser ({payload[:1]!r}), not by {using.name}: "
            "use one serialiser for one name, or clear the cache"
        )
    try:
        return using.loads(payload[1:])
    except Exception as error:  # the class is gone or has changed since, or the bytes are damaged
        raise NotSerialisableError(f"{using.name} cannot read a value back: {error}") from error
