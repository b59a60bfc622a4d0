"""Who a request comes from, as the proxies in front of us tell it: `X-Forwarded-*`, and `Forwarded` (RFC 7239).

Rules:

* Only a trusted peer is listened to, and of a chain of hops only what a trusted one wrote: it is read from the right,
  past trusted hops, and the first that is not trusted is the client. What stands left of it anybody may have made up.
* "*" trusts whoever connects to us, but vouches for no hop: behind it the last entry is the client. To take the first
  one then, as others do, lets each client choose its address, since proxies append (nginx's
  `$proxy_add_x_forwarded_for`). Behind several proxies name them too: "*", "10.0.0.0/8".
* `X-Forwarded-*` wins; `Forwarded` counts only where neither `X-Forwarded-For` nor `-Proto` came. Most proxies (nginx,
  Envoy, Traefik, Caddy, the clouds' balancers) write the former and pass a client's own `Forwarded` on as it is; the
  other order lets it speak for itself. Behind a proxy that writes `Forwarded`, say so: `headers="forwarded"`.
* The scheme, and the host, come from as deep in their lists as the client does in its own.
* The host is taken only if asked for (`is_host_taken`): a proxy that does not set `X-Forwarded-Host` passes the client's
  on, and with it links in mails, redirects and cache keys (Django's `USE_X_FORWARDED_HOST` is off for that, too).
* What cannot be read is no error. An address that a trusted proxy withholds ("unknown", "_hidden"), or that makes no
  sense, leaves the client unknown (None): to name the proxy in its place would lend the client the proxy's rights.

Not here: when to call this, and what becomes of the answer; the PROXY protocol (`proxy_protocol`); and
`X-Forwarded-Prefix`, which few proxies set and all others pass on: the option `root_path` says it for certain.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, get_args

from prefork.errors import ConfigError
from prefork.http.request import FORWARDING, HOST, is_host

Client = tuple[str, int | None] | None
"""Host and port as in ASGI's scope; port 0 where only the host is known."""

Headers = Literal["any", "x-forwarded", "forwarded"]
"""What is listened to: either family, `X-Forwarded-*` before `Forwarded`; or just the one."""

FORWARDED: Final = b"forwarded"
X_FOR: Final = b"x-forwarded-for"
X_PROTO: Final = b"x-forwarded-proto"
X_HOST: Final = b"x-forwarded-host"
X_PORT: Final = b"x-forwarded-port"

DEFAULT_PROXIES: Final = ("127.0.0.1", "::1", "unix")
"""As gunicorn. Who may open a Unix socket of ours passed the file system's permissions, which is more than a
loopback connection needs; uvicorn leaves "unix" out, and its users end up with "*"."""

_MOST_HOPS: Final = 32
_MOST_KNOWN: Final = 1024
_LONGEST_KNOWN_BYTES: Final = 64
"""Bounds of a chain, and of the memory for what was looked up before."""

_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
"""Traefik says "wss" for the request that opens a WebSocket."""

_DEFAULT_PORTS: Final = (b"80", b"443")
"""Never joined to a host, whatever the scheme: balancers say 80 behind another that took TLS off."""

_UNIX_HOP: Final = b"unix:"
"""nginx's `$remote_addr` where it was reached by a Unix socket."""

# An IPv4 or bracketed IPv6 address with a port or an obfuscated one (RFC 7239 §6), or bare IPv6. No zone ("%eth0"):
# `ipaddress` takes any text there.
_NODE: Final = re.compile(
    r"(?:(?P<v4>[0-9.]{7,15})|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])(?::(?:(?P<port>[0-9]{1,5})|_[0-9A-Za-z._-]+))?"
    r"|(?P<bare>[0-9A-Fa-f:.]{2,45})"
)

# One [pair] of a forwarded-element and what ends it (RFC 7239 §4). Colons and brackets are let through unquoted, since
# many proxies write them so.
_PAIR: Final = re.compile(
    rb"[ \t]*(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(\"(?:[^\"\\]|\\.)*\"|[^ \t;,\"]*)[ \t]*)?(?:;|\Z)", re.DOTALL
)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_PORT: Final = re.compile(rb"[1-9][0-9]{0,4}")


