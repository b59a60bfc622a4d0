"""Addresses: the text a person writes, read once into a value, and written back.

Rules:

* Pure: nothing is resolved, opened or looked at. What the machine says of an address is found out in
  `listeners.py`.
* An `Address` is complete: what the network setting decided is in its `kind`, so nobody downstream asks
  for the network again.
* `parse_address(str(address)) == address`, for every address that was parsed. The canonical text is the
  key by which a successor of this master's program finds its sockets, so it never depends on the network
  setting.
* Every refusal is one line, and says what to write instead.

What the network setting means (Go's `net.Listen`, which the seed uses):

| network | `:8080` | IPv4 literal | IPv6 literal | name |
|---|---|---|---|---|
| not given | 0.0.0.0 (the seed's default is tcp4) | itself | itself; `[::]` takes IPv4 too | IPv4 first |
| `tcp4` | 0.0.0.0 | itself | refused | IPv4 only |
| `tcp6` | `[::]`, IPv6 only | refused | itself, IPv6 only | IPv6 only |
| `tcp` | `[::]`, takes IPv4 too | itself | itself; `[::]` takes IPv4 too | IPv4 first |
| `unix` | refused | refused | refused | the text is a path |

One thing is not as in Go: there `0.0.0.0` under `tcp` also takes IPv6. Who writes it means IPv4.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Literal, cast

from prefork.errors import AddressError, ConfigError

Kind = Literal["tcp", "tcp4", "tcp6", "unix", "fd"]
Network = Literal["tcp", "tcp4", "tcp6", "unix"]

UNIX_PATH_LIMIT_BYTES: Final = 107
"""`sun_path` is 108 bytes with its closing NUL (unix(7)); the kernel would take 108, other programs not."""

_PORT_LIMIT: Final = 65535
_FD_LIMIT: Final = 2**31 - 1
_NETWORKS: Final = ("tcp", "tcp4", "tcp6", "unix")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_DIGITS = re.compile(r"[0-9]+")
_ZONE = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Built by `parse_address`; compare and hash by value.

    * "tcp4", "tcp6": `host` and `port`, that family alone.
    * "tcp": `host` is `::` (both families on one socket) or a name (IPv4 first).
    * "unix": `path`; one that begins with `@` is in Linux's abstract namespace.
    * "fd": `fd`, a listening socket that is open already. `host`, `port` and `path` are what that socket is
      bound to once `ListenerSet` has looked, and for people only.
    """

    kind: Kind
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        """Canonical text: `parse_address` of it, with no network, is this address again."""
        if self.kind == "unix":
            # The authority form keeps a path that begins with "//" from being read as one.
            return f"unix://{self.path}" if self.path.startswith("//") else f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        plain = f"{self._bracketed()}:{self.port}"
        return plain if self.kind == _kind_by_default(self.host) else f"{self.kind}://{plain}"

    @property
    def is_tcp(self) -> bool:
        """True for the three TCP kinds; an "fd" address is not one, whatever its socket is."""
        return self.kind in ("tcp", "tcp4", "tcp6")

    @property
    def is_abstract(self) -> bool:
        """True for a Unix address in Linux's abstract namespace, which has no file."""
        return self.kind == "unix" and self.path.startswith("@")

    def url(self, tls: bool) -> str:  # noqa: FBT001 - there is only this one thing to say
        """What to tell a person: "http://127.0.0.1:8080", "unix:/run/app.sock"; a wildcard as it is."""
        if self.host:
            return f"{'https' if tls else 'http'}://{self._bracketed()}:{self.port}"
        return f"unix:{self.path}" if self.path else str(self)

    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_address(text: str, network: str | None = None) -> Address:
    """Read one address.

    `text` is `:8080`, `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`, `unix:/run/app.sock`,
    `unix:@abstract`, `fd://3`, a canonical text (`tcp6://[::]:8080`), or with `network="unix"` a plain path.
    `network` is "tcp", "tcp4", "tcp6", "unix", or None: whatever the text says, with tcp4 for a bare port.
    `unix:` and `fd://` say all there is to say, and are taken under every network.

    Raises `AddressError` for a text that is no address or that the network rules out, and `ConfigError` for
    an unknown network. Pure; may run in any process.
    """
    if network is not None and network not in _NETWORKS:
        raise ConfigError(f"network must be tcp, tcp4, tcp6 or unix, not {network!r}")
    _refuse_stray_characters(text)
    if text.startswith("unix:"):
        return _parse_unix(text, _strip_authority(text, text.removeprefix("unix:")))
    if text.startswith("fd:"):
        return _parse_fd(text)
    if network == "unix":
        return _parse_plain_path(text)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _parse_tcp(text, text, cast("Network | None", network))
    kind, rest = scheme[1], text[scheme.end() :]
    if kind not in ("tcp", "tcp4", "tcp6"):
        raise AddressError(_unknown_scheme(text, kind, rest))
    if network not in (None, kind):
        raise AddressError(f"address {text!r} contradicts network {network!r}: leave one of them out")
    return _parse_tcp(text, rest, cast("Network", kind))


