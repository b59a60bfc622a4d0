"""Who is at the other end of a connection, as the transport and a proxy's preface tell it.

Not here: what a trusted proxy says of one request (`forwarded`), what a preface looks like (`proxy_protocol`).
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from prefork.http.forwarded import Client
from prefork.http.outside import address_of
from prefork.http.proxy_protocol import Preface
from prefork.http.site import Site


class Caller(NamedTuple):
    """What holds for all requests of a connection."""

    client: Client
    server: tuple[str, int | None] | None
    scheme: str
    tls: Any
    """The connection's SSL object; None for a plain one."""
    is_proxy_trusted: bool
    """What it says of forwarding is to be believed."""
    is_gone: bool
    """It was reset before it was accepted, and what it has sent can still be read: from nobody, that is, and a client
    without an address passes for one at a Unix socket, whose peer is ""."""


def identify(transport: asyncio.Transport, preface: Preface | None, site: Site) -> Caller:
    """Who has called. Runs once a connection."""
    said = transport.get_extra_info
    peer, tls = said("peername"), said("ssl_object")
    client, server = address_of(peer), address_of(said("sockname"), is_ours=True)
    scheme = "https" if tls else "http"
    if preface is not None and preface.source is not None:
        host, port = preface.source
        client = None if port is None else (host, port)  # the path of a Unix socket names no client
        server = preface.destination
        scheme = "https" if preface.is_tls else scheme
    # A preface that names no client leaves the proxy itself, and what a client says of forwarding is not its word.
    is_named = preface is None or (preface.source is not None and client is not None)
    is_trusted = is_named and site.trusted.trusts(client[0] if client else None)
    return Caller(client, server, scheme, tls, is_trusted, peer is None)
