"""From bytes to requests: httptools' parser, its callbacks, and what they have gathered.

Requests come out in `queue` as exchanges, without their bodies, which follow as they are parsed. What must not be is
raised as RefusedError, through the parser, to whoever feeds; its status is in `refused`.

httptools calls the reader for each header: so it asks only what every request needs, and everything that is about
framing (`_is_unusual`) in a branch of its own.

Not here: when a request is started, and what becomes of a refusal (`protocol`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import httptools

from prefork.http.connection import Connection
from prefork.http.exchange import COMPLETE, Exchange
from prefork.http.limits import DISCARD_BYTES, SLICE_BYTES, HttpLimits
from prefork.http.request import (
    FORWARDING,
    HOST,
    METHODS,
    SLASH,
    NameCache,
    RefusedError,
    is_host,
    parse_target,
    parse_unusual_target,
)


class RequestReader:
    """Reads the requests of one connection."""

    __slots__ = (
        "_connection",
        "_engine",
        "_headers",
        "_host",
        "_host_count",
        "_is_chunked",
        "_is_expecting",
        "_is_forwarded",
        "_is_unusual",
        "_length",
        "_limits",
        "_names",
        "_parser",
        "_upgrade",
        "body_left_bytes",
        "carried_bytes",
        "feed",
        "grafted",
        "incoming",
        "is_mangled",
        "queue",
        "refused",
        "url",
    )

    feed: Callable[[bytes | memoryview], None]
    """Parse. Raises whatever httptools raises."""

    def __init__(self, connection: Connection, limits: HttpLimits, names: NameCache) -> None:
        self._connection = connection
        self._engine = connection.engine
        self._limits = limits
        self._names = names
        self._host = b""
        self.queue: list[Exchange] = []
        """Parsed and not started, in order."""
        self.incoming: Exchange | None = None
        """The latest that was parsed; its body may be on its way."""
        self.carried_bytes = 0
        """Read since anything was finished: bounds heads, trailers and chunk extensions that never end."""
        self.body_left_bytes = 0
        """What is to come of a body whose length was told."""
        self.grafted: bytes | None = None
        self.refused = 0
        """The status of a refusal that was raised."""
        self.is_mangled = False
        """llhttp can make nothing of it."""
        self._forget_fields()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Parse on with a new parser."""
        self._parser: Any = httptools.HttpRequestParser(self)
        self.feed = self._parser.feed_data

    @property
    def is_in_plain_body(self) -> bool:
        """What comes next is of a body whose length was told: nothing can hide in it, and nobody need parse it."""
        return self.body_left_bytes > 0 and self.grafted is None

    def take_body(self, body: bytes) -> None:
        """Take the next bytes of a plain body, no more than are left of it. Raises RefusedError.

        Past the parser, which would copy them; it has lost count then, and another one reads what follows.
        """
        self.on_body(body)
        if not self.body_left_bytes:
            self.begin_anew()
            self.on_message_complete()

    def close(self) -> None:
        """Let go of all. Parser and connection hold us: circles, and garbage collection is dear."""
        del self._parser, self.feed, self._connection
        self.incoming = None
        self.queue.clear()

    def _forget_fields(self) -> None:
        """Make ready for the next head."""
        self.url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._host_count = 0
        self._is_unusual = self._is_chunked = self._is_expecting = self._is_forwarded = False
        self._length = 0
        self._upgrade = b""

    def _refuse(self, status: int) -> NoReturn:
        # Noted as well as raised: when a span ends with what was fed, llhttp passes the error on without its context.
        self.refused = status
        raise RefusedError(status)

    @property
    def header_count(self) -> int:
        """Headers of the head, or trailers of the body, that is being read."""
        return len(self._headers)

    @property
    def is_overfull(self) -> bool:
        """What is being read, head or trailers, is more than one may have."""
        return self.carried_bytes > self._limits.head_bytes or self.header_count > self._limits.header_count

    @property
    def _is_in_trailers(self) -> bool:
        """What comes is no head, and means nothing; llhttp refuses lengths and codings there."""
        return self.incoming is not None and not self.incoming.is_body_complete

    @property
    def is_at_end(self) -> bool:
        """The last request that this connection will answer has been read; what follows has no meaning."""
        incoming = self.incoming
        return incoming is not None and incoming.is_body_complete and not incoming.keep_alive

    def is_refused_as_head(self) -> bool:
        """What is refused is a HEAD: not even a refusal may have a body then.

        What llhttp stumbles over in a head is never one: how much of it was known then depends on how its bytes came.
        """
        incoming = self.incoming
        if incoming is not None and not incoming.is_body_complete:
            return incoming.is_head_only
        return not self.is_mangled and bool(self.url) and self._parser.get_method() == b"HEAD"

    def take_upgrade(self, rest: bytes) -> bytes:
        """What to feed after an HttpParserUpgrade that left `rest`: see `_read_framing`."""
        if self.grafted is None:
            return rest
        self.begin_anew()
        return self.grafted + rest

    # -- the parser calls --------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self._limits.target_bytes:
            self._refuse(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = self._names.get(name)
        value = value.rstrip()  # llhttp leaves trailing blanks in
        if lowered is None:
            lowered = self._names.lower(name)
            self._on_unusual(lowered, value)
        elif lowered is HOST:
            self._host_count += 1
            if value != self._host:
                self._on_new_host(value)
        self._headers.append((lowered, value))

    def _on_new_host(self, value: bytes) -> None:
        if self._is_in_trailers:
            return  # not checked, so not to be remembered as good
        if not is_host(value):
            self._refuse(400)
        self._host = value  # the client will say the same again

    def _on_unusual(self, name: bytes, value: bytes) -> None:
        """A header about framing or forwarding; or one that is not remembered."""
        if self._is_in_trailers:
            return
        if name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                self._refuse(501)
            self._is_chunked = True
        elif name == b"expect":
            if value.lower() != b"100-continue":
                self._refuse(417)
            self._is_expecting = True
        elif name == HOST:
            self._host_count += 1
            self._on_new_host(value)
            return
        elif name == b"upgrade":
            self._upgrade = value
        elif name in FORWARDING:
            self._is_forwarded = True
        elif name != b"connection":
            return
        self._is_unusual = True

    def on_headers_complete(self) -> None:
        parser = self._parser
        headers = self._headers
        method = METHODS.get(parser.get_method())
        if (
            self._is_unusual
            or self._host_count != 1
            or method is None
            or self.carried_bytes
            or not parser.should_keep_alive()
            or self.url[0] != SLASH
            or len(headers) > self._limits.header_count
            or self._limits.head_bytes < SLICE_BYTES
        ):
            self._on_unusual_head(parser, method)
            return
        try:
            target = parse_target(self.url)
        except RefusedError as error:
            self._refuse(error.status)
        engine, connection = self._engine, self._connection
        make = engine.exchange
        scope = make.scope_of(connection, method, target, headers)
        exchange = make(connection, scope, engine.keeps_alive)
        if method == "HEAD" or not engine.keeps_alive:
            exchange.is_head_only = method == "HEAD"
            exchange.is_ordinary = False
        self.incoming = exchange
        self.queue.append(exchange)
        self.url = b""
        self._headers = []
        self._host_count = 0

    def _on_unusual_head(self, parser: Any, method: str | None) -> None:
        """A head with anything in it that not every request has."""
        if self.grafted is not None:
            self.grafted = None
            self._forget_fields()
            return
        if method is None:
            self._refuse(501)
        headers = self._headers
        if len(headers) > self._limits.header_count:
            self._refuse(431)
        self._check_head_size()
        try:
            if self.url[0] == SLASH:
                target, host = parse_target(self.url), None
            else:
                target, host = parse_unusual_target(self.url, method)
        except RefusedError as error:
            self._refuse(error.status)
        if host is not None:  # it counts, and the header does not (RFC 9112 §3.2.2)
            headers = [(HOST, host), *[header for header in headers if header[0] != HOST]]
        keep_alive = bool(parser.should_keep_alive())
        engine, connection = self._engine, self._connection
        make = engine.exchange
        scope = make.scope_of(connection, method, target, headers)
        exchange = make(connection, scope, keep_alive and engine.keeps_alive)
        exchange.is_head_only = method == "HEAD"
        exchange.is_ordinary = exchange.keep_alive and not exchange.is_head_only
        self.incoming = exchange
        self._read_framing(exchange, parser)
        if self._host_count != 1 and (self._host_count > 1 or not exchange.is_http_1_0):
            self._refuse(400)
        if self._is_forwarded:
            exchange.pristine = scope.copy(), headers
            if connection.is_proxy_trusted:
                exchange.set_origin(connection.origin_of(headers))
        self.queue.append(exchange)
        self.carried_bytes = 0
        self._forget_fields()

    def _read_framing(self, exchange: Exchange, parser: Any) -> None:
        """Version, expectation, body size, upgrade."""
        version = parser.get_http_version()
        if version == "1.0":
            if self._is_chunked:
                self._refuse(400)
            exchange.be_http_1_0()
        elif version != "1.1":
            self._refuse(505)
        if self._length > self._limits.body_bytes:
            self._refuse(413)
        has_body = self._is_chunked or self._length > 0
        self.body_left_bytes = self._length
        exchange.has_body = has_body
        if self._is_expecting and has_body and version == "1.1":
            exchange.expects_continue = True
            exchange.is_ordinary = False
        if not parser.should_upgrade():
            return
        if has_body:
            # llhttp takes all that follows an upgrade for another protocol. We do not upgrade, so a body follows:
            # a head of our own, fed to a new parser, makes it read on as a body.
            framing = (
                b"transfer-encoding: chunked" if self._is_chunked else b"content-length: %d" % self._length
            )
            self.grafted = b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing
        elif version == "1.1" and self._upgrade.lower() == b"websocket":
            exchange.wants_websocket = True

    def _check_head_size(self) -> None:
        size = len(self.url) + 16 + sum(len(name) + len(value) + 4 for name, value in self._headers)
        if size > self._limits.head_bytes:
            self._refuse(431)

    def on_body(self, body: bytes) -> None:
        exchange = self.incoming
        assert exchange is not None
        self.carried_bytes = 0
        self.body_left_bytes -= len(body)
        exchange.body_bytes += len(body)
        if exchange.stage == COMPLETE:
            if exchange.body_bytes > DISCARD_BYTES:
                self._refuse(413)
        elif exchange.body_bytes > self._limits.body_bytes:
            self._refuse(413)
        elif not exchange.is_disconnected:
            exchange.body = exchange.body + body if exchange.body else body

    def on_message_complete(self) -> None:
        incoming = self.incoming
        assert incoming is not None
        self.carried_bytes = 0
        if self.grafted is None:
            incoming.is_body_complete = True
        if self._headers:  # trailers: read, checked by llhttp, and not passed on
            self._forget_fields()