class Origin(NamedTuple):
    """Where a request came from, as far as trusted proxies tell; what they do not tell is as it was."""

    client: Client
    scheme: str
    host: bytes | None
    """What replaces the Host header; None leaves it alone."""


class _Node(NamedTuple):
    client: tuple[str, int] | None
    is_trusted: bool


class TrustedProxies:
    """The peers whose word on a request's origin is believed. Any process; pure but for its memory.

    Args:
        proxies: addresses, networks ("10.0.0.0/8"), "unix" for whoever comes by a Unix socket, "*" for every peer; as
            strings, or one string with commas.
        headers: see `Headers`.
        is_host_taken: whether `X-Forwarded-Host`, `X-Forwarded-Port` and `Forwarded: host=` are believed, too. Only for
            proxies that set them in every request.

    Raises ConfigError.
    """

    def __init__(
        self,
        proxies: str | Iterable[str] = DEFAULT_PROXIES,
        *,
        headers: Headers = "any",
        is_host_taken: bool = False,
    ) -> None:
        if headers not in get_args(Headers):
            raise ConfigError(
                f"forwarded headers must be one of {', '.join(get_args(Headers))}, not {headers!r}"
            )
        self.headers = headers
        self.is_host_taken = is_host_taken
        entries = proxies.split(",") if isinstance(proxies, str) else proxies
        names = {entry.strip() for entry in entries} - {""}
        self._is_all_trusted = "*" in names
        self._is_unix_trusted = "unix" in names
        self._networks = [_network(name) for name in sorted(names - {"*", "unix"})]
        self._peers: dict[str, bool] = {}
        self._nodes: dict[bytes, _Node] = {}

    def trusts(self, peer_host: str | None) -> bool:
        """Whether to listen to a peer; `peer_host` is its address, or None if it came by a Unix socket."""
        if self._is_all_trusted:
            return True
        if peer_host is None:
            return self._is_unix_trusted
        known = self._peers.get(peer_host)
        return self._learn_peer(peer_host) if known is None else known

    def node(self, text: bytes) -> _Node:
        """Read one hop of a chain: whom it names, and whether that is a proxy whose own word counts."""
        return self._nodes.get(text) or self._learn_node(text)

    def _learn_peer(self, host: str) -> bool:
        try:
            is_trusted = self._is_named(_unmapped(host))
        except ValueError:
            is_trusted = False
        if len(self._peers) >= _MOST_KNOWN:
            self._peers.clear()
        self._peers[host] = is_trusted
        return is_trusted

    def _learn_node(self, text: bytes) -> _Node:
        node = self._read_node(text)
        if len(text) <= _LONGEST_KNOWN_BYTES:
            if len(self._nodes) >= _MOST_KNOWN:
                self._nodes.clear()
            self._nodes[text] = node
        return node

    def _read_node(self, text: bytes) -> _Node:
        if text == _UNIX_HOP:
            return _Node(None, self._is_unix_trusted)
        match = _NODE.fullmatch(text.decode("latin-1"))
        if match is None:
            return _Node(None, is_trusted=False)
        try:
            address = _unmapped(match["v4"] or match["v6"] or match["bare"])
        except ValueError:
            return _Node(None, is_trusted=False)
        port = int(match["port"] or 0)
        return _Node((str(address), port if port <= 0xFFFF else 0), self._is_named(address))

    def _is_named(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def _unmapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A dual-stack listener sees IPv4 peers as ::ffff:127.0.0.1, and some proxies write so."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def apply(
    headers: Iterable[tuple[bytes, bytes]], client: Client, scheme: str, trusted: TrustedProxies
) -> Origin:
    """Tell where a request comes from that a trusted peer has sent. Never raises; runs in the worker.

    Args:
        headers: lower-case names and values, in order.
        client: the peer, or None.
        scheme: "http" or "https", of the connection.
        trusted: whose word counts; its `trusts(peer)` holds.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in FORWARDING or name == HOST:
            # One list, however many lines it came in (RFC 9110 §5.3).
            found[name] = found[name] + b"," + value if name in found else value
    if trusted.headers == "forwarded" or (
        trusted.headers == "any" and FORWARDED in found and X_FOR not in found and X_PROTO not in found
    ):
        return _from_forwarded(_items(found.get(FORWARDED, b"")), client, scheme, trusted)
    return _from_x(found, client, scheme, trusted)


def _from_x(found: Mapping[bytes, bytes], client: Client, scheme: str, trusted: TrustedProxies) -> Origin:
    depth = 1
    for depth, hop in enumerate(reversed(_items(found.get(X_FOR, b""))), 1):  # noqa: B007
        client, is_trusted = trusted.node(hop)
        if not is_trusted:
            break
    scheme = _SCHEMES.get(_at(found, X_PROTO, depth).lower(), scheme)
    if not trusted.is_host_taken:
        return Origin(client, scheme, None)
    host, port = _at(found, X_HOST, depth), _at(found, X_PORT, depth)
    if _PORT.fullmatch(port) and int(port) <= 0xFFFF and port not in _DEFAULT_PORTS:
        host = host or found.get(HOST, b"")
        if host and not _has_port(host):
            host += b":" + port
    return Origin(client, scheme, host if host and is_host(host) else None)


def _from_forwarded(
    elements: Sequence[bytes], client: Client, scheme: str, trusted: TrustedProxies
) -> Origin:
    # From the right, each element by itself: a quote that a client has left open cannot swallow what the proxy appended
    # to it. The price: an element with a comma in quotes cannot be read.
    pairs: dict[bytes, bytes] = {}
    for element in reversed(elements):
        pairs = _pairs(element)
        if pairs and b"for" not in pairs:
            break  # nothing said of the client: it stays
        client, is_trusted = trusted.node(pairs.get(b"for", b""))
        if not is_trusted:
            break
    scheme = _SCHEMES.get(pairs.get(b"proto", b"").lower(), scheme)
    host = pairs.get(b"host", b"") if trusted.is_host_taken else b""
    return Origin(client, scheme, host if host and is_host(host) else None)


def _pairs(element: bytes) -> dict[bytes, bytes]:
    """The parameters of a forwarded-element, with lower-case names; none if it is malformed."""
    pairs: dict[bytes, bytes] = {}
    position = 0
    while position < len(element):
        match = _PAIR.match(element, position)
        if match is None:
            return {}
        position = match.end()
        name, value = match.groups()
        if name is None:
            continue
        name = name.lower()
        if name in pairs:  # "MUST NOT occur more than once" (RFC 7239 §4)
            return {}
        pairs[name] = _ESCAPED.sub(rb"\1", value[1:-1]) if value[:1] == b'"' else value
    return pairs


def _items(value: bytes) -> list[bytes]:
    """The items of a list, without empty ones; beyond the bound the leftmost are left in one, which nothing reads."""
    return [item for item in (part.strip(b" \t") for part in value.rsplit(b",", _MOST_HOPS)) if item]


def _at(found: Mapping[bytes, bytes], name: bytes, depth: int) -> bytes:
    """The item of a list that belongs to the hop at `depth`, counted from the right; the leftmost if it has fewer."""
    value = found.get(name)
    if value is None:
        return b""
    items = _items(value)
    return items[-min(depth, len(items))] if items else b""


def _has_port(host: bytes) -> bool:
    return b":" in host.rpartition(b"]")[2]


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ConfigError(
                f"trusted proxy {text!r} is neither an address nor a network: write it as 10.0.0.5, 10.0.0.0/8 or "
                f'2001:db8::/32, "unix" for Unix sockets, or "*" for all'
            ) from error
        raise ConfigError(
            f"trusted proxy {text!r} is an address within a network: write {meant} for all of it, "
            f"or {text.partition('/')[0]} for the one"
        ) from error
