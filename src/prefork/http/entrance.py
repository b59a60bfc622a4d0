"""What connections have in common that came the same way: what their scopes begin with, and what was asked before.

Clients with a pool ask the same again and again, byte by byte, and nearly all say the same headers with each of their
requests. So of what came twice is kept what it meant, for all connections of the entrance: the next that is the same
is not parsed again, and of one that differs in its target only the first line is read.

Rules:

* What is kept is what llhttp has made of the very same bytes while it stood between two requests. Whoever asks here
  knows that the parser stands there now: "UN", read before, makes another request of "LOCK /" (`protocol`).
* Kept are requests without anything in them that not every request has: no body, no HEAD, no close, no upgrade, no 1.0.
* Nothing that an application may change is shared: it gets copies (`Exchange.renewed`).
* Of who asks nothing is kept: client and forwarding are the connection's own (`Exchange.own`, `protocol`).
* Bounded, in entries and in bytes of each; when an entrance is full, all that it has learnt is forgotten.
* Bounded are entrances, too. Who comes by one more (another cipher, another address that the PROXY protocol names), or with
  a certificate, has one alone that keeps next to nothing: or else each of thousands of connections could fill some MiB.

Rejected: to keep it with each connection. Nothing is shared then, clients that ask once a connection gain nothing, and with
256 connections in turn all of it is out of the CPU's cache: 2 µs more a request at 512 connections.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from prefork.http.limits import HttpLimits
from prefork.http.request import METHODS, Target, parse_target

MOST_BYTES: Final = 4096
"""Of a request that is kept: a browser's with its cookies is below 2 KiB."""

_MOST_KEPT: Final = 256
"""Requests, and as many blocks of headers, of one entrance: some MiB where all are of the longest."""

_MOST_KEPT_ALONE: Final = 2
"""Of one that a single connection has."""

_MOST_ENTRANCES: Final = 8
"""That a worker remembers: addresses, each over plain TCP and over some ciphers."""

# What `parse_target` takes in origin-form, in a line that leaves llhttp no choice.
_FIRST_LINE: Final = re.compile(
    rb"(%b) (/[!-\x22$-~]*) HTTP/1\.1" % b"|".join(method for method in METHODS if method != b"HEAD")
)

if TYPE_CHECKING:
    from prefork.http.exchange import Exchange

Kept = tuple[dict[str, Any], list[tuple[bytes, bytes]] | None]
"""A scope without what is the connection's own; the headers, where some of them are about forwarding."""


class Entrance:
    """One of a worker's, for connections whose scopes begin with `template`. `Entrances` makes it."""

    __slots__ = (
        "_blocks",
        "_limit_bytes",
        "_most_kept",
        "_recent",
        "_recent_blocks",
        "_target_bytes",
        "known",
        "template",
    )

    def __init__(self, template: dict[str, Any], limits: HttpLimits, most_kept: int = _MOST_KEPT) -> None:
        self.template = template
        self.known: dict[bytes, Kept] = {}
        """By all bytes of a request."""
        self._blocks: dict[bytes, Kept] = {}
        """By all that follows the first line."""
        self._most_kept = most_kept
        self._recent: list[bytes] = [b""] * most_kept
        self._recent_blocks: list[bytes] = [b""] * most_kept
        """What came once, by its hash: a stream of requests that never come again shall not drive out those that do."""
        self._limit_bytes = min(MOST_BYTES, limits.head_bytes)
        self._target_bytes = limits.target_bytes

    def alike(self, data: bytes) -> tuple[Kept, str, Target] | None:
        """What `data` means if its headers are known, and only its first line is not: with its method and target."""
        if len(data) > self._limit_bytes:
            return None
        line, _, block = data.partition(b"\r\n")
        kept = self._blocks.get(block)
        if kept is None:
            return None
        said = _FIRST_LINE.fullmatch(line)
        if said is None:
            return None
        method, target = said.groups()
        if len(target) > self._target_bytes:
            return None
        return kept, METHODS[method], parse_target(target)

    def learn(self, data: bytes, exchange: Exchange) -> None:
        """All of `data` was one request, of the kind that may be kept: `exchange`, which no application has had yet."""
        if len(data) > self._limit_bytes:
            return
        is_known = self._came_before(self._recent, data)
        line, _, block = data.partition(b"\r\n")
        is_block = self._came_before(self._recent_blocks, block) and _FIRST_LINE.fullmatch(line) is not None
        if not is_known and not is_block:
            return
        scope, headers = exchange.pristine or (exchange.scope, None)
        scope = exchange.renewed(scope, exchange.connection)
        for key in exchange.connection.own:
            del scope[key]
        kept = (
            scope,
            None if headers is None else headers.copy(),
        )  # the list itself is in the application's scope
        if is_known:
            self._keep(self.known, data, kept)
        if is_block:
            self._keep(self._blocks, block, kept)

    def _came_before(self, recent: list[bytes], data: bytes) -> bool:
        place = hash(data) % self._most_kept
        if recent[place] == data:
            return True
        recent[place] = data
        return False

    def _keep(self, where: dict[bytes, Kept], data: bytes, kept: Kept) -> None:
        if len(where) >= self._most_kept:
            where.clear()
        where[data] = kept


class Entrances(dict[Any, Entrance]):
    """Those of one worker, by all that their templates are made of."""

    def open(self, key: Any, template: dict[str, Any], limits: HttpLimits) -> Entrance:
        """A new one: for later connections of this key, too, if there is room; for one alone if `key` is None."""
        if key is None or len(self) >= _MOST_ENTRANCES:
            return Entrance(template, limits, _MOST_KEPT_ALONE)
        entrance = self[key] = Entrance(template, limits)
        return entrance