def _refuse_stray_characters(text: str) -> None:
    if not text:
        raise AddressError("address is empty: write ':8080', '127.0.0.1:8080' or 'unix:/run/app.sock'")
    if text != text.strip():
        raise AddressError(f"address {text!r} has white space around it: remove it")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise AddressError(f"address {text!r} holds a control character: remove it")


def _unknown_scheme(text: str, scheme: str, rest: str) -> str:
    if scheme.lower() in ("http", "https", "ws", "wss"):
        authority = rest.partition("/")[0]
        has_port = re.search(r":[0-9]+$", authority) is not None
        advice = authority if has_port else f"{authority}:8080"
        return f"address {text!r} is a URL: write {advice!r}; a certificate is what turns TLS on"
    return f"address {text!r} has an unknown scheme {scheme!r}: use host:port, unix:PATH or fd://N"


# --- unix and fd -----------------------------------------------------------------------------------


def _strip_authority(text: str, rest: str) -> str:
    """`unix:///run/app.sock` is common elsewhere; `unix://run/app.sock` would have a host "run"."""
    if not rest.startswith("//"):
        return rest
    path = rest[2:]
    if path.startswith("/"):
        return path
    advice = f"unix:{path}" if path.startswith("@") else f"unix:/{path}"
    raise AddressError(f"address {text!r} has a host where its path begins: write {advice!r}")


def _parse_unix(text: str, path: str) -> Address:
    if path in ("", "@"):
        raise AddressError(f"address {text!r} has no path: write 'unix:/run/app.sock' or 'unix:@name'")
    if path.endswith("/"):
        raise AddressError(f"address {text!r} ends as a directory does: add the name of the socket")
    try:
        size_bytes = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise AddressError(f"address {text!r} cannot be a file name here: use plain letters") from error
    if size_bytes > UNIX_PATH_LIMIT_BYTES:
        raise AddressError(
            f"address {text!r} is too long: {size_bytes} bytes, and a Unix socket's path"
            f" has at most {UNIX_PATH_LIMIT_BYTES}; use a shorter directory"
        )
    return Address("unix", path=path)


def _parse_plain_path(text: str) -> Address:
    if _SCHEME.match(text) or ("/" not in text and re.search(r":[0-9]*$", text)):
        raise AddressError(f"address {text!r} is not a path, and network is unix: leave network out for TCP")
    return _parse_unix(text, text)


def _parse_fd(text: str) -> Address:
    number = text.removeprefix("fd://")
    if _DIGITS.fullmatch(number) is None or len(number) > 10 or int(number) > _FD_LIMIT:
        raise AddressError(f"address {text!r} names no descriptor: write 'fd://3'")
    return Address("fd", fd=int(number))


# --- TCP -------------------------------------------------------------------------------------------


def _parse_tcp(text: str, rest: str, network: Network | None) -> Address:
    host, port = _split_port(text, rest)
    if host == "":
        return _wildcard(network, port)
    if host.startswith("["):
        return _ipv6(text, host[1:-1], port, network)
    if _looks_ipv4(host):
        return _ipv4(text, host, port, network)
    name = host.lower()
    if not host.isascii() or _NAME.fullmatch(name) is None:
        raise AddressError(_bad_name(text, host))
    return Address(cast("Kind", network or "tcp"), host=name, port=port)


