"""What an exchange asks of the connection that it came by; what there is besides is the connection's own affair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from prefork.http.engine import Engine
    from prefork.http.exchange import Exchange
    from prefork.http.forwarded import Client, Origin


class Connection(Protocol):
    """What an exchange asks of the connection that it came by."""

    engine: Engine
    is_proxy_trusted: bool
    """What the other side says of forwarding is to be believed."""
    client: Client
    own: dict[str, Any]
    """What of its scopes (or environs) is not the same for all connections that came the same way."""
    template: dict[str, Any]
    """What all of its scopes begin with, besides."""
    is_write_paused: bool
    is_closed: bool
    """Nobody is there any more."""

    def write(self, data: bytes) -> None: ...

    def write_large(self, before: bytes, body: bytes, after: bytes) -> None:
        """Write all of it in this order; `body` is worth not being copied."""

    def origin_of(self, headers: list[tuple[bytes, bytes]]) -> Origin:
        """Where a forwarded request came from."""

    async def writable(self) -> None:
        """Wait until the client has taken enough of what was written, or is gone."""

    async def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send `count` bytes of a file from `offset` on; how many there were. For as long as it takes."""

    def want_body(self) -> None:
        """The application waits for more of the body."""

    def answer(self, data: bytes) -> None:
        """Write the whole of an ordinary answer: `write` and `response_done` in one."""

    def response_done(self) -> None:
        """The current exchange's answer is complete."""

    def bare_fd(self, exchange: Exchange) -> int:
        """Where an answer to this exchange can be written past everything, now; -1 if it cannot."""

    def abort(self) -> None:
        """Reset: what was sent is not to be taken for a whole answer."""