def _split_port(text: str, rest: str) -> tuple[str, int]:
    """Split host and port. The host is empty, or `[…]` with its brackets, or holds no colon."""
    if rest.startswith("["):
        host, bracket, tail = rest.partition("]")
        if not bracket:
            raise AddressError(f"address {text!r} has no closing bracket: write '[::1]:8080'")
        host, colon, port = host + bracket, tail[:1], tail[1:]
        if colon not in ("", ":"):
            raise AddressError(f"address {text!r} has {tail!r} after the bracket: write '[::1]:8080'")
    else:
        host, colon, port = rest.rpartition(":")
        if not colon:
            host, port = rest, ""
    if ":" in host and not host.startswith("["):
        raise AddressError(f"address {text!r} has several colons: write IPv6 in brackets, '[::1]:8080'")
    if not colon and _DIGITS.fullmatch(rest):
        raise AddressError(f"address {text!r} is a bare number: write ':{rest}' for that port")
    if not port:
        raise AddressError(f"address {text!r} has no port: write {host + ':8080'!r}")
    return host, _parse_port(text, port)


def _parse_port(text: str, port: str) -> int:
    # The length is looked at first because int() of a very long text is slow, and refused by Python.
    if _DIGITS.fullmatch(port) is None:
        raise AddressError(f"address {text!r} has port {port!r}: write a number from 0 to {_PORT_LIMIT}")
    digits = port.lstrip("0") or "0"
    if len(digits) > len(str(_PORT_LIMIT)) or int(digits) > _PORT_LIMIT:
        raise AddressError(f"address {text!r} has a port that is too high: the last one is {_PORT_LIMIT}")
    return int(digits)


def _wildcard(network: Network | None, port: int) -> Address:
    if network in ("tcp", "tcp6"):
        return Address(cast("Kind", network), host="::", port=port)
    return Address("tcp4", host="0.0.0.0", port=port)


def _ipv4(text: str, host: str, port: int, network: Network | None) -> Address:
    try:
        literal = str(IPv4Address(host))
    except AddressValueError as error:
        raise AddressError(f"address {text!r}: {host!r} is not an IPv4 address: {error}") from error
    if network == "tcp6":
        raise AddressError(
            f"address {text!r} is IPv4, and network is tcp6: leave network out, or write '[::1]:{port}'"
        )
    return Address("tcp4", host=literal, port=port)


def _ipv6(text: str, host: str, port: int, network: Network | None) -> Address:
    try:
        literal = IPv6Address(host)
    except AddressValueError as error:
        raise AddressError(f"address {text!r}: {host!r} is not an IPv6 address: {error}") from error
    if literal.ipv4_mapped is not None:
        raise AddressError(f"address {text!r} is IPv4 in disguise: write '{literal.ipv4_mapped}:{port}'")
    if literal.scope_id is not None and _ZONE.fullmatch(literal.scope_id) is None:
        raise AddressError(f"address {text!r} has a bad interface after '%': write '[fe80::1%eth0]:8080'")
    if network == "tcp4":
        raise AddressError(
            f"address {text!r} is IPv6, and network is tcp4: leave network out, or set it to tcp6 or tcp"
        )
    is_dual = literal == IPv6Address("::") and network != "tcp6"
    return Address("tcp" if is_dual else "tcp6", host=str(literal), port=port)


def _bad_name(text: str, host: str) -> str:
    if host == "*":
        return f"address {text!r}: write ':8080' for every interface"
    if not host.isascii():
        return f"address {text!r}: write the host's name in its ASCII form, 'xn--…'"
    return f"address {text!r}: {host!r} is no host name; write 'localhost:8080' or '127.0.0.1:8080'"


def _kind_by_default(host: str) -> Kind:
    """The kind that the plain text of `host` gets when no network is given."""
    if ":" in host:
        return "tcp" if host == "::" else "tcp6"
    return "tcp4" if _looks_ipv4(host) else "tcp"


def _looks_ipv4(host: str) -> bool:
    return _DIGITS.fullmatch(host.replace(".", "")) is not None
